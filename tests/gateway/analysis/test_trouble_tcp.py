"""Detectors of TCP trouble: for each a clear case, one just under its threshold, and a look-alike that stays silent."""

from __future__ import annotations

import pytest

from tests.gateway.analysis.attack_traffic import refused, unanswered
from tests.gateway.analysis.packets import ACK, FIN, PSH, RST, SYN, Trace, udp
from tests.gateway.analysis.wire import CLIENT, PLAIN, SCALE, SERVER, Wire, found, kinds

SACK = bytes.fromhex("020405b4" + "0402" + "0101")


def syns(repeats: int, connections: int = 1) -> Trace:
    """Connections whose SYN is answered after some repeats, a second apart."""
    trace = Trace()
    for number in range(connections):
        wire = Wire(trace, sport=40_000 + number, at_ms=number * 10_000)
        for attempt in range(repeats):
            wire.up(attempt * 1000, SYN, 0, 0, options=SCALE)
        wire.up(repeats * 1000, SYN, 0, 0, options=SCALE)
        wire.down(repeats * 1000 + 20, SYN | ACK, 0, 1, options=SCALE)
        wire.up(repeats * 1000 + 21, ACK, 1, 1)
    return trace


@pytest.mark.parametrize(("repeats", "severity"), [(1, "low"), (2, "medium"), (3, "high")])
def test_repeated_syns_weigh_by_their_number(repeats: int, severity: str) -> None:
    """One, two and three repeats of a SYN that is answered in the end."""
    (row,) = found(syns(repeats).report(), "tcp.syn.")
    assert row["severity"] == severity
    assert row["frames"] == list(range(1, repeats + 2))
    assert row["evidence"]["intervals_s"] == [1.0] * repeats
    assert row["evidence"]["backoff_ratio"] == (1.0 if repeats > 1 else None)


def test_repeated_syns_of_many_connections_are_one_finding() -> None:
    """Twelve connections to one service that needed a second SYN say one thing, with all their frames."""
    (row,) = found(syns(1, 12).report(), "tcp.syn.")
    assert (row["count"], row["evidence"]["connections"]) == (24, 12)
    assert row["title"].startswith("12 connections")


def test_a_syn_on_used_ports_is_no_repeat() -> None:
    """A new connection with the ports of the last one has another number, and was answered at once."""
    trace = Trace()
    first = Wire(trace)
    first.open()
    first.up(100, FIN | ACK, 1, 1)
    first.down(120, FIN | ACK, 1, 2)
    first.up(121, ACK, 2, 2)
    second = Wire(trace, at_ms=1000)
    second.up(0, SYN, 90_000, 0, options=SCALE)
    second.down(20, SYN | ACK, 70_000, 90_001, options=SCALE)
    second.up(21, ACK, 90_001, 70_001)
    assert found(trace.report(), "tcp.syn.") == []


@pytest.mark.parametrize(
    ("rtt_ms", "expected"),
    [(1200, [("tcp.handshake.slow", "high")]), (400, [("tcp.handshake.slow", "medium")]), (290, [])],
)
def test_a_slow_handshake_weighs_by_its_length(rtt_ms: float, expected: list[tuple[str, str]]) -> None:
    """Over a second, over 0.3 s, and just under."""
    wire = Wire()
    wire.open(rtt_ms)
    assert kinds(wire.found("tcp.handshake")) == expected


def test_time_lost_by_a_repeated_syn_is_not_the_servers() -> None:
    """The answer is measured from the last SYN, so a lost SYN does not make the server slow."""
    assert found(syns(2).report(), "tcp.handshake") == []


def test_a_slow_client_is_the_clients() -> None:
    """Half a second between SYN-ACK and ACK at the server's side is the client's, a fifth is not told."""
    for waited, expected in ((500, [("tcp.handshake.client", "medium")]), (200, [])):
        wire = Wire()
        wire.up(0, SYN, 0, 0, options=SCALE)
        wire.down(1, SYN | ACK, 0, 1, options=SCALE)
        wire.up(1 + waited, ACK, 1, 1)
        assert kinds(wire.found("tcp.handshake")) == expected


