"""INI files for tests: an application's settings, and how its processes log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = own
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = own
[formatter_own]
"""
# What a formatter may be.
PLAIN = "format = %(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
JSON = "class = customer_orders.logs.JsonFormatter"


def write_ini(file: Path, settings: Mapping[str, str], *, logs: str | None = None) -> str:
    """Write the file, and tell its path.

    :param logs: the formatter of what goes to standard error; None: the INI says nothing of logs.
    """
    lines = "\n".join(f"{key} = {value.replace('%', '%%')}" for key, value in settings.items())
    logging = "" if logs is None else f"{LOGGING}{logs}\n"
    file.write_text(f"[app:main]\nuse = egg:customer-orders\n{lines}\n{logging}")
    return str(file)
