"""The ring of client events: order, bounds, one client's view."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.control.protocol import ControlError
from gateway.session.model import ClientKey
from gateway.timeline import FOLLOWER_EVENTS, LONGEST_TEXT_BYTES, MEAN_TEXT_BYTES, Timeline, TimelineEvent


def key_of(number: int) -> ClientKey:
    """A client."""
    return ClientKey("guest", MacAddress(number.to_bytes(6, "big")))


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5), st.text(max_size=30)), max_size=120),
    st.integers(0, 30),
)
def test_the_ring_is_the_tail_of_what_happened(capacity: int, story: list[tuple[int, str]], limit: int) -> None:
    """What is held is the newest part of all events in order, and each client's view is its part of that."""
    ring = Timeline(capacity)
    everything = []
    for at, (client, words) in enumerate(story):
        ring.add(float(at), key_of(client), "kind", words)
        shown = words.encode("utf-8", "backslashreplace").decode()
        everything.append(TimelineEvent(float(at), key_of(client), "kind", shown))
    held = ring.newest(len(story))
    assert held == everything[len(everything) - len(held) :]
    assert len(ring) == len(held) <= capacity
    assert ring.total == len(story)
    assert ring.forgotten == len(story) - len(held)
    assert ring.newest(limit) == (held[-limit:] if limit else [])
    for client in range(6):
        own = [event for event in held if event.key == key_of(client)]
        assert ring.of_client(key_of(client), len(story)) == own
        assert ring.of_client(key_of(client), limit) == (own[-limit:] if limit else [])


def test_long_words_push_out_earlier_ones() -> None:
    """The octets of all words are bounded too: a flood of long ones shortens the memory instead of growing it."""
    ring = Timeline(100)
    for number in range(1000):
        ring.add(float(number), key_of(number), "kind", "é" * 10_000)
    events = ring.newest(1000)
    assert sum(len(event.text.encode()) for event in events) <= 100 * MEAN_TEXT_BYTES
    assert len(events) >= 100 * MEAN_TEXT_BYTES // LONGEST_TEXT_BYTES
    assert all(len(event.text.encode()) <= LONGEST_TEXT_BYTES and event.text.endswith("é…") for event in events)


def test_a_follower_has_its_client_only_and_is_told_when_it_falls_behind() -> None:
    """Events wait for a follower up to a bound; then it gets those that were kept, and a reason. Others go on."""

    async def conversation() -> None:
        ring = Timeline(10)
        with ring.follower(key_of(1)) as one, ring.follower(None) as all_of_them:
            ring.add(1.0, key_of(2), "lease", "other")
            ring.add(2.0, key_of(1), "lease", "own")
            assert (await anext(one)).text == "own"
            assert [(await anext(all_of_them)).text for _ in range(2)] == ["other", "own"]
            for number in range(FOLLOWER_EVENTS + 5):
                ring.add(3.0, key_of(1), "flood", str(number))
                await anext(all_of_them)
            texts = [(await anext(one)).text for _ in range(FOLLOWER_EVENTS)]
            assert texts == [str(number) for number in range(FOLLOWER_EVENTS)]
            with pytest.raises(ControlError, match="the stream is ended"):
                await anext(one)
            assert ring.followers == 2
        assert ring.followers == 0

    asyncio.run(conversation())


def test_half_a_surrogate_pair_does_not_stop_the_story() -> None:
    """A name that is not Unicode is noted with its code shown."""
    ring = Timeline(4)
    ring.add(0.0, key_of(1), "lease", "got 10.0.0.1 as \ud800")
    assert ring.newest(1)[0].text == "got 10.0.0.1 as \\ud800"


def test_twenty_thousand_events_fit_four_megabytes() -> None:
    """The default ring, filled three times over with ordinary words of a thousand clients, stays under 4 MB."""
    tracemalloc.start()
    try:
        ring = Timeline(20_000)
        for number in range(60_000):
            words = f"let through by RADIUS server 192.0.2.{number % 250}, 3600 s left, event {number}"
            ring.add(float(number), key_of(number % 1000), "gate_opened", words)
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ring) == 20_000
    assert size_bytes < 4_000_000


def test_clients_without_end_do_not_grow_the_ring() -> None:
    """A client per event, as an attacker with rotating addresses makes them, stays bounded as well."""
    tracemalloc.start()
    try:
        ring = Timeline(5_000)
        for number in range(5_000):
            ring.add(float(number), key_of(number), "lease", "got an address")
        full_bytes, _ = tracemalloc.get_traced_memory()
        for number in range(5_000, 20_000):
            ring.add(float(number), key_of(number), "lease", "got an address")
        later_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert later_bytes < full_bytes * 1.05
    assert ring.of_client(key_of(19_999), 5)[0].text == "got an address"
    assert ring.of_client(key_of(3), 5) == []