def test_unanswered_attempts_are_told_once_they_had_time() -> None:
    """A SYN sent four times into silence is high; a SYN eight seconds before the capture ends may yet be answered."""
    wire = Wire()
    for ms in (0, 1000, 3000, 7000):
        wire.up(ms, SYN, 0, 0, options=SCALE)
    assert kinds(wire.found("tcp.connect")) == [("tcp.connect.unanswered", "high")]
    trace = Trace()
    trace.session(0, CLIENT, 50_000, "198.51.100.9", 443, up=b"x", down=b"y")
    unanswered(trace, 2.0, CLIENT, 40_000, SERVER, 443)
    trace.session(9.0, CLIENT, 50_001, "198.51.100.9", 443, up=b"x", down=b"y")
    assert found(trace.report(), "tcp.connect") == []


def test_silence_of_a_host_that_answers_others_is_critical() -> None:
    """The service does not answer this port although its host is alive."""
    wire = Wire(port=8443)
    for ms in (0, 1000, 3000, 7000):
        wire.up(ms, SYN, 0, 0, options=SCALE)
    wire.trace.session(0.5, CLIENT, 50_000, SERVER, 443, up=b"x", down=b"y")
    assert kinds(wire.found("tcp.connect")) == [("tcp.connect.unanswered", "critical")]


def test_refusals_weigh_by_their_share() -> None:
    """Three of five attempts refused is trouble, one of five is information, four of four are too few to judge."""
    for refusals, served, severity in ((3, 2, "medium"), (1, 4, "info"), (4, 0, "info")):
        trace = Trace()
        for number in range(refusals):
            refused(trace, number * 5.0, CLIENT, 41_000 + number, SERVER, 443)
        for number in range(served):
            trace.session(2 + number * 5.0, CLIENT, 42_000 + number, SERVER, 443, up=b"x", down=b"y")
        assert kinds(found(trace.report(), "tcp.connect")) == [("tcp.connect.refused", severity)]


def test_an_injected_reset_is_told_by_who_goes_on() -> None:
    """A reset in the server's name, one hop nearer, after which the real server answers all the same."""
    wire = Wire()
    wire.up(0, SYN, 0, 0, options=SCALE)
    wire.down(5, RST | ACK, 0, 1, win=0, ttl=58)
    wire.down(20, SYN | ACK, 0, 1, options=SCALE, ttl=52)
    wire.up(21, ACK, 1, 1)
    wire.up(22, PSH | ACK, 1, 1, size=100)
    (row,) = wire.found("tcp.reset")
    assert (row["kind"], row["severity"], row["class"]) == ("tcp.reset.injected", "high", "security")
    assert row["frames"] == [2]
    assert "went-on" in row["signals"]


def test_an_injected_reset_is_told_by_number_and_distance() -> None:
    """A reset from the middle of a transfer whose number does not fit and that came over another number of hops."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=100)
    wire.down(50, PSH | ACK, 1, 101, size=1000)
    wire.down(51, RST, 900_000, 0, win=0, ttl=44)
    assert kinds(wire.found("tcp.reset")) == [("tcp.reset.injected", "high")]
    for seq, ttl in ((900_000, 62), (1001, 44)):  # only one of the two signs: a restarted host, another path
        wire = Wire()
        wire.open()
        wire.up(30, PSH | ACK, 1, 1, size=100)
        wire.down(50, PSH | ACK, 1, 101, size=1000)
        wire.down(51, RST, seq, 0, win=0, ttl=ttl)
        assert kinds(wire.found("tcp.reset")) == [("tcp.reset", "low")]


def test_ordinary_resets_are_no_injection() -> None:
    """A refused SYN, a reset after both FINs and a client that aborts are how connections end."""
    trace = Trace()
    refused(trace, 0.0, CLIENT, 41_000, SERVER, 443)
    wire = Wire(trace, at_ms=1000)
    wire.open()
    wire.up(30, FIN | ACK, 1, 1)
    wire.down(50, FIN | ACK, 1, 2)
    wire.up(51, RST, 2, 0, win=0)
    aborted = Wire(trace, sport=40_001, at_ms=2000)
    aborted.open()
    aborted.down(30, PSH | ACK, 1, 1, size=1000)
    aborted.up(31, RST | ACK, 1, 1001, win=0)
    assert kinds(found(trace.report(), "tcp.reset")) == [("tcp.reset", "low")]


def zero_window(closed_ms: float) -> Wire:
    """A receiver that closes its window for some time and then reads on."""
    wire = Wire()
    wire.open()
    for number in range(4):
        wire.up(30 + number, PSH | ACK, 1 + number * 1000, 1, size=1000)
    wire.down(50, ACK, 1, 4001, win=0)
    wire.down(50 + closed_ms, ACK, 1, 4001, win=500)
    for number in range(4):
        wire.up(60 + closed_ms + number * 400, PSH | ACK, 4001 + number * 1000, 1, size=1000)
        wire.down(80 + closed_ms + number * 400, ACK, 1, 5001 + number * 1000)
    return wire


@pytest.mark.parametrize(
    ("closed_ms", "expected"),
    [(12_000, ["high"]), (2000, ["high"]), (300, ["low"]), (90, [])],
)
def test_a_closed_window_weighs_by_its_length(closed_ms: float, expected: list[str]) -> None:
    """Over ten seconds, over a fifth of the connection, over a tenth of a second, and just under."""
    assert [row["severity"] for row in zero_window(closed_ms).found("tcp.window")] == expected


def test_a_reset_with_window_zero_closes_no_window() -> None:
    """The window field of a reset says nothing."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=1000)
    wire.down(31, RST | ACK, 1, 1001, win=0)
    wire.up(5000, PSH | ACK, 1001, 1, size=1000)
    assert wire.found("tcp.window") == []


