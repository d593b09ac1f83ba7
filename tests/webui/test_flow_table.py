"""The table of flows: filtered, sorted, the unknown last."""

from __future__ import annotations

from typing import Any

import pytest

from webui import flow_table


def row(uid: str, **changes: Any) -> dict[str, Any]:
    """A flow row."""
    return {
        "uid": uid,
        "proto": "tcp",
        "orig_host": "10.0.0.6",
        "orig_port": 40000,
        "resp_host": "198.51.100.7",
        "resp_port": 443,
        "service": "tls",
        "name": "Example.org",
        "sni": None,
        "conn_state": "SF",
        "start": 1.0,
        "duration": 2.0,
        "orig_bytes": 10,
        "resp_bytes": 20,
        "orig_pkts": 1,
        "resp_pkts": 2,
        "retrans": 0,
        "ooo": 0,
        "rtt_ms": None,
        "zero_window": 0,
        "trouble": 0.0,
        **changes,
    }


ROWS = [
    row("C1", rtt_ms=10.0, trouble=1.0, start=0.0, duration=0.5, name="b.example"),
    row("C2", rtt_ms=None, trouble=5.0, resp_bytes=900, name=None),
    row("C3", rtt_ms=3.0, proto="udp", resp_port=53, service="dns", start=9.0, name="A.example"),
]


def uids(**options: Any) -> list[str]:
    """Which flows are left, in order."""
    return [str(found["uid"]) for found in flow_table.select(ROWS, **options)]


def test_the_worst_flow_comes_first() -> None:
    """Unless something else is asked for."""
    assert uids() == ["C2", "C1", "C3"]
    assert uids(sort="bytes") == ["C2", "C1", "C3"]
    assert uids(sort="start", descending=False) == ["C1", "C2", "C3"]


def test_what_has_no_value_comes_last_either_way() -> None:
    """A round trip or name that is not known is neither large nor small; letters sort without regard to case."""
    assert uids(sort="rtt") == ["C1", "C3", "C2"]
    assert uids(sort="rtt", descending=False) == ["C3", "C1", "C2"]
    assert uids(sort="name", descending=False) == ["C3", "C1", "C2"]


def test_every_word_must_occur() -> None:
    """In address, port, service, name or state."""
    assert uids(search=":53 DNS") == ["C3"]
    assert uids(search="198.51.100.7 b.exam") == ["C1"]
    assert uids(search="nowhere") == []
    assert uids(proto="udp") == ["C3"]


def test_a_flow_is_in_a_stretch_of_time_when_it_was_active_then() -> None:
    """Also when it began before."""
    assert uids(span=(2.5, 4.0)) == ["C2"]
    assert uids(span=(None, 0.2)) == ["C1"]
    assert uids(span=(9.5, None)) == ["C3"]


@pytest.mark.parametrize("order", sorted(flow_table.ORDERS))
def test_every_order_can_be_asked_for(order: str) -> None:
    """And loses no row."""
    assert sorted(uids(sort=order)) == sorted(uids(sort=order, descending=False)) == ["C1", "C2", "C3"]


def test_an_empty_table_can_be_sorted() -> None:
    """A capture may hold no flow at all."""
    assert flow_table.select([]) == []
