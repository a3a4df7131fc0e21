"""Typed settings: the environment over the INI over the default, every error at once.

A section is a colander schema. The setting ``a.b_c`` is overridden by the variable ``A_B_C``, and by the contents
of the file that ``A_B_C_FILE`` names. A blank value counts as not set, unless the setting's type is
``String(allow_empty=True)``: there it is the empty string. A file without a value is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import colander
from pyramid.exceptions import ConfigurationError

MASK = "********"

# What stands in documentation where a secret belongs, anywhere in a value; and words that are too short for that.
PLACEHOLDER = re.compile(
    "change.?(me|this|it)|place.?holder|example|replace|your.?(api|client|key|own|pass|secret|token)|insert|fill.?(me|in)"
    r"|[<{\[(](the |your )?[a-z_ -]*(key|password|secret|token)[a-z_ -]*[>}\])]",
    re.IGNORECASE,
)
STAND_IN = re.compile(
    "(my|the|a|some|client|api|jwt|top)?[ _-]*(secret|password|passwd|pass|pwd|key|token|test|dummy|fake|sample"
    "|default)[ _-]*(key|value|here)?[0-9]{0,4}|todo|tbd|fixme|none|null|undefined|foo|bar|foobar|letmein|qwerty"
    "|admin|user|[0-9]{1,8}",
    re.IGNORECASE,
)
# Fewer different characters than this were typed to fill a field, not made.
VARIETY = 3


@dataclass(frozen=True)
class SettingError:
    """One setting that is wrong, and where to mend it. ``known``: whether there is such a setting at all."""

    key: str
    message: str
    known: bool = True

    def __str__(self) -> str:
        name = variable(self.key)
        where = f" (variable {name} or {name}_FILE)" if self.known else ""
        return f"{self.key}{where}: {self.message}"


class InvalidSettings(ConfigurationError):
    """The deployment's settings are wrong; ``errors`` is every one of them, ``valid`` what was read all the same."""

    def __init__(self, errors: list[SettingError], valid: Collection[Setting] = ()) -> None:
        self.errors, self.valid = errors, valid
        head = "1 setting is wrong:" if len(errors) == 1 else f"{len(errors)} settings are wrong:"
        super().__init__("\n  ".join([head, *map(str, errors)]))


@dataclass(frozen=True)
class Setting:
    """One setting as it was read: its value, where that came from, and the node of the schema that it was read by."""

    key: str
    value: Any
    origin: str
    node: colander.SchemaNode

    def display(self) -> str:
        """The value as an operator may see it: a secret is masked."""
        # what is not there is no secret
        if self.value in (None, ()):
            return ""
        if getattr(self.node, "secret", False):
            return MASK
        if hasattr(self.node, "mask"):
            return str(self.node.mask(self.value))
        if isinstance(self.value, bool):
            # as it is written
            return str(self.value).lower()
        return " ".join(self.value) if isinstance(self.value, tuple) else str(self.value)


class Section:
    """The values of one section, as attributes; dots in a setting's name are underscores in the attribute.

    ``section["name"]`` is the whole :class:`Setting`, and iteration yields each. Nothing else here has a name: the
    names belong to the settings.
    """

    def __init__(self, name: str, settings: dict[str, Setting]) -> None:
        self._name = name
        self._settings = settings
        self._values = {name.replace(".", "_"): setting.value for name, setting in settings.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"the section {self._name!r} has no setting {name!r}") from None

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name]

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())


def variable(key: str) -> str:
    """The environment variable that overrides the setting ``key``."""
    return re.sub(r"[.-]", "_", key).upper()


def _find(key: str, ini: Mapping[str, Any], environ: Mapping[str, str], *, blank: bool) -> tuple[str | None, str]:
    """The raw value of a setting and where it came from. Raises ValueError with what is wrong.

    :param blank: whether a blank value is a value.
    """
    name = variable(key)
    direct, written = (
        None if given is None or not (blank or str(given).strip()) else str(given).strip()
        for given in (environ.get(name), ini.get(key))
    )
    file = environ.get(f"{name}_FILE", "").strip()
    if direct is not None and file:
        raise ValueError(f"both {name} and {name}_FILE are set; unset one")
    if file:
        return _contents(name, file), f"file named by {name}_FILE"
    if direct is not None:
        return direct, f"variable {name}"
    return (None, "default") if written is None else (written, "INI")


def _contents(name: str, file: str) -> str:
    try:
        contents = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}_FILE names a file that cannot be read: {error}") from None
    # a secret that was not mounted must not pass for one that was not asked for
    if not contents:
        raise ValueError(f"{name}_FILE names a file that is empty: {file}")
    return contents


def read(
    name: str, schema_class: type[colander.SchemaNode], ini: Mapping[str, Any], environ: Mapping[str, str]
) -> Section:
    """Read the section ``name``. Raises :class:`InvalidSettings` with all that is wrong in it."""
    schema = schema_class()
    prefix = f"{name}." if name else ""
    errors: list[SettingError] = []
    found: dict[str, Setting] = {}
    nodes = [*schema.children, *_variants(schema, prefix, ini, environ)]
    known = [f"{prefix}{node.name}" for node in nodes]
    for key in ini:
        if prefix and key.startswith(prefix) and key not in known:
            errors.append(_unknown(key, key, known))
    spelt: dict[str, str] = {}
    for node in nodes:
        key = f"{prefix}{node.name}"
        first = spelt.setdefault(variable(key), key)
        if first != key:
            errors.append(SettingError(key, f"is {first} in other letters; keep one of the two"))
            continue
        try:
            raw, origin = _find(key, ini, environ, blank=getattr(node.typ, "allow_empty", False))
            value = node.deserialize(colander.null if raw is None else raw)
            _refuse_placeholder(node, value)
            found[node.name] = Setting(key, value, origin, node)
        except ValueError as error:
            errors.append(SettingError(key, str(error)))
        except colander.Invalid as error:
            message = getattr(node, "how", "is required") if raw is None else "; ".join(error.asdict().values())
            errors.append(SettingError(key, message))
    if hasattr(schema, "check"):
        valid = {name: setting.value for name, setting in found.items()}
        errors += [SettingError(f"{prefix}{key}", message) for key, message in schema.check(valid)]
    if errors:
        raise InvalidSettings(errors, list(found.values()))
    return Section(name, found)


