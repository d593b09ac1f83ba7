"""The helper in machine code changes the time of an analysis and nothing else."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.analysis import engine, native
from gateway.analysis.flows import RESENT, Direction
from gateway.analysis.settings import Settings
from rootfs.native import build
from tests.bench import analysis as bench
from tests.fuzz.analysis import damaged
from tests.gateway.analysis import talks
from tests.gateway.analysis.outcomes import InPython, outcome
from tests.gateway.analysis.packets import ACK, PSH, START_NS, SYN, Trace, tcp
from tests.gateway.analysis.test_properties import lossy, mixed

pytestmark = pytest.mark.usefixtures("native_helper")

_TIGHT = Settings().with_overrides({"tables.half_open": "64", "tables.flows": "64", "tables.fragment_groups": "16"})


def traces() -> Iterator[bytes]:
    """Captures in which the usual changes into the unusual and back."""
    trace = mixed()
    for begin, isn in ((10.0, 1), (20.0, 0xFFFFFF00), (30.0, 0x7FFFFF00)):
        lossy(trace, begin, isn)
    for order, nanoseconds in (("<", False), (">", False), ("<", True)):
        yield trace.pcap(order, nanoseconds)
    yield trace.pcap(snap=60)
    yield trace.pcapng()
    backwards = Trace(list(reversed(trace.packets)))
    yield backwards.pcap()


def windows() -> bytes:
    """A receiver whose window shrinks to nothing and opens again, and one that acknowledges late and in pieces."""
    generator = random.Random(5)
    trace = Trace()
    client, server = ("10.0.0.2", 50_000), ("198.51.100.9", 80)
    trace.add(0.0, tcp(*client, *server, SYN, 99, options=bytes.fromhex("01030302")))
    trace.add(0.02, tcp(*server, *client, SYN | ACK, 899, 100, options=bytes.fromhex("01030300")))
    trace.add(0.021, tcp(*client, *server, ACK, 100, 900, win=2000))
    sent = acked = 900
    t = 0.03
    for _ in range(3000):
        t += generator.choice((0.0001, 0.0004, 0.002, 0.3 if generator.random() < 0.01 else 0.0001))
        if generator.random() < 0.6 and sent - acked < 8000:
            size = generator.choice((1, 7, 500, 1400, 1400))
            trace.add(t, tcp(*server, *client, PSH | ACK, sent, 100, bytes(size), ip_id=trace.next_id()))
            sent += size
        else:
            acked += generator.randrange(sent - acked + 1)
            win = generator.choice((2000, 2000, 1999, 500, 0)) if generator.random() < 0.3 else 2000
            trace.add(t, tcp(*client, *server, ACK, 100, acked, win=win, ip_id=trace.next_id()))
    return trace.pcap()


def long_talk() -> bytes:
    """More round trips than are kept, and then more unacknowledged segments than are kept, of a receiver with room."""
    trace = Trace()
    client, server = ("10.0.0.2", 50_000), ("198.51.100.9", 80)
    trace.add(0.0, tcp(*client, *server, SYN, 99, options=bytes.fromhex("0103030a")))
    trace.add(0.02, tcp(*server, *client, SYN | ACK, 899, 100, options=bytes.fromhex("01030300")))
    trace.add(0.021, tcp(*client, *server, ACK, 100, 900))
    for number in range(6700):
        t, seq = 0.03 + number * 0.001, 900 + number * 100
        trace.add(t, tcp(*server, *client, PSH | ACK, seq, 100, bytes(100), ip_id=trace.next_id()))
        if number < 6000:
            trip = number * 7 % 600 / 1_000_000
            trace.add(t + trip, tcp(*client, *server, ACK, 100, seq + 100, ip_id=trace.next_id()))
    trace.add(8.0, tcp(*client, *server, ACK, 100, 900 + 6500 * 100, ip_id=trace.next_id()))
    return trace.pcap()


def test_reports_of_all_captures_are_the_same(captures: Path, plain: InPython) -> None:
    """Every shared capture gives the same report with the helper and without."""
    paths = sorted(path for path in captures.iterdir() if "pcap" in path.name)
    assert len(paths) >= 55
    for path in paths:
        data = path.read_bytes()
        assert outcome(data, Settings()) == plain.outcome(data, Settings()), path.name


@pytest.mark.parametrize("bounds", [Settings(), _TIGHT], ids=["usual", "tight tables"])
def test_reports_of_made_captures_are_the_same(bounds: Settings, tmp_path: Path, plain: InPython) -> None:
    """Loss, wrapped numbers, small windows, cut packets, both byte orders and clocks that run backwards."""
    bench.flood(tmp_path / "flood.pcap", 1000)
    bench.big(tmp_path / "big.pcap", 5_000)
    for data in (*traces(), windows(), long_talk(), *(path.read_bytes() for path in sorted(tmp_path.iterdir()))):
        expected = plain.outcome(data, bounds)
        for block_bytes in (None, 499):
            assert outcome(data, bounds, block_bytes) == expected


def test_a_clock_that_jumps_to_and_fro_gives_the_same(plain: InPython) -> None:
    """Silences of a century each, more of them than 64 bits hold nanoseconds for."""

    class AsTheyCame(Trace):
        def ordered(self) -> list[tuple[int, bytes]]:
            return self.packets

    trace = AsTheyCame()
    for number in range(40):
        up = tcp("10.0.0.2", 50_000, "198.51.100.9", 80, PSH | ACK, 100 + number, 900 + number, b"a", ip_id=number)
        down = tcp("198.51.100.9", 80, "10.0.0.2", 50_000, PSH | ACK, 900 + number, 101 + number, b"b", ip_id=number)
        t = (1 << 62) - (40 - number) * 2_000_000_000 if number & 1 else number
        trace.packets += [(t, packet) for packet in (up, down)]
    data = trace.pcapng()
    expected = plain.outcome(data, Settings())
    assert expected["capture"]["packets"] == 80
    assert outcome(data, Settings()) == expected


def test_damaged_captures_give_the_same(captures: Path, plain: InPython) -> None:
    """Whatever is flipped, cut out or doubled: the same report or the same refusal."""
    generator = random.Random(11)
    seeds = [path.read_bytes() for path in sorted(captures.iterdir()) if path.stat().st_size < 20_000]
    seeds += [windows()[:40_000], mixed().pcap()]
    for _ in range(120):
        data = damaged(generator, generator.choice(seeds))
        bounds = generator.choice((_TIGHT, Settings()))
        assert outcome(data, bounds) == plain.outcome(data, bounds)


@given(script=talks.steps, isn=st.sampled_from((1, 1 << 20, 0x7FFFF000, 0xFFFFFF00)), stamps=st.booleans())
@settings(max_examples=300, deadline=None)
def test_conversations_give_the_same(plain: InPython, script: list[talks.Step], isn: int, stamps: bool) -> None:
    """Whatever two sides and a network do, in IPv4, IPv6 and a VLAN."""
    data = talks.talk(script, isn, stamps)
    assert outcome(data, Settings()) == plain.outcome(data, Settings())


@pytest.mark.parametrize("seed", range(6))
def test_long_conversations_give_the_same(seed: int, plain: InPython) -> None:
    """Long ones with little trouble, so that flows go from the usual to the unusual and back many times."""
    generator = random.Random(seed)
    for _ in range(12):
        script = talks.random_steps(generator, generator.choice((300, 1500)))
        data = talks.talk(script, generator.choice((1, 0x7FFF0000, 0xFFFF0000)), generator.random() < 0.5)
        assert outcome(data, Settings()) == plain.outcome(data, Settings())
        assert outcome(data, _TIGHT, 499) == plain.outcome(data, _TIGHT)


def test_usual_packets_do_not_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plain download nearly everything is taken by the helper: else it would be dead weight."""
    seen = 0
    unusual = native.unusual

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal seen
        for item in unusual(*arguments):
            seen += 1
            yield item

    monkeypatch.setattr("gateway.analysis.batch.unusual", counted)
    trace = Trace()
    trace.session(0, "10.0.0.2", 50_000, "198.51.100.1", 443, up=b"\x17\x03\x03" + bytes(20), down=bytes(1_000_000))
    report = trace.report()
    assert report["capture"]["packets"] > 1000
    assert seen < 20


