"""Rows of flows, services, hosts and names: what each holds, and that none shares what another holds."""

from __future__ import annotations

from typing import get_type_hints

from gateway.analysis.report import DirectionRow
from tests.gateway.analysis.packets import ACK, PSH, SYN, Trace, analyse, dns_answer, dns_query, tcp, udp

CLIENT, SERVER = "10.9.0.2", "198.51.100.20"


def talk(trace: Trace, t: float, sport: int, port: int, source: str = CLIENT, target: str = SERVER) -> None:
    """A few bytes each way on connected ports, without a beginning that says what they are."""
    trace.session(t, source, sport, target, port, b"\1\2\3", b"\4\5\6\7")


def test_each_direction_has_all_fields_and_its_own_row() -> None:
    """Quiet directions are copies of one row: all fields are there, and none is shared with another flow."""
    trace = Trace()
    talk(trace, 0.0, 40_000, 9_000)
    talk(trace, 1.0, 40_001, 9_000)
    flows = analyse(trace.pcap())["flows"]["rows"]
    rows = [flow["tcp"][side] for flow in flows for side in ("orig", "resp")]
    assert len({id(row) for row in rows}) == len(rows) == 4
    for row in rows:
        assert list(row) == list(get_type_hints(DirectionRow))
        assert (row["segments"], row["retrans"], row["limited_by"]) == (1, 0, None)
    assert sorted(row["unique_bytes"] for row in rows) == [3, 3, 4, 4]


def test_a_direction_that_was_not_recorded_is_told_as_empty() -> None:
    """Where only the client was recorded, the server's row counts nothing and knows no window."""
    trace = Trace()
    for number in range(4):
        trace.add(number * 0.1, tcp(CLIENT, 40_000, SERVER, 9_000, PSH | ACK, 1 + number * 5, 1, b"hello"))
    (flow,) = analyse(trace.pcap())["flows"]["rows"]
    sent, heard = flow["tcp"]["orig"], flow["tcp"]["resp"]
    assert (sent["segments"], sent["unique_bytes"]) == (4, 20)
    assert {name for name, value in heard.items() if value} == set()


def test_a_side_that_was_not_recorded_shows_no_options_of_the_other() -> None:
    """Of the side that was recorded the offers in its SYN are told; nobody knows what the other one offered."""
    options = bytes.fromhex("020405b40402080a000000010000000001030307")
    for server in (False, True):
        trace = Trace()
        ways = (SERVER, 9_000, CLIENT, 40_000) if server else (CLIENT, 40_000, SERVER, 9_000)
        trace.add(0.0, tcp(*ways, SYN | ACK if server else SYN, 1, 1 if server else 0, options=options))
        trace.add(0.1, tcp(*ways, PSH | ACK, 2, 1, b"hello"))
        (flow,) = analyse(trace.pcap())["flows"]["rows"]
        told, silent = (flow["tcp"][side] for side in (("resp", "orig") if server else ("orig", "resp")))
        assert (told["mss"], told["sack"], told["timestamps"]) == (1460, True, True)
        assert (silent["mss"], silent["sack"], silent["timestamps"]) == (None, None, None)


def test_flows_are_listed_by_trouble_then_size_and_the_first_come_first() -> None:
    """An attempt that was repeated comes before quiet flows; of those the larger one, of equals the earlier one."""
    trace = Trace()
    for number in range(3):
        talk(trace, number, 40_000 + number, 9_000)
    trace.session(3.5, CLIENT, 40_009, SERVER, 9_000, b"x" * 3_000, b"y" * 3_000)
    for number in range(3):
        trace.add(5.0 + number, tcp(CLIENT, 41_000, SERVER, 9_001, SYN, 5))
    rows = analyse(trace.pcap())["flows"]["rows"]
    assert [row["orig_port"] for row in rows] == [41_000, 40_009, 40_000, 40_001, 40_002]