def is_placeholder(secret: str) -> bool:
    """Whether a secret looks like what stands in documentation, or was typed to fill a field."""
    return bool(PLACEHOLDER.search(secret) or STAND_IN.fullmatch(secret) or len(set(secret)) < VARIETY)


def _refuse_placeholder(node: colander.SchemaNode, value: Any) -> None:
    """A secret is one. Raises ``colander.Invalid``, which does not repeat it: it may be a good one but for a slip."""
    if value in (None, ()) or not (getattr(node, "secret", False) or hasattr(node, "secrets_in")):
        return
    words = value if isinstance(value, tuple) else (value,)
    given = node.secrets_in(value) if hasattr(node, "secrets_in") else words
    if any(is_placeholder(word) for word in given if word):
        raise colander.Invalid(node, "looks like a placeholder, not a secret; put in the real one")


def _variants(
    schema: colander.SchemaNode, prefix: str, ini: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[colander.SchemaNode]:
    """The settings that a deployment has beside those that the schema names: their variants, found by the keys.

    A variable makes one too. Its name has neither small letters nor hyphens, so ``A_B_SW_KE`` is ``a.b.sw-ke``, or
    ``a.b.sw-KE`` if the INI spells it so.
    """
    for node in schema.children:
        if not hasattr(node, "variant"):
            continue
        stem = f"{prefix}{node.name}."
        words = [key.removeprefix(stem) for key in ini if key.startswith(stem)]
        spelt = {variable(word) for word in words}
        for name, value in environ.items():
            word = name.removeprefix(variable(stem)).removesuffix("_FILE")
            # FILE alone is that of the setting itself
            if value.strip() and name.startswith(variable(stem)) and word not in ("FILE", *spelt):
                words.append(word.lower().replace("_", "-"))
                spelt.add(word)
        for word in words:
            yield _variant(node, word)


def _variant(node: colander.SchemaNode, word: str) -> colander.SchemaNode:
    """The variant ``word`` of a setting: read as the setting is, if the word itself will do."""

    def validate(variant: colander.SchemaNode, value: Any) -> None:
        node.variant(variant, word)
        if node.validator is not None:
            node.validator(variant, value)

    variant = node.clone()
    variant.name, variant.validator = f"{node.name}.{word}", validate
    return variant


def misspelt_sections(ini: Mapping[str, Any], known: Collection[str]) -> list[SettingError]:
    """Keys whose section does not exist, but whose name is close to one that does.

    Other keys without a section of ours are left alone: they belong to Pyramid's add-ons, or are the INI's own.
    """
    errors = []
    for key in ini:
        head, _, _ = key.partition(".")
        if head not in known and difflib.get_close_matches(head, known, 1, 0.8):
            errors.append(_unknown(key, head, known))
    return errors


def _unknown(key: str, word: str, known: Collection[str]) -> SettingError:
    """A key that is no setting; ``word``: the part of it that is not known."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
    return SettingError(key, f"is not a setting. {hint}", known=False)


# -- types of settings --------------------------------------------------------------------------------------------


class Words(colander.SchemaType):
    """Words between white space or commas, as a tuple."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        return cstruct if cstruct is colander.null else tuple(cstruct.replace(",", " ").split())


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


class Switch(colander.SchemaType):
    """``true`` or ``false``."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if cstruct.lower() not in ("true", "false"):
            raise colander.Invalid(node, f"is {cstruct!r}; write true or false")
        return cstruct.lower() == "true"


def node(typ: colander.SchemaType, title: str, **more: Any) -> colander.SchemaNode:
    """A setting: its type, what it means (with units), and ``missing`` as the default; none means required.

    With ``secret=True`` it is never shown, and no placeholder is taken for it; if not all of it is the secret,
    ``secrets_in`` is a function that tells which words of the value are.

    With ``variant``, keys that go on after the setting's own, as ``name.word``, are settings of the same kind; it is a
    function of the node and the word, and raises ``colander.Invalid`` for a word that will not do.
    """
    return colander.SchemaNode(typ, title=title, **more)


class Sections(dict[str, Section]):
    """Every section that was read, by name, and what is wrong so far.

    ``valid``: the settings that are right by themselves, those of sections with errors too.
    ``names``: what a key may begin with, that is all sections that were to be read, and settings without one.
    ``schemas``: by what each section was read, by its name.
    """

    def __init__(self, ini: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.ini, self.environ = ini, environ
        self.names: set[str] = set()
        self.schemas: dict[str, type[colander.SchemaNode]] = {}
        self.errors: list[SettingError] = []
        self.valid: list[Setting] = []

    def add(self, name: str, schema: type[colander.SchemaNode]) -> Section:
        """Read one more section. Raises :class:`InvalidSettings`, and remembers its errors for all to be told."""
        self.schemas[name] = schema
        self.names |= {name} if name else {node.name for node in schema().children}
        try:
            self[name] = read(name, schema, self.ini, self.environ)
        except InvalidSettings as wrong:
            self.errors += wrong.errors
            self.valid += wrong.valid
            raise
        self.valid += self[name]
        return self[name]


def section(registry: Any, name: str) -> Section:
    """The section ``name`` of an application."""
    found: Section = registry.sections[name]
    return found
