"""Strict colander types for what comes in and goes out over HTTP.

colander's own types are lenient (``5.9`` and ``true`` are integers, unknown keys pass); these say no, in words a
caller can act on. JSON null is refused unless the node has ``nullable=True``. Each type knows its own Swagger.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import colander
import phonenumbers

from customer_orders import languages
from customer_orders.errors import FieldError, Invalid
from customer_orders.money import CURRENCIES

# What PostgreSQL's bigint and SQLite's INTEGER both hold.
MAX_ID = 2**63 - 1

OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF"}

# The same in a pattern, for the document. It need not speak of lone surrogates, which UTF-8 cannot hold.
CONTROLS = r"\u0000-\u001f\u007f-\u009f"
REFUSED = rf"{CONTROLS}\u202a-\u202e"
SPACES = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
ANY_TEXT = f"^[^{REFUSED}]*$"
NOT_BLANK = f"^[^{REFUSED}]*[^{REFUSED}{SPACES}][^{REFUSED}]*$"


class Field(colander.SchemaType):
    """Base of the types here: null handling, and one error for one value."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        """The value in its canonical form. Raises ``colander.Invalid``."""
        if cstruct is colander.null:
            return cstruct
        if cstruct is None:
            if getattr(node, "nullable", False):
                return None
            raise colander.Invalid(node, "Must not be null.")
        try:
            return self.parse(cstruct)
        except ValueError as error:
            raise colander.Invalid(node, str(error)) from None

    def parse(self, value: Any) -> Any:
        """The value in its canonical form. Raises ValueError with a sentence for the caller."""
        raise NotImplementedError

    def swagger(self) -> dict[str, Any]:
        """The Swagger 2.0 schema of what is accepted."""
        raise NotImplementedError


def _text(value: Any, minimum: int, maximum: int) -> str:
    if not isinstance(value, str):
        raise ValueError("Must be a string.")
    if not minimum <= len(value) <= maximum:
        raise ValueError(f"Must be {minimum} to {maximum} characters long.")
    # Cc: NUL and the other control characters; Cs: lone surrogates. One database or the other refuses them.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("Must not contain control characters.")
    # They make text read as something else than it is (Unicode Standard Annex 9, section 2); isolates and marks do not.
    if any(unicodedata.bidirectional(character) in OVERRIDES for character in value):
        raise ValueError("Must not contain characters that embed or override the direction of text.")
    if minimum and not value.strip():
        raise ValueError("Must not be blank.")
    return value


class Text(Field):
    """A string of ``minimum`` to ``maximum`` characters (code points), no control characters, not blank."""

    def __init__(self, minimum: int = 1, maximum: int = 255) -> None:
        self.minimum, self.maximum = minimum, maximum

    def parse(self, value: Any) -> str:
        return _text(value, self.minimum, self.maximum)

    def swagger(self) -> dict[str, Any]:
        pattern = NOT_BLANK if self.minimum else ANY_TEXT
        return {"type": "string", "minLength": self.minimum, "maxLength": self.maximum, "pattern": pattern}


class Opaque(Text):
    """A token or cursor: printable ASCII."""

    def parse(self, value: Any) -> str:
        text = super().parse(value)
        if not re.fullmatch("[!-~]+", text):
            raise ValueError("Must be printable ASCII without spaces.")
        return text

    def swagger(self) -> dict[str, Any]:
        return {**super().swagger(), "pattern": "^[!-~]+$"}


class Word(Field):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def parse(self, value: Any) -> str:
        if value not in self.words:
            raise ValueError(f"Must be one of {', '.join(self.words)}.")
        return str(value)

    def swagger(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


class Words(Field):
    """An array of some of a few words, each once."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def parse(self, value: Any) -> list[str]:
        known = ", ".join(self.words)
        if not isinstance(value, list) or not value or any(item not in self.words for item in value):
            raise ValueError(f"Must be an array of one or more of {known}.")
        if len(set(value)) < len(value):
            raise ValueError("Must name nothing twice.")
        return [str(item) for item in value]

    def swagger(self) -> dict[str, Any]:
        items = {"type": "string", "enum": list(self.words)}
        return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}


