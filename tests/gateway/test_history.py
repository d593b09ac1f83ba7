"""The last day in one point a minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history import MINUTES, SERIES, History, HistoryDamaged, Totals

START = 1_800_000_000.0  # the beginning of a minute


def minute(history: History, number: float, *, upload: int = 0, logins: int = 0, online: int = 0) -> None:
    """Note a minute, with counters as they stand then."""
    totals = Totals(upload, upload * 10, logins, 0)
    history.add(START + number * 60 + 30, totals, online=online, memory_bytes=1000, load=0.25)


def values(history: History, name: str, now: float, span: int, step: int = 1) -> list[float | None]:
    """A series, in minutes."""
    return history.read([name], START + now * 60, span * 60, step * 60)[1][name]


def test_counters_become_what_was_carried_in_each_minute() -> None:
    """The first point has nothing to be held against; a restart of the counters is no traffic."""
    history = History()
    for number, upload in enumerate((500, 800, 800, 900)):
        minute(history, number, upload=upload, online=number)
    assert values(history, "upload_bytes", 4, 5) == [None, 0, 300, 0, 100]
    assert values(history, "download_bytes", 4, 2) == [0, 1000]
    assert values(history, "online", 4, 4) == [0, 1, 2, 3]
    assert values(history, "load", 4, 1) == [0.25]
    minute(history, 4, upload=0)
    assert values(history, "upload_bytes", 5, 1) == [0]


def test_minutes_without_a_point_say_so() -> None:
    """A gateway that was off for a while shows a gap, not zeros."""
    history = History()
    minute(history, 0)
    minute(history, 3)
    assert values(history, "online", 4, 4) == [0, None, None, 0]


def test_two_notes_in_one_minute_are_one_point() -> None:
    """As at a start and a stop: what was carried adds up, what is a state is the latest."""
    history = History()
    minute(history, 0, upload=0)
    minute(history, 1, upload=100, online=3)
    minute(history, 1.2, upload=150, online=5)
    assert values(history, "upload_bytes", 2, 1) == [150]
    assert values(history, "online", 2, 1) == [5]


def test_steps_add_up_or_average() -> None:
    """Octets and logins are sums, clients are a mean; steps begin at round times."""
    history = History()
    for number in range(10):
        minute(history, number, upload=number * 100, online=number)
    first, series = history.read(["upload_bytes", "online"], START + 600, 600, 300)
    assert first == START
    assert series == {"upload_bytes": [400, 500], "online": [2, 7]}
    assert history.sums(START + 599, 300) == {"upload_bytes": 500, "download_bytes": 5000, "logins": 0, "failures": 0}


def test_it_forgets_after_a_day() -> None:
    """And stays as large as it is."""
    history = History()
    for number in range(MINUTES + 100):
        minute(history, number, online=number)
    online = values(history, "online", MINUTES + 100, MINUTES)
    assert (online[0], online[-1], len(online)) == (100, MINUTES + 99, MINUTES)


@pytest.mark.parametrize("jump", [-30, 2 * MINUTES, -10 * MINUTES])
def test_a_clock_that_jumps_begins_anew(jump: int) -> None:
    """Points of a future, or of another day, are no points."""
    history = History()
    for number in range(40):
        minute(history, number, online=9)
    minute(history, 40 + jump, online=1)
    online = values(history, "online", 41 + jump, 30)
    assert online == [None] * 29 + [1]


def test_it_survives_a_restart() -> None:
    """A few kilobytes bring all of it back; the gap stays a gap."""
    history = History()
    for number in range(300):
        minute(history, number, upload=number * 12345, online=number % 7)
    data = history.dump()
    assert len(data) < 6000
    other = History()
    other.load(data)
    assert other.dump() == data
    minute(other, 302, online=2)
    assert values(other, "online", 303, 5) == [298 % 7, 299 % 7, None, None, 2]
    History().load(History().dump())


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    """Without changing what is there."""
    history = History()
    minute(history, 0, online=3)
    with pytest.raises(HistoryDamaged):
        history.load(data)
    assert values(history, "online", 1, 1) == [3]


@given(st.integers(0, 5000), st.integers(0, 255))
def test_a_damaged_file_is_refused(position: int, octet: int) -> None:
    """Any octet that changed is noticed."""
    history = History()
    minute(history, 0, online=3)
    data = bytearray(history.dump())
    position %= len(data)
    if data[position] == octet:
        return
    data[position] = octet
    with pytest.raises(HistoryDamaged):
        History().load(bytes(data))


def test_every_series_is_described() -> None:
    """And asking for another one is an error of the caller."""
    history = History()
    _, series = history.read(SERIES, START, 3600, 60)
    assert series.keys() == SERIES.keys()
    with pytest.raises(KeyError):
        history.read(["moon"], START, 3600, 60)