def round_trips(trips_ms: list[float]) -> Wire:
    """Requests of a kilobyte that are acknowledged after the given times."""
    wire = Wire()
    wire.open(min(trips_ms))
    at = 2 * min(trips_ms)
    for number, trip in enumerate(trips_ms):
        wire.up(at, PSH | ACK, 1 + number * 1000, 1, size=1000)
        wire.down(at + trip, ACK, 1, 1001 + number * 1000)
        at += trip + 100
    return wire


@pytest.mark.parametrize(
    ("trip_ms", "expected"),
    [
        (900, [("tcp.rtt.high", "high")]),
        (500, [("tcp.rtt.high", "medium")]),
        (160, [("tcp.rtt.high", "low")]),
        (140, []),
    ],
)
def test_a_long_way_weighs_by_its_length(trip_ms: float, expected: list[tuple[str, str]]) -> None:
    """The median of ten round trips against the thresholds."""
    assert kinds(round_trips([trip_ms] * 10).found("tcp.rtt")) == expected


def test_spikes_of_the_round_trip_are_told() -> None:
    """Four of forty round trips take six times the usual time; two are chance; half of all are how the path is."""
    for spikes, expected in ((4, ["tcp.rtt.spikes"]), (2, []), (20, [])):
        trips = [50.0] * (40 - spikes) + [300.0] * spikes
        rows = round_trips(trips).found("tcp.rtt.spikes")
        assert [row["kind"] for row in rows] == expected
        if rows:
            assert (rows[0]["evidence"]["spikes"], rows[0]["evidence"]["n"]) == (4, 40)


def test_spikes_point_at_the_acknowledgements_that_came_late() -> None:
    """Not the first frame of the flow but the four that ended the long round trips, in order, with their times."""
    trips = [50.0] * 40
    for late in (5, 11, 20, 33):
        trips[late] = 300.0
    (row,) = round_trips(trips).found("tcp.rtt.spikes")
    expected = [3 + 2 * (late + 1) for late in (5, 11, 20, 33)]  # behind the handshake two frames for each request
    assert row["frames"] == expected
    assert (row["count"], row["first"]["frame"], row["last"]["frame"]) == (4, expected[0], expected[-1])
    assert row["last"]["t"] - row["first"]["t"] == pytest.approx(28 * 0.15 + 3 * 0.25, abs=1e-3)


def transfer(queue_ms: float, pause_ms: float) -> Wire:
    """An upload at a steady rate over six seconds while the round trip grows to `queue_ms` beyond 30 ms."""
    wire = Wire()
    wire.open(30)
    sent: list[tuple[float, bool, int]] = []
    for number in range(300):
        at = 100 + number * 20 + (pause_ms if number >= 150 else 0)
        sent.append((at, True, number))
        sent.append((at + 30 + queue_ms * number / 300, False, number))
    for at, up, number in sent:
        if up:
            wire.up(at, ACK, 1 + number * 1000, 1, size=1000)
        else:
            wire.down(at, ACK, 1, 1001 + number * 1000)
    return wire