class Integer(Field):
    """A JSON integer, or a string of ASCII digits, from ``minimum`` to ``maximum``."""

    def __init__(self, minimum: int = 0, maximum: int = MAX_ID) -> None:
        self.minimum, self.maximum = minimum, maximum

    def parse(self, value: Any) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,30}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not self.minimum <= value <= self.maximum:
            raise ValueError(f"Must be an integer from {self.minimum} to {self.maximum}.")
        return value

    def swagger(self) -> dict[str, Any]:
        return {"type": "integer", "format": "int64", "minimum": self.minimum, "maximum": self.maximum}


class Expandable(Field):
    """An id, or the thing itself. Outgoing only; Swagger 2.0 has no word for either."""

    def swagger(self) -> dict[str, Any]:
        return {}


class Flag(Field):
    """JSON true or false."""

    def parse(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("Must be true or false.")
        return value

    def swagger(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Switch(Field):
    """``true`` or ``false`` in a query string."""

    def parse(self, value: Any) -> bool:
        if value not in ("true", "false"):
            raise ValueError("Must be true or false.")
        return bool(value == "true")

    def swagger(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Phone(Field):
    """A phone number in any way people write it; canonical form E.164.

    Read with the deployment's default region, which schemas bind as ``region``. Checked for a possible length,
    not for assigned ranges, which change faster than any table of them.
    """

    written = re.compile(r"\s*(?:tel:)?([\s(]*[+\uff0b]?[\d\s().\-/\u2010-\u2015]+)")
    wrong = "Must be a phone number with all its digits, such as +254713812939 or 0713 812 939."

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if isinstance(cstruct, str):
            region = (node.bindings or {}).get("region")
            try:
                return self.e164(cstruct, region)
            except ValueError as error:
                raise colander.Invalid(node, str(error)) from None
        return super().deserialize(node, cstruct)

    def parse(self, value: Any) -> str:
        raise ValueError("Must be a string.")

    def e164(self, value: str, region: str | None) -> str:
        """``value`` in E.164. Raises ValueError."""
        # address books paste marks that nobody sees
        visible = "".join(character for character in value if unicodedata.category(character) != "Cf")
        written = self.written.fullmatch(_text(visible, 1, 64))
        if written is None:
            raise ValueError(self.wrong)
        dialled = written[1].strip()
        # 00 is how much of the world dials +; the region's own way of dialling abroad goes first
        for spelling in (dialled, f"+{dialled[2:]}" if dialled.startswith("00") else dialled):
            try:
                number = phonenumbers.parse(spelling, region)
            except phonenumbers.NumberParseException:
                continue
            # a number possible only within its town cannot be reached by a message
            if phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE:
                return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
        raise ValueError(self.wrong)

    def swagger(self) -> dict[str, Any]:
        # what every number that is accepted is like; whether its digits are enough no pattern can tell
        pattern = f"^[^A-Za-z{CONTROLS}]*(tel:)?[^A-Za-z{CONTROLS}]+$"
        length = {"minLength": 1, "maxLength": 64}
        return {"type": "string", "format": "phone", **length, "pattern": pattern, "x-example": "+254713812939"}


class PhoneFilter(Phone):
    """A phone number in a query string, where a + that was not escaped arrives as a space."""

    def e164(self, value: str, region: str | None) -> str:
        if value.startswith(" "):
            with suppress(ValueError):
                return super().e164(f"+{value[1:]}", region)
        return super().e164(value, region)


class Currency(Field):
    """An ISO 4217 code."""

    def parse(self, value: Any) -> str:
        if not isinstance(value, str) or value not in CURRENCIES:
            raise ValueError("Must be an ISO 4217 currency code in capitals, such as KES.")
        return value

    def swagger(self) -> dict[str, Any]:
        return {"type": "string", "enum": sorted(CURRENCIES)}


class Language(Field):
    """A BCP 47 language tag, such as ``sw`` or ``en-KE``."""

    def parse(self, value: Any) -> str:
        if not isinstance(value, str) or not languages.is_tag(value):
            raise ValueError("Must be a language tag, such as sw or en-KE.")
        return value

    def swagger(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": languages.LONGEST, "pattern": f"^{languages.TAG.pattern}$"}


class Metadata(Field):
    """An object of strings: at most 50 keys of 1 to 40 characters, values of at most 500.

    Null as a value is let through where ``removable``: in a PATCH it removes the key.
    """

    keys, key_length, value_length = 50, 40, 500

    def __init__(self, *, removable: bool = False) -> None:
        self.removable = removable

    def parse(self, value: Any) -> dict[str, str | None]:
        if not isinstance(value, dict):
            raise ValueError("Must be an object of strings.")
        if len(value) > self.keys:
            raise ValueError(f"Must have at most {self.keys} keys.")
        for key, item in value.items():
            try:
                _text(key, 1, self.key_length)
            except ValueError as error:
                raise ValueError(f"Key {key[:40]!r}: {error}") from None
            if item is None and self.removable:
                continue
            try:
                _text(item, 0, self.value_length)
            except ValueError as error:
                raise ValueError(f"Value of {key!r}: {error}") from None
        return value

    @classmethod
    def changed(cls, old: Mapping[str, str], changes: Mapping[str, str | None] | None) -> dict[str, str]:
        """Metadata after ``changes``: a null value removes its key (RFC 7396), null as a whole removes them all.

        Raises :class:`customer_orders.errors.Invalid` if the keys get too many.
        """
        if changes is None:
            return {}
        kept = {key: value for key, value in {**old, **changes}.items() if value is not None}
        if len(kept) > cls.keys:
            raise Invalid([FieldError("metadata", f"Would have {len(kept)} keys; {cls.keys} is the most.")])
        return kept

    def swagger(self) -> dict[str, Any]:
        text: dict[str, Any] = Text(0, self.value_length).swagger()
        if self.removable:
            text["x-nullable"] = True
        return {
            "type": "object",
            "maxProperties": self.keys,
            "additionalProperties": text,
            # JSON Schema's propertyNames, which Swagger 2.0 does not know
            "x-propertyNames": Text(1, self.key_length).swagger(),
        }


class MetadataFilter(Metadata):
    """What ``metadata.key=value`` in a query string comes to: an object, its keys without the prefix."""

    prefix = "metadata."

    def swagger(self) -> dict[str, Any]:
        return Text(0, self.value_length).swagger()


class Timestamp(Field):
    """RFC 3339; in UTC with ``Z`` on the way out."""

    written = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)

    def parse(self, value: Any) -> datetime:
        # a + that was not escaped in a query string arrives as a space
        spelling = value.replace(" ", "+").upper() if isinstance(value, str) else ""
        try:
            if not self.written.fullmatch(spelling):
                raise ValueError
            return datetime.fromisoformat(spelling).astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError("Must be a time as in RFC 3339, such as 2026-01-31T08:00:00Z.") from None

    def swagger(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class Body(colander.MappingSchema):
    """Base of request bodies: an object whose every unknown field is an error.

    ``read_only`` names fields that a client may send back as it read them; they are ignored. ``example`` is what the
    dashboard offers to send: something that works as it stands. ``optional``: no body at all is one without fields.
    """

    read_only: tuple[str, ...] = ()
    optional = False
    example: dict[str, Any] = {}


def node(typ: Field, description: str, **more: Any) -> colander.SchemaNode:
    """A field: its type and what it means. ``missing=drop`` makes it optional, ``nullable=True`` lets null in."""
    return colander.SchemaNode(typ, description=description, **more)


def id_of(text: str) -> int | None:
    """The id that a text is: ASCII digits, 1 to 2^63-1; None if it is none."""
    return int(text) if re.fullmatch("[1-9][0-9]{0,18}", text) and int(text) <= MAX_ID else None


def partial(schema: type[Body]) -> type[Body]:
    """The PATCH twin of a body: the same fields, each of them optional, null in metadata removing a key."""

    class Partial(schema):  # type: ignore[valid-type,misc]
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            # the children are the class's, so the full body's too: change copies
            self.children: list[Any] = [child.clone() for child in self.children]
            for child in self.children:
                child.missing = colander.drop
                if isinstance(child.typ, Metadata):
                    child.typ = Metadata(removable=True)

    Partial.__name__ = f"{schema.__name__}Patch"
    return Partial
