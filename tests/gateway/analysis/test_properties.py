"""What must never change a report: how the bytes were cut up, how the file was packed, where sequence numbers began."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.analysis.engine import analyze
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Settings, SettingsError
from tests.gateway.analysis.packets import (
    ACK,
    PSH,
    SYN,
    Trace,
    analyse,
    comparable,
    dns_answer,
    dns_query,
    kinds,
    one,
    tcp,
    udp,
)

SMALL = (
    "tcp-fast-retransmit.pcap",
    "tls12-sni.pcap",
    "pcapng-advanced-le.pcapng",
    "pcapng-difficult-be.pcapng",
    "dhcp.pcap",
    "broken-length.pcap",
)


class Dribble(io.RawIOBase):
    """A source that gives at most a few bytes at a time, as a pipe may, and cannot seek."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = io.BytesIO(data)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._most))


def mixed() -> Trace:
    """Some of everything: web, DNS, a lossy transfer."""
    trace = Trace()
    trace.session(
        0,
        "10.0.0.2",
        50_000,
        "198.51.100.1",
        80,
        up=b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n",
        down=b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000),
    )
    for number in range(8):
        trace.add(0.5 + number, udp("10.0.0.2", 40_000, "9.9.9.9", 53, dns_query(number, f"n{number}.example")))
        trace.add(0.52 + number, udp("9.9.9.9", 53, "10.0.0.2", 40_000, dns_answer(number, f"n{number}.example")))
    lossy(trace, 2.0, 1000)
    return trace


def lossy(trace: Trace, begin: float, isn: int, segments: int = 300, drop: int = 29) -> None:
    """A download seen at its receiver: each `drop`-th segment is missing at first and comes again one round trip
    later.
    """
    client, server = ("10.0.0.2", 51_000), ("198.51.100.9", 443)
    window = bytes.fromhex("01030307")
    trace.add(begin, tcp(*client, *server, SYN, isn - 1, options=window))
    trace.add(begin + 0.03, tcp(*server, *client, SYN | ACK, isn - 1, isn, options=window))
    trace.add(begin + 0.0301, tcp(*client, *server, ACK, isn, isn))
    for number in range(segments):
        t = begin + 0.1 + number * 0.002
        late = number % drop == drop - 1
        packet = tcp(*server, *client, PSH | ACK, isn + number * 1000, isn, bytes(1000), ip_id=20_000 + number)
        if late:
            packet = tcp(*server, *client, PSH | ACK, isn + number * 1000, isn, bytes(1000), ip_id=40_000 + number)
            t += 0.035
        trace.add(t, packet)


def whole(report: Any) -> Any:
    """A report less what a clock says of the analysis itself."""
    return {name: value for name, value in report.items() if name != "timing"}


@pytest.mark.parametrize("size", [1, 7, 16, 4096, 6500, 150_300, 1 << 20])
@pytest.mark.parametrize("name", SMALL)
def test_read_size_never_changes_a_report(name: str, size: int, captures: Path) -> None:
    """Blocks of one byte and of a megabyte give the same report."""
    data = (captures / name).read_bytes()
    assert whole(analyse(data, block_bytes=size)) == whole(analyse(data))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 7, 333, 1 << 20])
@pytest.mark.parametrize("name", ["a record too long", "a cut record", "a broken block"])
def test_read_size_never_changes_what_is_said_of_damage(name: str, size: int, packed: bool) -> None:
    """Where a damaged file ends does not depend on how far it was read when the damage was met."""
    trace = mixed()
    plain, blocks = trace.pcap(), trace.pcapng()
    data = {
        "a record too long": plain[:5000] + b"\xff" * 4000,
        "a cut record": plain[:5001],
        "a broken block": blocks[:1200] + bytes(3000),
    }[name]
    if packed:
        data = gzip.compress(data)
    assert whole(analyse(data, block_bytes=size)) == whole(analyse(data))


def test_a_dribbling_pipe_gives_the_same_report() -> None:
    """A source that cannot seek and gives few bytes at a time makes no difference."""
    data = mixed().pcap()
    report = analyze(Dribble(data, 13), name="test", settings=Settings())  # type: ignore[arg-type]
    assert comparable(report) == comparable(analyse(data))


def test_the_container_never_changes_a_report() -> None:
    """pcap of both byte orders, nanoseconds, pcapng, and gzip in one or two members hold the same packets."""
    trace = mixed()
    plain = comparable(trace.report())
    packed = gzip.compress(trace.pcap())
    head, tail = trace.pcap()[:999], trace.pcap()[999:]
    for data in (
        trace.pcap(">"),
        trace.pcap(nanoseconds=True),
        trace.pcapng(),
        trace.pcapng(">"),
        packed,
        gzip.compress(head) + gzip.compress(tail),
    ):
        changed = comparable(analyse(data))
        for name in ("protocols", "series"):
            assert changed[name] == plain[name]
        assert changed == plain


def without_times(report: Any) -> Any:
    kept = comparable(report)
    return {name: kept[name] for name in ("tcp", "dns", "http", "health", "protocols", "verdict")}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 0xFFFFFFFF))
