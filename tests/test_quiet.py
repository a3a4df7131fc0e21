"""Quiet hours: how they are written, the first moment after them whatever the clocks do, and messages that wait."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import factories
from customer_orders.quiet import QuietHours
from customer_orders.sections import CORE
from customer_orders.settings import read, section

DAY = timedelta(days=1)
# Changes of half an hour, an hour, two; in summer and in winter; in Ramadan; a whole day left out (Apia, 2011).
ZONES = [
    "Africa/Nairobi",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/New_York",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "UTC",
]
minutes = st.times().map(lambda told: told.replace(second=0, microsecond=0))
quiet_hours = st.builds(QuietHours, minutes, minutes, st.sampled_from(ZONES).map(ZoneInfo)).filter(
    lambda hours: hours.start != hours.end
)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def is_quiet(hours, moment):
    """The definition, by minutes of the day."""
    shown = moment.astimezone(hours.zone)
    since = (shown.hour * 60 + shown.minute - hours.start.hour * 60 - hours.start.minute) % 1440
    return since < (hours.end.hour * 60 + hours.end.minute - hours.start.hour * 60 - hours.start.minute) % 1440


@cache
def changes(name, hours=1):
    """When the clocks of a zone are changed in 2011, to a number of hours."""
    step = timedelta(hours=hours)
    moments = [datetime(2011, 1, 1, tzinfo=UTC) + number * step for number in range(365 * 24 // hours)]
    offsets = [one.astimezone(ZoneInfo(name)).utcoffset() for one in moments]
    return [later for later, (before, after) in zip(moments[1:], pairwise(offsets), strict=True) if before != after]


@st.composite
def near_a_change(draw):
    """A moment within a day of a change of the clocks, and quiet hours that begin or end close to it."""
    name = draw(st.sampled_from([name for name in ZONES if changes(name)]))
    zone, change = ZoneInfo(name), draw(st.sampled_from(changes(name)))
    near = st.timedeltas(timedelta(hours=-3), timedelta(hours=3))
    start, end = ((change + draw(near)).astimezone(zone).time().replace(second=0, microsecond=0) for _ in range(2))
    if start == end:
        end = time((start.hour + 1) % 24, start.minute)
    return QuietHours(start, end, zone), change + draw(st.timedeltas(-DAY, DAY))


def properties(hours, moment):
    after = hours.resume(moment)
    assert after.tzinfo is UTC
    assert after >= moment
    assert not is_quiet(hours, after)
    assert hours.resume(after) == after
    # a day, and what the clocks may be put back by
    assert after - moment <= DAY + timedelta(hours=3)
    # nothing before it would do
    minute = timedelta(minutes=1)
    earlier = [moment + number * minute for number in range((after - moment) // minute)]
    if after > moment:
        earlier.append(after - timedelta(microseconds=1))
    assert all(is_quiet(hours, one) for one in earlier)


@given(quiet_hours, moments)
def test_the_first_moment_that_is_not_quiet(hours, moment):
    properties(hours, moment)


@given(near_a_change())
def test_the_first_moment_that_is_not_quiet_near_a_change_of_the_clocks(found):
    properties(*found)


def test_the_clocks_of_no_zone_are_changed_twice_within_a_day():
    """What the bisection relies on."""
    for name in available_timezones():
        assert all(later - one > DAY for one, later in pairwise(changes(name, hours=6))), name


NEW_YORK, LORD_HOWE, CASABLANCA, NAIROBI = (
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Nairobi",
)


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        # across midnight: 21:00 belongs to it, 08:00 no longer
        (f"21:00-08:00 {NAIROBI}", "2026-03-01T17:59:59.999999Z", "2026-03-01T17:59:59.999999Z"),
        (f"21:00-08:00 {NAIROBI}", "2026-03-01T18:00:00Z", "2026-03-02T05:00:00Z"),
        (f"21:00-08:00 {NAIROBI}", "2026-03-01T21:30:00.25Z", "2026-03-02T05:00:00Z"),
        (f"21:00-08:00 {NAIROBI}", "2026-03-02T05:00:00Z", "2026-03-02T05:00:00Z"),
        # until midnight, and from it
        (f"13:00-00:00 {NAIROBI}", "2026-03-01T12:00:00Z", "2026-03-01T21:00:00Z"),
        (f"00:00-06:00 {NAIROBI}", "2026-03-01T21:00:00Z", "2026-03-02T03:00:00Z"),
        # within a day
        (f"12:00-13:30 {NAIROBI}", "2026-03-01T09:15:00Z", "2026-03-01T10:30:00Z"),
        # 02:30 does not exist: the clocks go from 02:00 to 03:00, which is after it
        (f"21:00-02:30 {NEW_YORK}", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"),
        # nor does any of 02:10 to 02:50
        (f"02:10-02:50 {NEW_YORK}", "2026-03-08T07:00:00Z", "2026-03-08T07:00:00Z"),
        # a night that is an hour shorter, and one that is longer
        (f"21:00-08:00 {NEW_YORK}", "2026-03-08T04:00:00Z", "2026-03-08T12:00:00Z"),
        (f"21:00-08:00 {NEW_YORK}", "2026-11-01T04:00:00Z", "2026-11-01T13:00:00Z"),
        # 01:30 exists twice: the first ends it, then the clocks go back into it, and the second ends it again
        (f"21:00-01:30 {NEW_YORK}", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z"),
        (f"21:00-01:30 {NEW_YORK}", "2026-11-01T05:45:00Z", "2026-11-01T05:45:00Z"),
        (f"21:00-01:30 {NEW_YORK}", "2026-11-01T06:10:00Z", "2026-11-01T06:30:00Z"),
        # it begins in the hour that is had twice, and the clocks go back out of it
        (f"01:30-08:00 {NEW_YORK}", "2026-11-01T05:40:00Z", "2026-11-01T06:00:00Z"),
        # half an hour, forward at 02:00 and back at 02:00
        (f"22:00-02:15 {LORD_HOWE}", "2026-10-03T13:00:00Z", "2026-10-03T15:30:00Z"),
        (f"22:00-01:45 {LORD_HOWE}", "2026-04-04T14:55:00Z", "2026-04-04T14:55:00Z"),
        (f"22:00-01:45 {LORD_HOWE}", "2026-04-04T15:05:00Z", "2026-04-04T15:15:00Z"),
        # summer time that is not in Ramadan: back at 03:00 to 02:00 in February, forward at 02:00 in March
        (f"21:00-02:30 {CASABLANCA}", "2026-02-15T01:10:00Z", "2026-02-15T01:30:00Z"),
        (f"21:00-02:30 {CASABLANCA}", "2026-02-15T02:10:00Z", "2026-02-15T02:30:00Z"),
        (f"21:00-02:30 {CASABLANCA}", "2026-03-22T01:00:00Z", "2026-03-22T02:00:00Z"),
        # another spelling of the same moment
        (f"21:00-08:00 {NAIROBI}", "2026-03-01T21:00:00+03:00", "2026-03-02T05:00:00Z"),
    ],
)
def test_examples(text, moment, expected):
    after = QuietHours.parse(text).resume(datetime.fromisoformat(moment))
    assert after == datetime.fromisoformat(expected)
    properties(QuietHours.parse(text), datetime.fromisoformat(moment))


@given(quiet_hours)
@example(QuietHours(time(21), time(8), ZoneInfo(NAIROBI)))
def test_it_is_written_as_it_is_read(hours):
    assert QuietHours.parse(str(hours)) == hours


@pytest.mark.parametrize("text", ["21:00-08:00 Africa/Nairobi", "21:00 - 08:00  Africa/Nairobi"])
def test_spaces_do_not_matter(text):
    assert str(QuietHours.parse(text)) == "21:00-08:00 Africa/Nairobi"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("yes", "holds no two times of day"),
        ("21:00 08:00 Africa/Nairobi", "holds no two times of day"),
        ("21:00-08:00", "names no time zone"),
        ("21:00-08:00 Africa/Nairobi Africa/Lagos", "holds no two times of day"),
        ("9pm-8am Africa/Nairobi", "'9pm' is no time of day"),
        ("21:00-24:00 Africa/Nairobi", "'24:00' is no time of day from 00:00 to 23:59"),
        ("21-08 Africa/Nairobi", "'21' is no time of day"),
        ("9:00-08:00 Africa/Nairobi", "'9:00' is no time of day"),
        ("21:00:30-08:00 Africa/Nairobi", "'21:00:30' is no time of day"),
        ("21:00-08:60 Africa/Nairobi", "'08:60' is no time of day"),
        ("१२:३४-08:00 Africa/Nairobi", "'१२:३४' is no time of day"),
        ("08:00-08:00 Africa/Nairobi", "begins and ends at 08:00"),
        ("21:00-08:00 Africa/Nairobbi", "'Africa/Nairobbi' is no time zone .*; did you mean Africa/Nairobi"),
        ("21:00-08:00 africa/nairobi", "'africa/nairobi' is no time zone"),
        ("21:00-08:00 +03:00", r"'\+03:00' is no time zone of the IANA database$"),
        ("21:00-08:00 Africa", "'Africa' is no time zone"),
        ("21:00-08:00 ../../etc/passwd", "is no time zone"),
    ],
)
def test_what_is_wrong_is_told(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        QuietHours.parse(text)


# -- messages that wait -------------------------------------------------------------------------------------------


@pytest.fixture
def quiet_app(make_app, database_kind):
    """Makes an application with quiet hours from and to a number of hours from now."""

    def make(start, end):
        now = datetime.now(UTC)
        start, end = (now + timedelta(hours=hours) for hours in (start, end))
        return make_app(database_kind, **{"notifications.quiet_hours": f"{start:%H:%M}-{end:%H:%M} UTC"})

    return make


def test_what_is_queued_in_quiet_hours_is_sent_after_them(quiet_app, client_of):
    app = quiet_app(-2, 2)
    registry, client = app.registry, client_of(app)
    placed = factories.order(client)["notification"]
    end = section(registry, "notifications").quiet_hours.end
    assert placed["status"] == "queued"
    assert datetime.fromisoformat(placed["next_attempt_at"]).time() == end
    assert registry.outbox.due(10) == []
    registry.database.clock_offset = timedelta(hours=2)
    assert len(registry.outbox.due(10)) == 1


def test_what_is_queued_outside_quiet_hours_is_sent_at_once(quiet_app, client_of):
    app = quiet_app(2, 6)
    factories.order(client_of(app))
    assert len(app.registry.outbox.due(10)) == 1


@pytest.mark.parametrize("blank", ["", " "])
def test_blank_there_are_none(blank):
    assert read("notifications", CORE["notifications"], {"notifications.quiet_hours": blank}, {}).quiet_hours is None


def test_they_are_shown_as_they_are_written():
    shown = "21:00-08:00 Africa/Nairobi"
    settings = read("notifications", CORE["notifications"], {}, {"NOTIFICATIONS_QUIET_HOURS": shown})
    assert settings["quiet_hours"].display() == shown
