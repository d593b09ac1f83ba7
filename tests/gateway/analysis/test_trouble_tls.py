"""Detectors of TLS and QUIC trouble: a clear case, one under the threshold, a look-alike that stays silent."""

from __future__ import annotations

import struct

import pytest

from gateway.analysis.report import Report
from tests.gateway.analysis.packets import ACK, PSH, Trace, tcp
from tests.gateway.analysis.wire import CLIENT, SERVER, found, kinds


def record(kind: int, body: bytes) -> bytes:
    """A TLS record."""
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


def hello(kind: int, version: int) -> bytes:
    """A ClientHello (1) or ServerHello (2) with an empty list of extensions."""
    suites = struct.pack(">HHBB", 2, 0xC02F, 1, 0) if kind == 1 else struct.pack(">HB", 0xC02F, 0)
    body = struct.pack(">H", version) + bytes(32) + b"\0" + suites + b"\0\0"
    return record(22, bytes([kind]) + len(body).to_bytes(3, "big") + body)


def opened(*, think_s: float = 0.01, version: int = 0x0303, alert: int | None = None) -> Report:
    """A TLS connection whose server answers after a while, perhaps with an alert."""
    trace = Trace()
    answer = hello(2, version) if alert is None else record(21, bytes([2, alert]))
    trace.session(0.0, CLIENT, 41_000, SERVER, 443, up=hello(1, version), down=answer, think=think_s)
    return trace.report()


def test_a_slow_hello_weighs_by_its_length() -> None:
    """2.5 s and 0.7 s beyond the round trip are the server's time; 0.4 s is not told."""
    assert kinds(found(opened(think_s=2.5), "tls.hello")) == [("tls.hello.slow", "medium")]
    assert kinds(found(opened(think_s=0.7), "tls.hello")) == [("tls.hello.slow", "low")]
    assert found(opened(think_s=0.4), "tls.hello") == []


@pytest.mark.parametrize("size", [1, 3, 6, 40])
def test_a_hello_in_pieces_of_any_size_is_one_hello(size: int) -> None:
    """Even when its first segment is a single byte, which could be anything."""
    trace, data = Trace(), hello(1, 0x0303)
    for at in range(0, len(data), size):
        trace.add(at / 1000, tcp(CLIENT, 41_000, SERVER, 443, PSH | ACK, 1 + at, 1, data[at : at + size]))
    report = trace.report()
    assert report["tls"]["total"] == 1
    assert report["flows"]["rows"][0]["service"] == "tls"


def test_an_old_version_is_told() -> None:
    """TLS 1.1 is old, TLS 1.2 is not."""
    assert kinds(found(opened(version=0x0302), "tls.version")) == [("tls.version.old", "low")]
    assert found(opened(), "tls.version") == []


def test_an_alert_is_named() -> None:
    """A handshake that ends with an alert is told with its name; closing is no failure."""
    (row,) = found(opened(alert=48), "tls.alert")
    assert row["severity"] == "medium"
    assert "unknown certificate authority" in row["sentence"]
    assert found(opened(alert=0), "tls.alert") == []
