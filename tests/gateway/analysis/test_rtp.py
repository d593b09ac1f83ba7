"""RTP streams of which loss, order and jitter are known because they were made so (RFC 3550)."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tests.gateway.analysis.attack_traffic import LAN, rtp
from tests.gateway.analysis.packets import Trace, one, udp

CALLER, CALLED = LAN + "30", "203.0.113.30"


def stream(
    trace: Trace,
    arrivals: list[tuple[int, float]],
    *,
    kind: int = 0,
    tick: int = 160,
    first: int = 65_500,
    source: str = CALLER,
    ssrc: int = 0x5EED,
    begin: float = 1.0,
) -> None:
    """Packets `(number, time)` of one stream; the sequence wraps a few packets after its beginning."""
    for number, t in arrivals:
        packet = rtp(first + number, 0xFFFF_F000 + number * tick, kind, ssrc)
        trace.add(begin + t, udp(source, 16_384, CALLED, 16_400, packet, ip_id=trace.next_id()))


def jitter_by_the_book(arrivals: list[tuple[int, float]], clock: int, tick: int) -> float:
    """Mean over the packets of the jitter of RFC 3550 section 6.4.1, in milliseconds."""
    jitter, total = 0.0, 0.0
    for (before, earlier), (number, t) in pairwise(arrivals):
        difference = abs((t - earlier) * clock - (number - before) * tick)
        jitter += (difference - jitter) / 16
        total += jitter
    return total / (len(arrivals) - 1) * 1000 / clock


@pytest.mark.parametrize(
    ("spread_ms", "batch", "pace_s", "severity"),
    [(0.0, 1, 0.02, None), (15.0, 1, 0.02, None), (0.0, 8, 0.02, "low"), (0.0, 8, 0.04, "medium")],
    ids=["even", "late", "batched", "batched-more"],
)
def test_jitter_is_that_of_the_rfc(spread_ms: float, batch: int, pace_s: float, severity: str | None) -> None:
    """Even, slightly late and batched arrivals give the jitter of the RFC's formula; above 30 and 50 ms it is told."""
    generator = random.Random(9)
    arrivals = [
        (number, (number // batch * batch) * pace_s + generator.uniform(0, spread_ms) / 1000 + number % batch * 0.0001)
        for number in range(1000)
    ]
    trace = Trace()
    stream(trace, arrivals, tick=round(8000 * pace_s))
    report = trace.report()
    (row,) = report["rtp"]
    mean = jitter_by_the_book(arrivals, 8000, round(8000 * pace_s))
    assert row["jitter_ms"] == pytest.approx(mean, abs=0.02, rel=0.02)
    assert (row["packets"], row["lost"], row["duplicates"]) == (1000, 0, 0)
    found = [item["severity"] for item in report["findings"] if item["kind"] == "rtp.jitter"]
    assert found == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("every", "severity"), [(200, None), (50, "low"), (25, "medium"), (8, "high")], ids=["0.5%", "2%", "4%", "12%"]
)
def test_loss_is_counted_exactly_and_weighed(every: int, severity: str | None) -> None:
    """Each n-th packet of a call is missing, across the wrap of the sequence; above 1, 3 and 10 % it is told."""
    arrivals = [(number, number * 0.02) for number in range(1000) if number % every != every // 2]
    missing = 1000 - len(arrivals)
    trace = Trace()
    stream(trace, arrivals)
    report = trace.report()
    (row,) = report["rtp"]
    assert (row["expected"], row["lost"], row["max_loss_burst"], row["codec"]) == (1000, missing, 1, "PCMU")
    assert row["loss_rate"] == pytest.approx(missing / 1000)
    found = [item["severity"] for item in report["findings"] if item["kind"] == "rtp.loss"]
    assert found == ([severity] if severity else [])


def test_a_burst_of_loss_is_told_from_single_losses() -> None:
    """Thirty packets in a row are one burst of thirty."""
    trace = Trace()
    stream(trace, [(number, number * 0.02) for number in range(600) if not 200 <= number < 230])
    (row,) = trace.report()["rtp"]
    assert (row["lost"], row["max_loss_burst"]) == (30, 30)


def test_overtaken_and_doubled_packets_are_no_loss() -> None:
    """Ten packets that arrive behind their successors, and five that arrive twice, are counted as that."""
    arrivals = [(number, number * 0.02) for number in range(500)]
    for place in range(40, 440, 40):
        arrivals[place] = (place, place * 0.02 + 0.025)
    arrivals += [(number, number * 0.02 + 0.011) for number in range(55, 300, 50)]
    trace = Trace()
    stream(trace, sorted(arrivals, key=lambda item: item[1]))
    (row,) = trace.report()["rtp"]
    assert (row["lost"], row["reordered"], row["duplicates"], row["packets"]) == (0, 10, 5, 505)


def test_a_dynamic_payload_type_has_an_inferred_clock() -> None:
    """A codec agreed on elsewhere runs at 48 kHz, as its timestamps show; the report says that it is inferred."""
    arrivals = [(number, number * 0.02) for number in range(500)]
    trace = Trace()
    stream(trace, arrivals, kind=111, tick=960)
    (row,) = trace.report()["rtp"]
    assert (row["clock_hz"], row["clock_inferred"], row["codec"], row["mos"]) == (48_000, True, None, None)
    assert row["jitter_ms"] == pytest.approx(0, abs=0.05)


def test_two_streams_on_the_same_ports_are_two() -> None:
    """A mixer that changes its source in mid-call makes two streams, neither of which lost anything."""
    trace = Trace()
    stream(trace, [(number, number * 0.02) for number in range(300)], ssrc=1)
    stream(trace, [(number, number * 0.02) for number in range(300)], ssrc=2, first=100, begin=8.0)
    rows = trace.report()["rtp"]
    assert [(row["packets"], row["lost"]) for row in rows] == [(300, 0), (300, 0)]


def test_what_is_not_rtp_has_no_jitter() -> None:
    """Datagrams whose first byte looks like RTP while their numbers do not rise are no stream."""
    generator = random.Random(1)
    trace = Trace()
    for number in range(300):
        packet = b"\x80" + generator.randbytes(100)
        trace.add(1 + number * 0.02, udp(CALLER, 16_384, CALLED, 16_400, packet, ip_id=trace.next_id()))
    assert trace.report()["rtp"] == []


def test_a_bad_call_names_its_frames_and_its_ends() -> None:
    """The finding of a lossy call leads to its flow, its first frame and the share that was held against the limit."""
    trace = Trace()
    stream(trace, [(number, number * 0.02) for number in range(500) if number % 10])
    found = one(trace.report(), "rtp.loss")
    assert found["hosts"] == {"source": CALLER, "target": CALLED}
    assert (found["flow"], found["first"]["frame"]) == ("C1", 1)
    assert found["evidence"]["lost"] == 49
    assert found["threshold"]
