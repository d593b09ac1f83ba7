"""One flow followed packet by packet, and the pictures of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analysis import plots
from gateway.analysis.frames import CaptureFile
from gateway.analysis.trace import BEHIND_HOLE, HOLE_FILL, SEEN_AGAIN, FlowKey, Segment, Trace, Wanted, build, build_all
from tests.gateway.analysis.made_packets import ACK, CLIENT, SERVER, SYN, conversation, pcap, tcp, udp

ROW = {
    "orig_host": CLIENT,
    "orig_port": 40000,
    "resp_host": SERVER,
    "resp_port": 80,
    "proto": "tcp",
    "vlan": None,
}


def _trace(tmp_path: Path, frames: list[tuple[float, bytes]]) -> Trace:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(frames))
    with CaptureFile.open(path) as capture:
        return build(capture.walk(), FlowKey.of_row(ROW))


def test_numbers_are_relative_and_other_flows_are_left_out(tmp_path: Path) -> None:
    """The first byte of each side is at 1, behind its SYN; a foreign packet between changes nothing."""
    frames = conversation()
    frames.insert(3, (0.0215, udp((CLIENT, 40000), (SERVER, 80), b"other")))
    trace = _trace(tmp_path, frames)
    data = [s for s in trace.segments if s.length and not s.from_orig]
    assert [s.seq for s in data] == [1 + n * 100 for n in range(10)]
    assert trace.segments[-1].ack == 1001
    assert 4 not in [s.frame for s in trace.segments]


def test_windows_are_scaled_when_both_sides_said_how(tmp_path: Path) -> None:
    """A scale of 2 makes 1000 into 4000, except in the SYNs."""
    trace = _trace(tmp_path, conversation())
    assert trace.segments[0].window_bytes == 1000
    assert trace.segments[2].window_bytes == 4000
    assert trace.scaled


def test_loss_is_named_by_its_evidence(tmp_path: Path) -> None:
    """The segment behind the hole, the one that fills it, and the one that was not needed are told apart."""
    trace = _trace(tmp_path, conversation(lost=True))
    evidence = [s.evidence for s in trace.segments if s.evidence]
    assert evidence == [BEHIND_HOLE, HOLE_FILL, SEEN_AGAIN]


def test_round_trips_follow_karn(tmp_path: Path) -> None:
    """Each acknowledged segment gives a sample; what was sent twice gives none."""
    frames = conversation()
    clean = _trace(tmp_path, frames)
    assert [round(sample, 3) for _, sample, of_orig in clean.rtt if not of_orig] == [0.001] * 10
    twice = [*frames[:5], (0.0503, frames[4][1]), *frames[5:]]
    assert len([1 for _, _, of_orig in _trace(tmp_path, twice).rtt if not of_orig]) == 9


def test_bytes_in_flight_are_what_is_not_acknowledged(tmp_path: Path) -> None:
    """While the hole is open the flight grows."""
    trace = _trace(tmp_path, conversation(lost=True))
    assert max(count for _, count, of_orig in trace.in_flight if not of_orig) == 700


def test_sequence_numbers_wrap(tmp_path: Path) -> None:
    """A transfer over the end of the number space goes on upwards."""
    c, s = (CLIENT, 40000), (SERVER, 80)
    frames = [(n / 100, tcp(c, s, 0xFFFFFF00 + n * 200, 1, ACK, b"x" * 200)) for n in range(4)]
    assert [segment.seq for segment in _trace(tmp_path, frames).segments] == [0, 200, 400, 600]


@pytest.mark.parametrize("lost", [False, True])
def test_every_plot_is_well_formed(tmp_path: Path, lost: bool) -> None:
    """All plots of a flow are XML that stands by itself, without a style attribute or a script."""
    trace = _trace(tmp_path, conversation(lost=lost))
    drawn = [
        plots.time_sequence(trace, False),
        plots.time_sequence(trace, True),
        plots.window(trace, False),
        plots.round_trip(trace),
        plots.ladder(trace.segments, "<a>", "b&c"),
        plots.io_graph(1.0, [1, 2, 0], [10, 20, 0], [(1.0, "x<y", "high", "<b>")]),
        plots.gauge(55.0, "fair"),
        plots.gauge(None, "none"),
    ]
    for drawing in drawn:
        root = ElementTree.fromstring(drawing)
        assert root.tag == "svg"
        for element in root.iter():
            assert not {"style", "href"} & element.attrib.keys() or element.attrib.get("href", "").startswith("#")
            assert not any(name.startswith("on") for name in element.attrib)


def test_a_plot_of_a_long_flow_stays_small(tmp_path: Path) -> None:
    """Fifty thousand packets are drawn in less than a hundred kilobytes."""
    c, s = (CLIENT, 40000), (SERVER, 80)
    frames = [(0.0, tcp(c, s, 0, 0, SYN))]
    for n in range(20_000):
        frames.append((n / 1000, tcp(s, c, n * 10 if n % 7 else (n // 2) * 10, 1, ACK, b"x" * 10)))
    trace = _trace(tmp_path, frames)
    assert len(plots.time_sequence(trace, False)) < 100_000
    assert len(plots.window(trace, False)) < 100_000


def test_time_axes_are_labelled_in_one_unit() -> None:
    """Ten minutes are labelled in minutes from zero to the end."""
    drawing = plots.io_graph(1.0, [1] * 600, [1] * 600, [])
    assert ">2 min<" in drawing
    assert ">10 min<" in drawing
    assert " s<" not in drawing


def test_long_silence_at_an_end_is_not_drawn(tmp_path: Path) -> None:
    """A connection that idles for a minute at its end is drawn while it worked, a steady one is drawn whole."""
    c, s = (CLIENT, 40000), (SERVER, 80)
    working = conversation()
    late = _trace(tmp_path, [*working, (60.0, tcp(s, c, 6001, 1019, ACK, b"x"))])
    low, high = plots.active_span(late)
    assert low < 0.1
    assert high < 1.0
    steady = [(n * 1.0, tcp(s, c, 1 + n, 1, ACK, b"x")) for n in range(60)]
    low, high = plots.active_span(_trace(tmp_path, steady))
    assert high - low > 58


def test_a_clock_that_runs_backwards_breaks_no_plot(tmp_path: Path) -> None:
    """Times before the first packet are drawn or left out, in a plot that is well formed."""
    frames = [(5.0 - t, data) for t, data in conversation(lost=True)]
    trace = _trace(tmp_path, frames)
    for drawing in (
        plots.time_sequence(trace, False),
        plots.window(trace, False),
        plots.ladder(trace.segments, "a", "b"),
    ):
        assert ElementTree.fromstring(drawing).tag == "svg"
    low, high = plots.active_span(trace)
    assert low < high


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=30))
def test_any_times_give_a_span_with_a_length(moments: list[float]) -> None:
    """Whatever the clock said, a plot has a width."""
    segments = [Segment(n, t, True, n, None, 1, 16, 0, "", ()) for n, t in enumerate(moments)]
    trace = Trace()
    trace.segments = segments
    low, high = plots.active_span(trace)
    assert low < high
    assert plots.time_sequence(trace, True).startswith("<svg")


def test_several_flows_are_followed_in_one_pass_and_ports_used_again_are_not_mixed(tmp_path: Path) -> None:
    """Each trace holds what it would hold alone, and nothing of a later connection with the same ports."""
    first = conversation(lost=True)
    other = [(t + 0.0001, tcp((CLIENT, 50000), (SERVER, 443), n, 0, ACK, b"x")) for n, (t, _) in enumerate(first)]
    again = [(t + 5.0, data) for t, data in conversation()]
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(sorted([*first, *other, *again])))
    key, second = FlowKey.of_row(ROW), FlowKey.of_row({**ROW, "orig_port": 50000, "resp_port": 443})
    last = len(first) + len(other)
    with CaptureFile.open(path) as capture:
        together = build_all(capture.walk(), [Wanted(key, 1, last), Wanted(second), Wanted(key, last + 1)])
        alone = build_all(capture.walk(), [Wanted(key, 1, last)])[0]
    assert together[0].segments == alone.segments
    assert [len(trace.segments) for trace in together] == [len(first), len(other), len(again)]
