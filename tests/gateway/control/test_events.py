"""The timeline through the control socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from gateway.addresses import MacAddress
from gateway.control import protocol
from gateway.control.client import ControlClient
from gateway.control.events import EventMethods
from gateway.control.protocol import ControlError, JsonValue
from gateway.control.server import ControlServer
from gateway.session.model import ClientKey
from gateway.timeline import Timeline
from tests.gateway.control.conftest import RunOnLoop, serving

PHONE = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2a"))
LAPTOP = ClientKey("guest", MacAddress.parse("02:00:5e:10:00:2b"))


def resolve(name: str) -> ClientKey:
    """Only MACs are known here."""
    for key in (PHONE, LAPTOP):
        if str(key.mac) == name:
            return key
    raise ControlError(protocol.NOT_FOUND, f"no client {name}")


def words_of(events: list[JsonValue]) -> list[JsonValue]:
    """What the events say."""
    return [event["text"] for event in events if isinstance(event, dict)]


async def take_all(events: AsyncIterator[JsonValue], seen: list[JsonValue]) -> None:
    """Append events until the stream ends."""
    async for event in events:
        seen.append(event)


def test_events_are_listed_and_followed_without_a_gap(tmp_path: Path, run_on_loop: RunOnLoop) -> None:
    """A follower sees the past it asked for, then what happens; one client's follower sees only that client."""
    timeline = Timeline(100)
    offset: list[float | None] = [None]
    methods = EventMethods(timeline, resolve, lambda key: IPv4Address("10.41.0.20"), lambda: offset[0])
    path = tmp_path / "control.sock"

    async def conversation() -> None:
        async with serving(ControlServer(path, methods.methods(), socket_group=None)):
            client = await ControlClient.connect(path)
            timeline.add(1.0, PHONE, "lease", "one")
            timeline.add(2.0, LAPTOP, "lease", "two")
            answer = await client.call("events.list", {"limit": 1})
            assert answer == {
                "rows": [
                    {
                        "at_unix": None,
                        "at": 2.0,
                        "zone": "guest",
                        "mac": str(LAPTOP.mac),
                        "ip": "10.41.0.20",
                        "kind": "lease",
                        "text": "two",
                    }
                ]
            }
            everything = client.subscribe("events.follow")
            phone = client.subscribe("events.follow", {"client": str(PHONE.mac), "limit": 10})
            seen = [await anext(everything), await anext(everything)]
            phones = [await anext(phone)]
            assert timeline.followers == 2
            timeline.add(3.0, LAPTOP, "login", "three")
            offset[0] = 1_000_000.0
            timeline.add(4.0, PHONE, "login", "four")
            seen += [await anext(everything), await anext(everything)]
            phones.append(await anext(phone))
            assert words_of(seen) == ["one", "two", "three", "four"]
            assert words_of(phones) == ["one", "four"]
            assert isinstance(seen[-1], dict)
            assert seen[-1]["at_unix"] == 1_000_004.0
            for params, code in (
                ({"client": "nobody"}, protocol.NOT_FOUND),
                ({"limit": -1}, protocol.BAD_PARAMS),
                ({"limt": 1}, protocol.BAD_PARAMS),
            ):
                with pytest.raises(ControlError) as refusal:
                    await client.call("events.list", dict(params))
                assert refusal.value.code == code
            await client.close()
        assert timeline.followers == 0

    run_on_loop(conversation())


def test_a_follower_that_falls_behind_is_told(tmp_path: Path, run_on_loop: RunOnLoop) -> None:
    """More events at once than are kept for a follower end its stream with a reason, after those that were kept."""
    timeline = Timeline(10_000)
    methods = EventMethods(timeline, resolve, lambda key: None, lambda: None)
    path = tmp_path / "control.sock"

    async def conversation() -> None:
        async with serving(ControlServer(path, methods.methods(), socket_group=None)):
            client = await ControlClient.connect(path)
            events = client.subscribe("events.follow", {"limit": 1})
            timeline.add(0.0, PHONE, "lease", "first")
            await anext(events)
            for number in range(3000):
                timeline.add(1.0, PHONE, "flood", str(number))
            seen: list[JsonValue] = []
            with pytest.raises(ControlError) as refusal:
                await take_all(events, seen)
            assert refusal.value.code == protocol.TOO_SLOW
            assert words_of(seen) == [str(number) for number in range(len(seen))]
            assert 500 < len(seen) <= 1000
            await client.close()

    run_on_loop(conversation())
