"""Typed settings: the environment over the INI over the default, every error at once.

A section is a colander schema. The setting ``a.b_c`` is overridden by the variable ``A_B_C``, and by the contents
of the file that ``A_B_C_FILE`` names. A blank value counts as not set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import colander

MASK = "********"


@dataclass(frozen=True)
class SettingError:
    """One setting that is wrong, and where to mend it."""

    key: str
    message: str

    def __str__(self) -> str:
        name = variable(self.key)
        return f"{self.key} (variable {name} or {name}_FILE): {self.message}"


class InvalidSettings(Exception):
    """The deployment's settings are wrong; ``errors`` is every one of them."""

    def __init__(self, errors: list[SettingError]) -> None:
        self.errors = errors
        head = "1 setting is wrong:" if len(errors) == 1 else f"{len(errors)} settings are wrong:"
        super().__init__("\n  ".join([head, *map(str, errors)]))


class Section(Mapping[str, Any]):
    """The values of one section, by key or as attributes; dots in a key are underscores in the attribute.

    ``origins`` says of each key where its value came from.
    """

    def __init__(self, name: str, schema: colander.SchemaNode, values: dict[str, Any], origins: dict[str, str]):
        self.name = name
        self.schema = schema
        self.origins = origins
        self._values = values
        self._attributes = {key.replace(".", "_"): value for key, value in values.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_attributes"][name]
        except KeyError:
            raise AttributeError(f"the section {self.name!r} has no setting {name!r}") from None

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def display(self, key: str) -> str:
        """The value as an operator may see it: a secret is masked."""
        value, setting = self._values[key], self.schema[key]
        if value is None:
            return ""
        if getattr(setting, "secret", False):
            return MASK
        if hasattr(setting, "mask"):
            return str(setting.mask(value))
        return " ".join(value) if isinstance(value, tuple) else str(value)


def variable(key: str) -> str:
    """The environment variable that overrides the setting ``key``."""
    return re.sub(r"[.-]", "_", key).upper()


def _find(key: str, ini: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The raw value of a setting and where it came from. Raises ValueError with what is wrong."""
    name = variable(key)
    direct, file = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
    if direct and file:
        raise ValueError(f"both {name} and {name}_FILE are set; unset one")
    contents = ""
    if file:
        try:
            contents = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}_FILE names a file that cannot be read: {error}") from None
    for value, origin in (
        (direct, f"variable {name}"),
        (contents, f"file named by {name}_FILE"),
        (str(ini.get(key, "")).strip(), "INI"),
    ):
        if value:
            return value, origin
    return None, "default"


def read(
    name: str, schema_class: type[colander.SchemaNode], ini: Mapping[str, Any], environ: Mapping[str, str]
) -> Section:
    """Read the section ``name``. Raises :class:`InvalidSettings` with all that is wrong in it."""
    schema = schema_class()
    prefix = f"{name}." if name else ""
    errors: list[SettingError] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    known = [f"{prefix}{node.name}" for node in schema.children]
    for key in ini:
        if prefix and key.startswith(prefix) and key not in known:
            errors.append(SettingError(key, "is not a setting." + _did_you_mean(key, known)))
    for node in schema.children:
        key = f"{prefix}{node.name}"
        try:
            raw, origins[node.name] = _find(key, ini, environ)
            values[node.name] = node.deserialize(colander.null if raw is None else raw)
        except ValueError as error:
            errors.append(SettingError(key, str(error)))
        except colander.Invalid as error:
            message = getattr(node, "how", "is required") if raw is None else "; ".join(error.asdict().values())
            errors.append(SettingError(key, message))
    if hasattr(schema, "check"):
        errors += [SettingError(f"{prefix}{key}", message) for key, message in schema.check(values)]
    if errors:
        raise InvalidSettings(errors)
    return Section(name, schema, values, origins)


def misspelt_sections(ini: Mapping[str, Any], known: Collection[str]) -> list[SettingError]:
    """Keys whose section does not exist, but whose name is close to one that does.

    Other keys without a section of ours are left alone: they belong to Pyramid's add-ons, or are the INI's own.
    """
    errors = []
    for key in ini:
        head, _, _ = key.partition(".")
        if head not in known and difflib.get_close_matches(head, known, 1, 0.8):
            errors.append(SettingError(key, "is not a setting." + _did_you_mean(head, known)))
    return errors


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f" Did you mean {close[0]}?" if close else f" Known: {', '.join(known)}."


# -- types of settings --------------------------------------------------------------------------------------------


class Words(colander.SchemaType):
    """Words between white space or commas, as a tuple."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        return cstruct if cstruct is colander.null else tuple(cstruct.replace(",", " ").split())


class Flag(colander.SchemaType):
    """``true`` or ``false``, and nothing that could be mistaken for either."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        try:
            return {"true": True, "false": False}[cstruct.lower()]
        except KeyError:
            raise colander.Invalid(node, f"is {cstruct!r}; write true or false") from None


class Number(colander.SchemaType):
    """A whole number of ASCII digits between two bounds."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum, self.maximum = minimum, maximum

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not re.fullmatch("[0-9]{1,18}", cstruct) or not self.minimum <= int(cstruct) <= self.maximum:
            raise colander.Invalid(node, f"is {cstruct!r}; write a whole number from {self.minimum} to {self.maximum}")
        return int(cstruct)


def node(typ: colander.SchemaType, title: str, **more: Any) -> colander.SchemaNode:
    """A setting: its type, what it means (with units), and ``missing`` as the default; none means required."""
    return colander.SchemaNode(typ, title=title, **more)


class Sections(dict[str, Section]):
    """Every section that was read, by name, and what is wrong so far.

    ``names``: what a key may begin with, that is all sections that were to be read, and settings without one.
    """

    def __init__(self, ini: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.ini, self.environ = ini, environ
        self.names: set[str] = set()
        self.errors: list[SettingError] = []

    def add(self, name: str, schema: type[colander.SchemaNode]) -> Section:
        """Read one more section. Raises :class:`InvalidSettings`, and remembers its errors for all to be told."""
        self.names |= {name} if name else {node.name for node in schema().children}
        try:
            self[name] = read(name, schema, self.ini, self.environ)
        except InvalidSettings as wrong:
            self.errors += wrong.errors
            raise
        return self[name]


def section(registry: Any, name: str) -> Section:
    """The section ``name`` of an application."""
    found: Section = registry.sections[name]
    return found