def test_an_active_data_connection_of_ftp_counts_as_ftp() -> None:
    """A server that opens a connection from port 20 is known by that port in the table of services."""
    trace = Trace()
    talk(trace, 0.0, 20, 51_000, SERVER, CLIENT)
    (row,) = analyse(trace.pcap())["services"]
    assert (row["service"], row["port"], row["why"], row["flows"]) == ("ftp-data", 51_000, "port", 1)


def test_services_without_a_name_are_put_together() -> None:
    """Flows of which nothing tells the use are one row of each protocol, whatever their ports."""
    trace = Trace()
    talk(trace, 0.0, 40_000, 9_000)
    talk(trace, 1.0, 40_001, 9_001)
    trace.add(2.0, udp(CLIENT, 40_000, SERVER, 9_000, b"?"))
    rows = {(row["service"], row["proto"]): row for row in analyse(trace.pcap())["services"]}
    assert rows.keys() == {("other", "tcp"), ("other", "udp")}
    assert rows["other", "tcp"]["flows"] == 2
    assert {row["port"] for row in rows.values()} == {0}


def test_a_host_that_talks_to_itself_and_pairs_in_both_orders_are_counted_once() -> None:
    """Pairs are the same whoever began; a flow of a host with itself counts on both of its sides."""
    trace = Trace()
    trace.add(0.0, udp(CLIENT, 1_000, SERVER, 9_000, b"12345678"))
    trace.add(0.1, udp(SERVER, 1_001, CLIENT, 9_000, b"1234"))
    trace.add(0.2, udp(CLIENT, 1_002, CLIENT, 9_000, b"12"))
    report = analyse(trace.pcap())
    pairs = {(row["a"], row["b"]): row for row in report["pairs"]}
    both = pairs[CLIENT, SERVER]
    assert (both["flows"], both["packets"]) == (2, 2)
    assert both["a_to_b_bytes"] - both["b_to_a_bytes"] == 4
    own = pairs[CLIENT, CLIENT]
    assert (own["flows"], own["packets"]) == (1, 1)
    hosts = {row["host"]: row for row in report["hosts"]}
    assert (hosts[CLIENT]["tx_packets"], hosts[CLIENT]["rx_packets"], hosts[CLIENT]["flows"]) == (2, 2, 4)


def test_a_name_is_told_by_who_asked() -> None:
    """An answer nobody asked for has its receiver as client, as a question has its sender."""
    trace = Trace()
    trace.add(0.0, udp(CLIENT, 40_000, "10.9.0.53", 53, dns_query(1, "a.example.net")))
    trace.add(0.1, udp("10.9.0.53", 53, CLIENT, 40_000, dns_answer(1, "a.example.net")))
    trace.add(0.2, udp("10.9.0.53", 53, CLIENT, 40_001, dns_answer(2, "b.example.net", rcode=9)))
    rows = analyse(trace.pcap())["dns"]["rows"]
    assert [(row["client"], row["client_port"], row["server"]) for row in rows] == [
        (CLIENT, 40_000, "10.9.0.53"),
        (CLIENT, 40_001, "10.9.0.53"),
    ]
    assert [(row["status"], row["rcode"], row["type"]) for row in rows] == [
        ("ok", "NOERROR", "A"),
        ("unsolicited", "9", "A"),
    ]


def test_the_first_of_repeated_header_fields_counts_whatever_its_letters() -> None:
    """Of two lengths in a header the first is taken; fields that are not read do not disturb."""
    answer = b"HTTP/1.1 200 OK\r\nX-Other: 1\r\nCONTENT-length : 4\r\ncontent-length: 400\r\n\r\nbody"
    trace = Trace()
    request = b"GET /a?secret=1 HTTP/1.1\r\nhOsT:  www.example.net:80 \r\nHost: other\r\n\r\n"
    trace.session(0.0, "10.9.0.2", 40_000, "198.51.100.20", 80, request, answer)
    (row,) = analyse(trace.pcap())["http"]["rows"]
    assert (row["host"], row["path"], row["response_bytes"], row["user_agent"]) == ("www.example.net:80", "/a", 4, None)