def test_a_growing_queue_is_bufferbloat() -> None:
    """400 ms of queue at full rate are; 150 ms are not; and long trips at a rate that leaves the line idle are not."""
    (row,) = transfer(400, 0).found("tcp.rtt.bufferbloat")
    assert row["severity"] == "medium"
    assert transfer(150, 0).found("tcp.rtt.bufferbloat") == []
    slow = round_trips([30.0, 40.0] * 8 + [400.0] * 3)
    slow.up(20_000, ACK, 19_001, 1, size=1000)  # a burst that shows what the line can carry
    for number in range(40):
        slow.up(20_001 + number, ACK, 20_001 + number * 1000, 1, size=1000)
    assert slow.found("tcp.rtt.bufferbloat") == []


def dying(idle_s: float, *, unacked: bool = True, closed: bool = False) -> Wire:
    """A connection that falls silent with or without unacknowledged data while others go on."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=100)
    wire.down(50, ACK, 1, 101)
    wire.down(60, PSH | ACK, 1, 101, size=500)
    if not unacked:
        wire.up(61, ACK, 101, 501)
    if closed:
        wire.up(62, RST | ACK, 101, 501, win=0)
    wire.trace.session(idle_s, CLIENT, 50_000, "198.51.100.9", 443, up=b"x", down=b"y")
    return wire


def test_a_dead_connection_is_told() -> None:
    """Data unanswered and silence for over a minute; not for 50 s, not when it was reset. Acknowledged, it rests."""
    assert kinds(dying(90).found("tcp.state")) == [("tcp.state.zombie", "medium")]
    assert dying(50).found("tcp.state") == []
    assert kinds(dying(90, unacked=False).found("tcp.state")) == [("tcp.state.idle", "info")]
    assert dying(90, closed=True).found("tcp.state") == []


def test_a_dead_connection_of_days_is_told_in_days() -> None:
    """Nobody counts the minutes of a week."""
    (row,) = dying(600_000).found("tcp.state.zombie")
    assert "the last 7 days" in row["sentence"]


def test_connections_left_open_are_told_together() -> None:
    """Three that rest for two minutes are one remark; one that rests for half a minute is nothing yet."""
    for seconds, expected in ((120, [("tcp.state.idle", "info")]), (30, [])):
        trace = Trace()
        for number in range(3):
            wire = Wire(trace, sport=40_000 + number, at_ms=number * 100)
            wire.open()
            wire.up(30, ACK, 1, 1, 100)
            wire.down(50, ACK, 1, 101, 100)
            wire.up(51, ACK, 101, 101)
        trace.add(seconds, udp(CLIENT, 1, SERVER, 9, b"x"))
        rows = found(trace.report(), "tcp.state.")
        assert kinds(rows) == expected
        assert [(row["evidence"]["connections"], row["first"]["frame"]) for row in rows] == [(3, 6)] * len(expected)


def test_half_closed_connections_are_told() -> None:
    """A FIN without its counterpart for over a minute; both FINs, or a short while, are an ordinary end."""
    for idle_s, both, expected in ((90, False, 1), (50, False, 0), (90, True, 0)):
        wire = Wire()
        wire.open()
        wire.up(30, FIN | ACK, 1, 1)
        wire.down(50, ACK, 1, 2)
        if both:
            wire.down(51, FIN | ACK, 1, 2)
            wire.up(52, ACK, 2, 2)
        wire.trace.session(idle_s, CLIENT, 50_000, "198.51.100.9", 443, up=b"x", down=b"y")
        assert len(wire.found("tcp.state.half_closed")) == expected


def silent(gap_s: float, *, asked: bool) -> Wire:
    """A silence after a request, or after its answer."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=100)
    wire.down(50, ACK, 1, 101)
    if not asked:
        wire.down(60, PSH | ACK, 1, 101, size=300)
        wire.up(61, ACK, 101, 301)
    seq = 1 if asked else 301
    wire.down(61 + gap_s * 1000, PSH | ACK, seq, 101, size=300)
    wire.up(62 + gap_s * 1000, ACK, 101, seq + 300)
    return wire


def test_silence_while_an_answer_is_awaited_is_a_gap() -> None:
    """Six and forty seconds of a server that owes an answer; four seconds, and idleness between requests, are none."""
    assert kinds(silent(6, asked=True).found("tcp.gap")) == [("tcp.gap.server", "low")]
    assert kinds(silent(40, asked=True).found("tcp.gap")) == [("tcp.gap.server", "medium")]
    assert silent(4, asked=True).found("tcp.gap") == []
    assert silent(40, asked=False).found("tcp.gap") == []


