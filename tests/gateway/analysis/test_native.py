"""The helper in machine code changes the time of an analysis and nothing else."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.analysis import engine, native
from gateway.analysis.applications import feed
from gateway.analysis.engine import analyze
from gateway.analysis.flows import Direction
from gateway.analysis.handshake import opening_syn
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Settings
from gateway.analysis.tcp import roll
from rootfs.native import build
from tests.bench import analysis as bench
from tests.fuzz.analysis import damaged
from tests.gateway.analysis.packets import ACK, PSH, START_NS, SYN, Trace, tcp
from tests.gateway.analysis.test_properties import lossy, mixed

_TIGHT = Settings().with_overrides({"tables.half_open": "64", "tables.flows": "64", "tables.fragment_groups": "16"})


@pytest.fixture(autouse=True)
def _built() -> None:
    if not native.active():
        pytest.fail("the helper of the analysis is not built for this Python: ./build.sh native")


def outcome(data: bytes, settings: Settings, block_bytes: int | None = None) -> dict[str, Any]:
    """The report without its times, or the refusal."""
    try:
        report: dict[str, Any] = dict(analyze(io.BytesIO(data), name="x", settings=settings, block_bytes=block_bytes))
    except AnalysisRefused as refusal:
        return {"refused": str(refusal)}
    del report["timing"]
    return report


def in_python(data: bytes, settings: Settings) -> dict[str, Any]:
    """The same without the helper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_helper", None)
        return outcome(data, settings)


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


def test_reports_of_all_captures_are_the_same(captures: Path) -> None:
    """Every shared capture gives the same report with the helper and without."""
    paths = sorted(path for path in captures.iterdir() if "pcap" in path.name)
    assert len(paths) >= 55
    for path in paths:
        data = path.read_bytes()
        assert outcome(data, Settings()) == in_python(data, Settings()), path.name


@pytest.mark.parametrize("settings", [Settings(), _TIGHT], ids=["usual", "tight tables"])
def test_reports_of_made_captures_are_the_same(settings: Settings, tmp_path: Path) -> None:
    """Loss, wrapped numbers, small windows, cut packets, both byte orders and clocks that run backwards."""
    bench.flood(tmp_path / "flood.pcap", 1000)
    bench.big(tmp_path / "big.pcap", 5_000)
    for data in (*traces(), windows(), *(path.read_bytes() for path in sorted(tmp_path.iterdir()))):
        expected = in_python(data, settings)
        for block_bytes in (None, 499):
            assert outcome(data, settings, block_bytes) == expected


def test_damaged_captures_give_the_same(captures: Path) -> None:
    """Whatever is flipped, cut out or doubled: the same report or the same refusal."""
    generator = random.Random(11)
    seeds = [path.read_bytes() for path in sorted(captures.iterdir()) if path.stat().st_size < 20_000]
    seeds += [windows()[:40_000], mixed().pcap()]
    for _ in range(120):
        data = damaged(generator, generator.choice(seeds))
        settings = generator.choice((_TIGHT, Settings()))
        assert outcome(data, settings) == in_python(data, settings)


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


def test_a_helper_for_other_tables_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction without the expected slots: the analysis goes on in Python."""

    class Other:
        __slots__ = ("app",)

    monkeypatch.setattr(native, "_bound", False)
    native.bind(Other, lambda *_: False, roll, feed)
    assert not native.active()
    data = windows()
    with_loop_only = outcome(data, Settings())
    native.bind(Direction, opening_syn, roll, feed)
    assert with_loop_only == in_python(data, Settings())


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
