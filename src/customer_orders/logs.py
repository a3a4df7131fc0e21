"""What a log line says beside its message, and log lines as JSON: one object a line, whatever is logged.

:func:`install` makes every record of the process one that is masked (see masking.py) and knows what it is about.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.orjson import OrjsonFormatter

from customer_orders.masking import MaskedRecord, mask_last_words, masked

Fields = Mapping[str, Any]

_about: ContextVar[Callable[[], Fields] | None] = ContextVar("about", default=None)

# Whole numbers below this have fewer digits than a phone number.
SHORT = 10**9


@contextmanager
def about(fields: Callable[[], Fields]) -> Iterator[None]:
    """Have every line that is logged here in the block say these fields too.

    They are asked for line by line, since more becomes known of a request while it is handled. What they hold is
    logged as it is: a value that somebody else chose has to be masked before.
    """
    token = _about.set(fields)
    try:
        yield
    finally:
        # threads are used again
        _about.reset(token)


class Record(MaskedRecord):
    """A record that knows what it is about: in whatever thread or process it is formatted later."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields = _about.get()
        self.about: dict[str, Any] = {} if fields is None else dict(fields())


def install() -> None:
    """Have all that this process logs masked, from here on, and say what it is about."""
    logging.setLogRecordFactory(Record)
    mask_last_words()
    # Python's own warnings are lines like any other
    logging.captureWarnings(True)


class JsonFormatter(OrjsonFormatter):
    """``class = customer_orders.logs.JsonFormatter`` of an INI's ``[formatter_...]``; a ``format`` is not heeded.

    Each line has ``timestamp`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``; with an error ``exception``;
    then what it is about, and what the call gave as ``extra``, masked. docs/logs.md lists the fields.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "about"])

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if isinstance(record.msg, dict):
            # a message like any other: its keys are not ours
            record = copy.copy(record)
            record.msg = str(record.msg)
        return super().format(record)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Collect the fields; one of ours wins over an extra of the same name."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
        ours = {
            "timestamp": f"{at}Z",
            "level": record.levelname,
            "logger": record.name,
            # a library may make records of its own
            "message": record.message if isinstance(record, MaskedRecord) else masked(record.message),
            "exception": message_dict.get("exc_info"),
            "stack": message_dict.get("stack_info"),
            **getattr(record, "about", {}),
        }
        extra = merge_record_extra(record, {}, self.reserved_attrs)
        told = ours | {name: _plain(name, value) for name, value in extra.items() if name not in ours}
        log_data |= {name: _whole(value) for name, value in told.items() if value is not None}

    def formatException(self, ei: Any) -> str:  # noqa: N802 - of the standard library
        """The traceback, masked."""
        return masked(str(super().formatException(ei)))


def _plain(name: str, value: Any) -> Any:
    """What came as an extra: a short number as it is, anything else as masked text."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < SHORT):
        return value
    # with its name, since it may be that which tells of a secret
    return masked(f"{name}={value}").partition("=")[2]


def _whole(value: Any) -> Any:
    """A value that is JSON: half a surrogate pair is none."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