def lossy(*, options: bytes, lost: int, segments: int = 200) -> Wire:
    """An upload of which some segments are sent again after a timeout."""
    wire = Wire()
    wire.open(options=options)
    at, number = 30.0, 0
    while number < segments:
        wire.up(at, ACK, 1 + number * 1000, 1, size=1000)
        if number % (segments // lost) == 0:
            wire.up(at + 250, ACK, 1 + number * 1000, 1, size=1000)
            at += 250
        wire.down(at + 20, ACK, 1, 1001 + number * 1000)
        at += 21
        number += 1
    return wire


def test_loss_by_timeouts_is_told_and_weighs_by_its_share() -> None:
    """Ten of 200 segments after a timeout each; two are too few to say anything."""
    (row,) = lossy(options=SACK, lost=10).found("tcp.retransmission")
    assert (row["kind"], row["severity"], row["count"]) == ("tcp.retransmission.rto", "medium", 10)
    assert row["evidence"]["timeouts"] == 10
    assert lossy(options=SACK, lost=2).found("tcp.retransmission") == []


def test_loss_without_sack_is_told() -> None:
    """Where segments are lost and nobody offers SACK; with SACK, or without loss, there is nothing to say."""
    assert kinds(lossy(options=PLAIN, lost=10).found("tcp.sack")) == [("tcp.sack.missing", "medium")]
    assert lossy(options=SACK, lost=10).found("tcp.sack") == []
    assert round_trips([20.0] * 60).found("tcp.sack") == []


def test_a_slow_transfer_names_its_limit() -> None:
    """200 kB at 0.1 Mbit/s with losses is held back by the network; without a reason nothing is said."""
    (row,) = lossy(options=SACK, lost=20).found("tcp.throughput")
    assert row["evidence"]["limit"] == "network"
    assert round_trips([20.0] * 200).found("tcp.throughput") == []
    assert lossy(options=SACK, lost=20, segments=70).found("tcp.throughput") == []


def test_a_sender_that_pauses_by_itself_is_limited_by_its_application() -> None:
    """Data every three seconds, each acknowledged at once, waits for nobody; it is told in the row and no finding."""
    wire = Wire()
    wire.open()
    for number in range(100):
        wire.up(100 + number * 3000, PSH | ACK, 1 + number * 1400, 1, 1400)
        wire.down(120 + number * 3000, ACK, 1, 1 + (number + 1) * 1400)
    report = wire.trace.report()
    assert report["flows"]["rows"][0]["tcp"]["orig"]["limited_by"] == "sender application"
    assert found(report, "tcp.throughput") == []


def black_hole(*, repeats: int = 4, size: int = 1400, small_first: bool = True, reported: bool = False) -> Wire:
    """A server's first large segment that never arrives, while the client's small ones do."""
    wire = Wire()
    wire.open()
    wire.up(30, PSH | ACK, 1, 1, size=500)
    wire.down(50, ACK, 1, 501)
    begin = 1
    if small_first:
        wire.down(51, PSH | ACK, 1, 501, size=200)
        wire.up(52, ACK, 501, 201)
        begin = 201
    for number in range(repeats + 1):
        wire.down(60 + 300 * (2**number - 1), PSH | ACK, begin, 501, size=size)
    wire.up(5000, ACK, 500, begin)  # a keep-alive: the client is still there
    wire.up(9000, ACK, 500, begin)
    return wire


def test_a_path_that_swallows_large_packets_is_told() -> None:
    """A full segment sent five times in vain while small ones pass; not a small one, and not after two repeats."""
    (row,) = black_hole().found("ip.pmtu")
    assert (row["kind"], row["severity"], row["confidence"]) == ("ip.pmtu.black_hole", "high", 0.5)
    assert row["evidence"] == {"bytes": 1400, "transmissions": 5}
    assert black_hole(size=600).found("ip.pmtu") == []
    assert black_hole(repeats=2).found("ip.pmtu") == []


def test_a_path_that_has_died_swallows_no_packets() -> None:
    """Large segments passed before the silence: the path is gone, not too small."""
    wire = Wire()
    wire.open()
    for number in range(10):
        wire.down(30 + number * 25, PSH | ACK, 1 + number * 1400, 1, size=1400)
        wire.up(50 + number * 25, ACK, 1, 1401 + number * 1400)
    for number in range(5):
        wire.down(400 + 300 * (2**number - 1), PSH | ACK, 14_001, 1, size=1400)
    wire.up(9000, ACK, 0, 14_001)
    assert wire.found("ip.pmtu") == []