def test_where_sequence_numbers_begin_changes_nothing(isn: int) -> None:
    """A constant added to all sequence numbers, wrap included, changes no count."""
    first, second = Trace(), Trace()
    lossy(first, 0, 1000)
    lossy(second, 0, isn)
    assert without_times(first.report()) == without_times(second.report())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**9))
def test_a_constant_added_to_all_times_changes_nothing(seconds: int) -> None:
    """The same traffic at another date has the same report, less the date; whole bins keep the series aligned."""
    trace, moved = mixed(), mixed()
    moved.packets = [(t + seconds * 1_000_000_000 - 1_000_000_000 * 10**9, packet) for t, packet in moved.packets]
    assert without_times(trace.report()) == without_times(moved.report())


def test_totals_of_a_merged_capture_are_the_sums() -> None:
    """Two captures of different hosts, one behind the other, add up."""
    first, second = mixed(), Trace()
    for number in range(20):
        second.session(100 + number, "10.0.0.7", 40_000 + number, "198.51.100.3", 443, up=bytes(100), down=bytes(5000))
    merged = Trace(packets=first.packets + second.packets)
    one_, two, both = first.report(), second.report(), merged.report()
    for path in (
        ("capture", "packets"),
        ("capture", "wire_bytes"),
        ("tcp", "streams"),
        ("tcp", "data_segments"),
        ("tcp", "retransmissions"),
        ("dns", "queries"),
        ("http", "requests"),
    ):
        section, name = path
        assert both[section][name] == one_[section][name] + two[section][name], path  # type: ignore[literal-required]


def test_a_prefix_gives_a_prefix_of_the_labels() -> None:
    """What was said of a frame does not depend on what comes after it."""
    trace = mixed()
    whole = trace.report()["tcp"]["label_frames"]
    half = Trace(packets=trace.ordered()[:200]).report()["tcp"]["label_frames"]
    for kind, frames in half.items():
        assert whole[kind][: len(frames)] == frames


def test_loss_at_the_receiver_is_told_from_reordering() -> None:
    """Segments that come a round trip late with a new IP id were sent again; overtaken ones keep their id."""
    trace = Trace()
    lossy(trace, 0, 1000)
    report = trace.report()
    assert (report["tcp"]["retransmissions"], report["tcp"]["reordered"]) == (10, 0)
    assert one(report, "tcp.retransmission.loss")["evidence"]["hole_fills"] == 10
    swapped = Trace()
    client, server = ("10.0.0.2", 51_000), ("198.51.100.9", 443)
    swapped.add(0, tcp(*client, *server, SYN, 99))
    swapped.add(0.03, tcp(*server, *client, SYN | ACK, 99, 100))
    swapped.add(0.0301, tcp(*client, *server, ACK, 100, 100))
    order = list(range(200))
    for at in range(5, 200, 20):
        order[at], order[at + 1] = order[at + 1], order[at]
    for place, number in enumerate(order):
        swapped.add(
            0.1 + place * 0.002,
            tcp(*server, *client, PSH | ACK, 100 + number * 1000, 100, bytes(1000), ip_id=500 + number),
        )
    report = swapped.report()
    assert (report["tcp"]["retransmissions"], report["tcp"]["reordered"]) == (0, 10)


def test_rtp_with_known_loss_and_jitter() -> None:
    """A G.711 stream with every 25th packet missing and 10 ms of alternating delay is measured as such."""
    trace = Trace()
    for number in range(1000):
        if number % 25 == 24:
            continue
        delay = 0.010 if number % 2 else 0.0
        header = (
            bytes([0x80, 0]) + (number & 0xFFFF).to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"\0\0\0\x2a"
        )
        trace.add(number * 0.02 + delay, udp("10.0.0.5", 10_000, "10.0.0.6", 20_000, header + bytes(160)))
    report = trace.report()
    (row,) = report["rtp"]
    assert (row["codec"], row["clock_hz"], row["expected"], row["lost"]) == ("PCMU", 8000, 999, 39)
    assert row["jitter_ms"] == pytest.approx(10.0, rel=0.1)
    assert "rtp.loss" in kinds(report)


def test_cutting_a_file_anywhere_ends_well() -> None:
    """Every truncation is a report or a named refusal, and the report says that the file was cut."""
    data = mixed().pcap()
    refusals = set()
    for size in [*range(200), *range(200, len(data), 997)]:
        try:
            report = analyse(data[:size])
        except AnalysisRefused as refusal:
            refusals.add(refusal.error)
        else:
            assert report["capture"]["packets"] < 400
    assert refusals == {"empty", "not-a-capture"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x7fELF" + bytes(60), "ELF"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"snoop\0\0\0" + bytes(20), "snoop"),
        (b"12:00:00.1 IP a > b: Flags [S], seq 1, win 2\n", "text"),
        (b"PK\x03\x04" + bytes(30), "zip"),
        (b"", "empty"),
    ],
)
def test_what_is_no_capture_is_refused_by_its_looks(data: bytes, word: str) -> None:
    """The refusal names what the file looks like."""
    with pytest.raises(AnalysisRefused, match=word) as caught:
        analyse(data)
    assert caught.value.error == "not-a-capture"


