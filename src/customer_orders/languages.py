"""Language tags (BCP 47): their form (RFC 5646), and what serves where the one wanted is not there (RFC 4647)."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Characters of the longest tag that everybody has to take: RFC 5646, section 4.4.1.
LONGEST = 35
# The shape of tags with an ISO 639 language: whether the subtags are registered, no pattern can tell.
TAG = re.compile("[a-zA-Z]{2,3}(-[a-zA-Z0-9]{1,8})*", re.ASCII)


def is_tag(written: str) -> bool:
    """Whether this is a language tag, such as ``sw`` or ``en-KE``."""
    return len(written) <= LONGEST and TAG.fullmatch(written) is not None


def canonical(tag: str) -> str:
    """A tag in the capitals of RFC 5646, section 2.1.1: ``sw-ke`` is ``sw-KE``."""
    first, *others = tag.lower().split("-")
    spelt = [first]
    for subtag in others:
        case = {2: str.upper, 4: str.title}.get(len(subtag), str) if len(spelt[-1]) > 1 else str
        spelt.append(case(subtag))
    return "-".join(spelt)


def fallbacks(tag: str) -> Iterator[str]:
    """The tag, then each that says less, as they are looked up (RFC 4647, section 3.4): ``sw-KE``, then ``sw``."""
    subtags = tag.split("-")
    while subtags:
        yield "-".join(subtags)
        subtags.pop()
        if subtags and len(subtags[-1]) == 1:
            subtags.pop()
