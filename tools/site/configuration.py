"""docs/configuration.md: every setting, as the schemas that read it tell."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import colander
from application import ROOT, application, plugins

from customer_orders.settings import Number, Switch, Words, variable

HEAD = """\
# Configuration

<!-- Made by `make docs` from the settings' schemas: change those, not this page. -->

Every setting of the service and of the plugins that come with it. All of them stand in `[app:main]` of one INI file.
The setting `a.b_c` is overridden by the variable `A_B_C`, and by the contents of the file that `A_B_C_FILE` names, for
secrets: set one of the two, not both. `customer-orders settings -c INI` shows what counts in a deployment, and where it
came from.

A blank value counts as not set, but where *blank* is said to mean something. An empty file is an error, and so is a
placeholder (`change-me`, `<api key>`, `secret`) where a secret belongs. A key that is not known is an error with a
suggestion. If anything is wrong the application does not start, and tells all of it at once.
"""
PAGE = ROOT / "docs" / "configuration.md"


def page() -> str:
    """The whole page."""
    folders = plugins()
    # the development tools refuse any other address than this machine's
    sections = application(*folders, url="http://127.0.0.1:6543").registry.sections
    parts = [HEAD]
    for name, schema in sections.schemas.items():
        parts += _section(name, schema(), folders)
    return "\n".join(parts)


def _section(name: str, schema: Any, folders: dict[str, Any]) -> Iterator[str]:
    yield f"## {f'`{name}`' if name else 'Without a section'}\n"
    yield f"{_summary(type(schema))}\n"
    if name in folders:
        folder = folders[name].relative_to(ROOT)
        yield f"Of the plugin [{folder.name}](../{folder}/README.md), where `plugins` names it.\n"
    for node in schema.children:
        yield from _setting(f"{name}.{node.name}" if name else node.name, node)


def _setting(key: str, node: Any) -> Iterator[str]:
    name = variable(key)
    facts = [("Variable", f"`{name}`, or `{name}_FILE`"), ("Takes", _type(node)), ("Default", _default(node))]
    if getattr(node, "secret", False):
        facts.append(("Secret", "never shown; better off in a variable or a file than in the INI"))
    elif hasattr(node, "secrets_in"):
        facts.append(("Secret", "the passwords in it, which are never shown"))
    yield f"### `{key}`\n"
    yield f"{node.title}\n"
    yield "\n".join(f"* {what}: {said}" for what, said in facts) + "\n"


def _type(node: Any) -> str:
    """What may be written, in words."""
    for validator in getattr(node.validator, "validators", None) or [node.validator]:
        if isinstance(validator, colander.OneOf):
            return ", ".join(f"`{choice}`" for choice in validator.choices)
        if isinstance(validator, colander.Range):
            return f"a whole number from {validator.min} to {validator.max}"
    match node.typ:
        case Number(minimum=minimum, maximum=maximum):
            return f"a whole number from {minimum} to {maximum}"
        case Switch():
            return "`true` or `false`"
        case Words():
            return "words, with white space or commas between"
        case colander.String():
            return "text"
        case colander.Integer():
            return "a whole number"
    # a type of the section's own says itself what it is, with its bounds by their names
    said = re.sub(r"`(\w+)`", lambda name: str(getattr(node.typ, name[1])), _summary(type(node.typ)).rstrip("."))
    return said[0].lower() + said[1:]


def _default(node: Any) -> str:
    if node.required:
        return "none: it is required"
    value = node.missing
    if value in (None, (), ""):
        return "blank"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{' '.join(value) if isinstance(value, tuple) else value}`"


def _summary(thing: type) -> str:
    """The first sentence of a docstring, without its markup."""
    said = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
    return said.replace("``", "`").partition(", as :class:")[0].rstrip(".") + "."