def test_an_expanding_file_is_refused_early() -> None:
    """A gzip bomb stops long before its end."""
    bomb = gzip.compress(Trace().pcap() + bytes(60 << 20), 9)
    with pytest.raises(AnalysisRefused) as caught:
        analyse(bomb)
    assert caught.value.error in ("gzip-bomb", "empty")
    trace = mixed()
    zeros = Trace(packets=[(trace.packets[0][0] + number, bytes(60_000)) for number in range(600)])
    with pytest.raises(AnalysisRefused) as caught:
        analyse(gzip.compress(zeros.pcap(), 9))
    assert caught.value.error == "gzip-bomb"


def test_one_packet_is_a_capture_without_a_score() -> None:
    """A single packet is analysed, and no data is never scored as perfect."""
    trace = Trace()
    trace.add(0, udp("10.0.0.1", 1, "10.0.0.2", 2, b"x"))
    report = trace.report()
    assert report["health"]["score"] is None
    assert {row["name"] for row in report["health"]["excluded"]} >= {"tcp_loss", "rtt", "dns"}


def test_overrides_are_validated_in_words() -> None:
    """A wrong override says what is wrong with it and what would be right."""
    with pytest.raises(SettingsError, match="did you mean 'gap'"):
        Settings().with_overrides({"gpa.low_s": "1"})
    with pytest.raises(SettingsError, match="out of range, accepted is 0 to 1"):
        Settings().with_overrides({"rtp.loss_low": "2"})
    changed = Settings().with_overrides({"gap.low_s": "3", "reader.decapsulate": "yes"})
    assert (changed.gap.low_s, changed.reader.decapsulate) == (3.0, True)
    assert changed.as_dict()["gap"]["low_s"] == 3.0


def test_cancelling_ends_the_analysis() -> None:
    """A cancelled analysis is a refusal by that name."""
    with pytest.raises(AnalysisRefused) as caught:
        analyze(io.BytesIO(mixed().pcap()), name="x", settings=Settings(), cancelled=lambda: True)
    assert caught.value.error == "cancelled"


def test_flipped_bytes_end_well() -> None:
    """A bounded, seeded share of the fuzzer: no input makes an exception other than a named refusal."""
    from tests.fuzz.analysis import rounds

    assert rounds(random.Random(1), 400, [mixed().pcap(), mixed().pcapng()]) == 400


def test_a_syn_sent_again_in_an_old_connection_ends_well() -> None:
    """The SYN of an established connection comes again, and acknowledgements after it are still followed."""
    trace = Trace()
    client, server = ("10.0.0.2", 51_000), ("198.51.100.9", 443)
    for again in range(2):
        trace.add(again, tcp(*client, *server, SYN, 5))
        trace.add(again + 0.1, tcp(*server, *client, SYN | ACK, 999, 6))
        trace.add(again + 0.2, tcp(*client, *server, ACK, 6, 1000))
        for number in range(4 * again, 4 * again + 4):
            at = again + 0.3 + number * 0.01
            trace.add(at, tcp(*server, *client, PSH | ACK, 1000 + 100 * number, 6, bytes(100), ip_id=number + 1))
            trace.add(at + 0.005, tcp(*client, *server, ACK, 6, 1100 + 100 * number))
    report = trace.report()
    assert (report["tcp"]["streams"], report["tcp"]["syn"], report["tcp"]["data_segments"]) == (1, 2, 8)


@pytest.mark.parametrize("before", [1, 500, 999, 1000, 1001, 2000, 6_500, 60_000, 150_300])
def test_a_wrap_of_sequence_numbers_changes_nothing_of_a_flow(before: int) -> None:
    """A transfer that often fills its window has the same row wherever its numbers pass 2^32, repeats included."""

    def transfer(isn: int) -> Any:
        trace = Trace()
        client, server = ("10.0.0.2", 51_000), ("198.51.100.9", 443)
        trace.add(0, tcp(*client, *server, SYN, isn - 1, win=4000))
        trace.add(0.03, tcp(*server, *client, SYN | ACK, isn - 1, isn, win=4000))
        trace.add(0.0301, tcp(*client, *server, ACK, isn, isn, win=4000))
        t, ident = 0.1, 0
        for burst in range(60):
            base = isn + burst * 4000
            for piece in range(4):
                ident += 1
                data = tcp(*server, *client, PSH | ACK, base + piece * 1000, isn, bytes(1000), ip_id=ident, win=4000)
                for copy in range(1 + (ident % 3 == 1)):  # some are recorded twice
                    trace.add(t + piece * 0.001 + copy * 0.0001, data)
            for half in (2000, 4000):
                trace.add(t + 0.02 + half / 1e6, tcp(*client, *server, ACK, isn, base + half, win=4000))
            t += 0.05
        report = trace.report()
        return report["flows"]["rows"], report["tcp"], report["capture_health"]

    assert transfer((1 << 32) - before) == transfer(1_000_000)