def test_records_are_a_list_of_tuples() -> None:
    """What the walk has found reads as the list that Python would have made."""
    records = native.new_records()
    assert not isinstance(records, list)
    rows = [(0, 60, 60, START_NS), (76, 136, 1500, START_NS + 1)]
    for row in rows:
        records.append(row)
    assert list(records) == rows
    assert (len(records), records[-1], bool(native.new_records())) == (2, rows[-1], False)
    with pytest.raises(IndexError):
        records[2]
    for wrong in ((1, 2, 3), (1, 2, 3, "4"), (1, 2, 3, 1 << 64), 5):
        with pytest.raises((TypeError, OverflowError)):
            records.append(wrong)  # type: ignore[arg-type]


def test_a_helper_for_other_tables_is_not_used() -> None:
    """What was built for an older or a newer analysis is as good as absent."""
    helper = native._helper
    assert helper is not None
    assert native.suitable(helper) is helper
    assert native.suitable(SimpleNamespace(INTERFACE=helper.INTERFACE + 1)) is None
    assert native.suitable(SimpleNamespace()) is None


def test_a_direction_looks_the_same() -> None:
    """The helper's type has the fields of the class in Python, with the values that they begin with."""
    code = "from gateway.analysis.flows import Direction as D; d = D(None, 5, 6, 7, 8); "
    code += "print({name: list(v) if (v := getattr(d, name)).__class__ is list else v for name in D.__slots__})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[3],
        env={"POSTERN_PURE_PYTHON": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    fields = ast.literal_eval(done.stdout)
    direction = Direction(None, 5, 6, 7, 8)
    assert {name for name in dir(direction) if name[:2] != "__"} == set(fields)
    assert list(direction.out) == fields.pop("out")
    assert {name: getattr(direction, name) for name in fields} == fields
    for name in fields.keys() - {"rev", "old", "signature", "known"}:
        setattr(direction, name, 1 << 40)
        assert getattr(direction, name) == 1 << 40


def test_a_direction_refuses_what_it_cannot_hold() -> None:
    """A wrong value is an exception at once, never a number that means something else."""
    direction = Direction(None, 0, 0, 0, 0)
    for name, value in (
        *(("rev", 5), ("old", (1, 2)), ("old", [1] * 7), ("signature", 5), ("signature", ("x",) * 6)),
        *(("nseq", 1 << 63), ("nseq", "5"), ("bytes", None), ("bytes", 1 << 64), ("known", 2), ("out", [])),
    ):
        with pytest.raises((TypeError, OverflowError, AttributeError)):
            setattr(direction, name, value)
    direction.rev = direction.old = direction.signature = direction.nseq = None
    with pytest.raises(TypeError):
        Direction(None, "0", 0, 0, 0)  # type: ignore[arg-type]


def test_segments_are_a_list_of_tuples() -> None:
    """What the rules do with the list of unacknowledged segments gives the same with the helper's."""
    generator = random.Random(3)
    ours, theirs = native._load().Segments(), list[Any]()
    for _ in range(4000):
        row = (generator.getrandbits(33), generator.choice((RESENT, 5)), 1, 65535, 0, START_NS, 3)
        kind = generator.randrange(8)
        at = generator.randrange(-1, len(theirs) + 1)
        for rows in (ours, theirs):
            if kind < 4:
                rows.append(row)
            elif kind == 4 and at >= 0:
                rows.insert(at, row)
            elif kind == 5 and at < len(rows) and len(rows):
                rows[at] = row
            elif kind == 6:
                del rows[: max(at, 0) // 2]
            elif kind == 7 and at < 1:
                rows.clear()
        assert (len(ours), list(ours), bool(ours)) == (len(theirs), theirs, bool(theirs))
        assert ours[-8:] == theirs[-8:]
        assert ours[:at] == theirs[:at]
        if theirs:
            assert (ours[-1], ours[0]) == (theirs[-1], theirs[0])
    wrong: Any
    for wrong in ((1,) * 6, (1,) * 8, ("1",) * 7, [1] * 7, (1 << 64, *(1,) * 6), 5):
        with pytest.raises((TypeError, OverflowError)):
            ours.append(wrong)
    for wrong in (len(ours), -len(ours) - 1, 1 << 70, "1"):
        with pytest.raises((IndexError, TypeError)):
            ours[wrong]
    for _ in range(3):
        ours.append((1,) * 7)
    with pytest.raises(TypeError):
        del ours[1:]
    with pytest.raises(IndexError):
        ours.insert(len(ours) + 1, (1,) * 7)


def test_round_trips_are_an_array() -> None:
    """What the rules do with the array of round trips gives the same with the helper's."""
    generator = random.Random(4)
    ours, theirs = native.new_trips(), array("Q")
    assert not isinstance(ours, array)
    for _ in range(300):
        trip = generator.getrandbits(64)
        for trips in (ours, theirs):
            trips.append(trip)
            trips[trip % len(trips)] = trip >> 1
        assert (list(ours), len(ours), sorted(ours)) == (list(theirs), len(theirs), sorted(theirs))
        assert (list(ours[:64]), list(ours[-8:]), ours[-1]) == (list(theirs[:64]), list(theirs[-8:]), theirs[-1])
    for wrong in (-1, 1 << 64, "5"):
        with pytest.raises((OverflowError, TypeError)):
            ours.append(wrong)  # type: ignore[arg-type]
    for at in (300, -301, 1 << 80):
        with pytest.raises(IndexError):
            ours[at] = 5


def test_the_table_is_a_dict() -> None:
    """Keys of all lengths come, are replaced and go: the helper's table finds what a dict finds."""
    generator = random.Random(6)
    ours, theirs = native.new_table(), dict[bytes, Direction]()
    assert not isinstance(ours, dict)
    keys = [generator.randbytes(generator.choice((0, 1, 7, 8, 12, 12, 14, 36, 38))) for _ in range(3000)]
    absent = Direction(None, 0, 0, 0, 0)
    for _ in range(30_000):
        key = generator.choice(keys)
        if generator.random() < 0.6:
            ours[key] = theirs[key] = Direction(None, 0, 0, 0, 0)
        else:
            assert ours.pop(key, absent) is theirs.pop(key, absent)
        other = generator.choice(keys)
        assert ours.get(other) is theirs.get(other)
        assert ours.get(other, absent) is theirs.get(other, absent)
        assert (other in ours, len(ours)) == (other in theirs, len(theirs))
    for key in keys:
        assert ours.pop(key, None) is theirs.pop(key, None)
    assert len(ours) == 0
    for wrong in ("x", 5, bytearray(b"x")):
        with pytest.raises(TypeError):
            ours.get(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ours[b"x"] = 5  # type: ignore[assignment]


def test_numbers_of_a_report_are_rounded_alike() -> None:
    """Six digits, no number for what is none, lists for tuples: whoever walks over the report."""

    def tree() -> dict[str, Any]:
        floats = [0.0, -0.0, 1.0, -3.0, 999_999.0, 999_999.5, 1_000_000.0, 1_234_567.0, 1 / 3, -2e-9, 1e300, 5e-324]
        odd = [float("inf"), float("-inf"), float("nan")]
        return {"a": floats + odd, "b": {"c": (1, (2.0000001, None), "x"), "d": []}, "e": True, "f": 1 << 80, "g": ()}

    rounder = native.round_floats()
    assert rounder is not None
    ours, theirs = tree(), tree()
    engine._round(ours)
    rounder(theirs)
    assert repr(ours) == repr(theirs)
    assert "999999.0, 1000000.0, 1000000.0, 1234570.0, 0.333333" in repr(theirs)


def test_the_environment_keeps_it_out() -> None:
    """POSTERN_PURE_PYTHON=1 is for those who suspect the helper."""
    words = [sys.executable, "-c", "from gateway.analysis import batch, native; print(native.active())"]
    root = str(Path(__file__).resolve().parents[3])
    for value, expected in (("1", "False"), ("", "True")):
        done = subprocess.run(
            words, cwd=root, env={"POSTERN_PURE_PYTHON": value}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


def test_two_builds_are_the_same_octets(tmp_path: Path) -> None:
    """What is compiled twice is equal, so that packages and images are."""
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    first, second = (build(place).read_bytes() for place in places)
    assert first == second
