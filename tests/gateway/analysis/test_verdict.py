"""The verdict: who is to blame first, then who is not, and neither without evidence."""

from __future__ import annotations

from ipaddress import IPv4Address

from gateway.analysis.report import Report, VerdictSentence
from tests.gateway.analysis.packets import ACK, PSH, Trace, tcp
from tests.gateway.analysis.wire import CLIENT, SERVER, Wire

PAGE = bytes(400_000)
GET = b"GET /file HTTP/1.1\r\nHost: www.example.net\r\n\r\n"
FOUND = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 400000\r\n\r\n"


def downloads(think_s: float = 0.004, count: int = 4) -> Trace:
    """Pages of 286 segments each at 20 ms round trip, by a server that thinks before each."""
    trace = Trace()
    for number in range(count):
        trace.session(2.0 * number, CLIENT, 40_000 + number, SERVER, 80, GET, FOUND + PAGE, think=think_s)
    return trace


def about(report: Report) -> list[tuple[str, bool]]:
    """Of which part each sentence speaks, and whether it clears it."""
    return [(row["about"], row["clear"]) for row in report["verdict"]]


def of(report: Report, part: str) -> VerdictSentence:
    """The sentence about a part."""
    (row,) = [row for row in report["verdict"] if row["about"] == part]
    return row


def test_where_nothing_is_wrong_server_and_client_are_cleared_with_numbers() -> None:
    """The first sentence has the network's numbers already."""
    report = downloads().report()
    assert about(report) == [("none", False), ("server", True), ("client", True)]
    assert "0 of 1,148 TCP data segments were sent again" in report["verdict"][0]["sentence"]
    server = of(report, "server")
    assert server["sentence"].endswith("at 20 ms round trip (median of 4 answers).")
    assert (server["numbers"]["n"], server["frame"], server["findings"]) == (4, None, [])
    assert of(report, "client")["numbers"] == {"zero_windows": 0, "segments": 1148}


def test_a_slow_server_is_blamed_and_path_and_client_are_cleared() -> None:
    """Two seconds of thinking at 20 ms round trip: the path lost nothing, no window closed."""
    report = downloads(think_s=2.0).report()
    assert about(report) == [("server", False), ("network", True), ("client", True)]
    assert of(report, "server")["frame"] is not None
    network = of(report, "network")
    assert network["sentence"].startswith("Network: 0 of 1,148 TCP data segments were lost, at ")
    assert network["numbers"]["rate"] == 0


def test_loss_is_the_networks_and_the_server_is_cleared() -> None:
    """Every fiftieth segment of the server is missing and comes again a round trip later."""
    trace = Trace()
    wire = Wire(trace, port=80)
    wire.open()
    trace.add(0.022, tcp(CLIENT, 40_000, SERVER, 80, PSH | ACK, 1, 1, GET, win=500, ip_id=trace.next_id()))
    asked = 1 + len(GET)
    trace.add(0.045, tcp(SERVER, 80, CLIENT, 40_000, PSH | ACK, 1, asked, FOUND, win=500, ip_id=trace.next_id()))
    start, late = 1 + len(FOUND), []
    for number in range(286):
        if number % 50 == 40:
            late.append(number)
        else:
            wire.down(50 + number, ACK, start + number * 1400, asked, 1400)
        if late and number % 50 in (41, 42, 43, 44):
            wire.up(50.2 + number, ACK, asked, start + late[-1] * 1400)
        elif late and number % 50 == 49:
            wire.down(50.4 + number, ACK, start + late[-1] * 1400, asked, 1400)
            wire.up(50.6 + number, ACK, asked, start + (number + 1) * 1400)
    report = trace.report()
    first, *others = about(report)
    assert first == ("network", False)
    assert others == [("server", True), ("client", True)]
    assert report["verdict"][0]["frame"] is not None


def test_a_receiver_that_stops_reading_is_not_cleared() -> None:
    """A window of zero is the client's; the path that lost nothing is cleared beside it."""
    trace = downloads()
    wire = Wire(trace, sport=50_000, at_ms=20_000)
    wire.open()
    for number in range(20):
        wire.down(30 + number, ACK, 1 + number * 1400, 1, 1400)
    wire.up(51, ACK, 1, 1 + 20 * 1400, win=0)
    for probe in range(6):
        wire.down(300 + probe * 400, ACK, 20 * 1400, 1, 1)
        wire.up(301 + probe * 400, ACK, 1, 1 + 20 * 1400, win=0)
    wire.up(3000, ACK, 1, 1 + 20 * 1400, win=500)
    report = trace.report()
    assert ("client", False) in about(report)
    assert ("client", True) not in about(report)
    assert ("server", True) in about(report)


def test_too_little_traffic_clears_nobody() -> None:
    """A handful of segments says nothing about anybody."""
    trace = Trace()
    trace.session(0, CLIENT, 40_000, SERVER, 80, GET, FOUND + bytes(5000))
    assert about(trace.report()) == [("none", False)]


def test_half_a_conversation_clears_nobody() -> None:
    """Without the other direction nobody can know what was lost or how long who waited."""
    both, half = downloads(), Trace()
    source = IPv4Address(CLIENT).packed
    half.packets = [(at, packet) for at, packet in both.ordered() if packet[26:30] != source]
    assert about(half.report()) == [("capture", False)]
