"""Quiet hours: the part of each day, by the clocks of one time zone, in which no message is sent."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@dataclass(frozen=True)
class QuietHours:
    """From ``start`` until before ``end``, across midnight if ``end`` is the earlier, by the clocks of ``zone``.

    What the clocks show decides, so an hour that they go through twice is quiet twice or not at all, and one that
    they skip is never reached.
    """

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read ``21:00-08:00 Africa/Nairobi``. Raises ValueError with what is wrong."""
        form = re.fullmatch(r"(\S+?)\s*-\s*(\S+)(?:\s+(\S+))?", text)
        if form is None:
            raise ValueError("holds no two times of day with a hyphen between them")
        start, end = _time_of_day(form[1]), _time_of_day(form[2])
        if form[3] is None:
            raise ValueError("names no time zone")
        if start == end:
            raise ValueError(f"begins and ends at {form[1]}, which is either never or always")
        return cls(start, end, _zone(form[3]))

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.zone}"

    def resume(self, moment: datetime) -> datetime:
        """The first moment from ``moment`` on that is not quiet: ``moment`` itself if it is not. UTC.

        :param moment: with a time zone.
        """
        moment = moment.astimezone(UTC)
        while self._is_quiet(moment):
            # between the two, clocks and time go on together
            moment = min(self._end_by_the_clock(moment), self._change_of_the_clocks(moment))
        return moment

    def _is_quiet(self, moment: datetime) -> bool:
        shown = moment.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end

    def _end_by_the_clock(self, moment: datetime) -> datetime:
        """When the clocks will show ``end``, if nobody changes them."""
        shown = moment.astimezone(self.zone).time()
        left = datetime.combine(moment, self.end) - datetime.combine(moment, shown)
        return moment + left % DAY

    def _change_of_the_clocks(self, moment: datetime) -> datetime:
        """When the clocks are next changed; more than a day ahead if not within one.

        Found by bisection, since ``zoneinfo`` does not tell it: changes are at whole seconds, and never two within a
        day.
        """
        start = moment.replace(microsecond=0)
        offset = start.astimezone(self.zone).utcoffset()
        seconds = bisect_left(
            range(DAY // SECOND + 1),
            True,
            key=lambda ahead: (start + ahead * SECOND).astimezone(self.zone).utcoffset() != offset,
        )
        return start + seconds * SECOND


def _time_of_day(text: str) -> time:
    if not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError(f"{text!r} is no time of day from 00:00 to 23:59")
    return time.fromisoformat(text)


def _zone(name: str) -> ZoneInfo:
    known = available_timezones()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{name!r} is no time zone of the IANA database{hint}")
    return ZoneInfo(name)
