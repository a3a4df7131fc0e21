"""Why an INI cannot be read: where and of which kind, never what is written there, which may be half of a secret."""

from __future__ import annotations

from configparser import Error, InterpolationError, MissingSectionHeaderError, ParsingError
from importlib.metadata import PackageNotFoundError

# What reading one raises, when the file is there.
UNREADABLE = (Error, LookupError, PackageNotFoundError, UnicodeDecodeError)


def why_unreadable(error: Exception) -> str:
    """The reason that an error among ``UNREADABLE`` gives, in a sentence without a full stop."""
    if isinstance(error, MissingSectionHeaderError):
        return f"line {error.lineno} stands before the first section, such as [app:main]"
    if isinstance(error, ParsingError):
        lines = ", ".join(str(number) for number, _ in error.errors)
        return f"neither a section nor name = value: line {lines}"
    if isinstance(error, InterpolationError):
        return f"{error.option} in [{error.section}] has a % by itself: write %%"
    return str(error)
