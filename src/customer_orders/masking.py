"""What no log line and no kept reason holds: phone numbers, and whatever opens a door.

It is so for every logger of the process, whatever the INI configures (see logs.py): each record masks itself, its
traceback too, before a handler or a formatter sees it.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

HIDDEN = "{hidden}"
# Of a number this much is left: enough to tell two customers apart, too little to call one.
FIRST, LAST = 4, 3

# names under which secrets travel, in queries, forms, headers and JSON
NAMES = (
    "code|state|nonce|code_verifier|refresh|access|refresh_token|access_token|id_token|token|client_secret|"
    "secret|password|api_?key"
)


def _number(found: re.Match[str]) -> str:
    plus, digits = found[1], re.sub(r"\D", "", found[2])
    return f"{'+' if plus else ''}{digits[:FIRST]}...{digits[-LAST:]}"


Replacement = str | Callable[[re.Match[str]], str]

# In this order: a secret is gone before its digits could pass for a number.
RULES: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    # the address to which providers report; the secret is a part of the path
    (re.compile(r"(?i)((?<!/)/+api/+notifications/+reports/+[^/\s%]*/+)[^\s\"']+"), r"\1{secret}"),
    # no path of ours has a %: what hides the rest may hide that address
    (re.compile(r"(?i)((?<!/)/+api/[^\s\"'?%]*%)[^\s\"'?]+"), rf"\1{HIDDEN}"),
    # the sign-in's, with whatever else a browser sends
    (re.compile(r"(?i)\b((?:set-)?cookie['\"]?\s*[:=]\s*['\"]?)[^'\"\n]+"), rf"\1{HIDDEN}"),
    # RFC 9110, section 11.6.2, as a header, and as Python shows a mapping of headers
    (
        re.compile(
            r"(?i)\b((?:(?:proxy-)?authorization|(?:x-)?api-?key)['\"]?\s*[:=]\s*['\"]?)(?:[a-z]+ +)?[^\s'\",]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # RFC 3986, section 3.2.1; a password may have a / that nobody escaped, but digits before one are a port
    (re.compile(r"(://[^\s:/@\[]*:)(?![0-9]+[/?#])[^\s@\"'<>,]+@"), rf"\1{HIDDEN}@"),
    (re.compile(rf"(?i)(?<![\w-])((?:{NAMES})=)[^\s&;'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(['\"](?:{NAMES})['\"]\s*[:,]\s*b?)(['\"])(?:(?!\2).)+\2"), rf"\1\2{HIDDEN}\2"),
    # JWT (RFC 7519): its header is an object, so it begins with {"
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]*)+"), "{token}"),
    (re.compile(r"\b(co_[0-9]+_)[\w-]+"), rf"\1{HIDDEN}"),
    # a random word such as a refresh token, wherever it comes from: long, with digits, small letters and capitals
    (
        re.compile(r"(?<![\w-])(?=[\w-]*[0-9])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{40,}"),
        HIDDEN,
    ),
    # E.164, also with spaces between, and with its + escaped in a query
    (re.compile(r"(?i)(\+|%2B)([1-9](?:[ ().-]{0,2}[0-9]){6,14})(?![0-9])"), _number),
    # the same without its +, or as it is dialled in its country, also in groups
    (
        re.compile(
            r"(?<![\w.+-])()([1-9][0-9]{10,14}|0[1-9][0-9]{7,10}|0[1-9][0-9]{1,2}([ .-])[0-9]{3}\3[0-9]{3,4})(?![\w-])"
        ),
        _number,
    ),
)


# What would end a line, or change the terminal that shows it; spelt out as Python spells it.
CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(9), *range(10, 32), *range(127, 160), 0x2028, 0x2029)}


def masked(text: str) -> str:
    """The text without what it should not hold. A number becomes ``+2547...939``."""
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text


class MaskedRecord(logging.LogRecord):
    """A record whose message and traceback are masked, and whose message is one line, for whichever handler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None:
            # formatters take what is there already
            self.exc_text = masked(_formatted(*self.exc_info))
        if self.stack_info:
            self.stack_info = masked(self.stack_info)

    def getMessage(self) -> str:  # noqa: N802 - of the standard library
        """The message; one whose arguments do not fit it is shown as it is, masked, instead of raised about."""
        try:
            told = masked(super().getMessage())
        except (TypeError, ValueError, KeyError):
            told = masked(f"{self.msg!r} % {self.args!r}")
        return told if told.isprintable() else told.translate(CONTROLS)


def _formatted(kind: Any, error: Any, trace: Any) -> str:
    return "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What ends a process goes into its log; on stderr, masked, where none is configured."""
    if logging.root.handlers and not issubclass(kind, KeyboardInterrupt):
        logging.getLogger(__name__).critical("ended by an error", exc_info=(kind, error, trace))  # type: ignore[arg-type]
    else:
        sys.stderr.write(f"{masked(_formatted(kind, error, trace))}\n")


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit:
        _tell(ended.exc_type, ended.exc_value, ended.exc_traceback)


def mask_last_words() -> None:
    """Mask the errors that end this process, or one of its threads."""
    sys.excepthook = _tell
    # who else looks at them, as pytest does, goes on doing so
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _tell_of_thread
