"""The exporter: one path, three answers, and patience with nobody."""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from gateway import metrics_http
from gateway.control.protocol import UNREACHABLE, ControlError
from gateway.metrics_http import MetricsServer, parse_listen, read_from
from tests.gateway.cli.fake_daemon import ANSWERS, running


@contextmanager
def exporting(path: Path) -> Iterator[tuple[str, int]]:
    """The exporter of the daemon at `path`, on a port of its own."""
    with MetricsServer("127.0.0.1", 0, read_from(path)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="exporter")
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def get(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = HTTPConnection(*address, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_served_at_one_path(tmp_path: Path) -> None:
    """GET /metrics is the daemon's text; other paths do not exist, other methods are refused."""
    path = tmp_path / "control.sock"
    text = ANSWERS["metrics.text"]
    assert isinstance(text, dict)
    with running(path) as daemon, exporting(path) as address:
        assert get(address, "/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", text["text"])
        assert get(address, "/metrics?x=1")[0] == 200
        for other in ("/", "/metrics/", "/../metrics", "/%2e%2e/etc/passwd", "/metrics%00"):
            assert get(address, other)[0] == 404
        for method in ("POST", "PUT", "DELETE", "CONNECT"):
            assert get(address, "/metrics", method)[0] == 501
        assert {method for method, _ in daemon.asked} == {"metrics.text"}


def test_a_daemon_that_is_away_is_503(tmp_path: Path) -> None:
    """While the daemon is away or refuses, a scrape says so; once it is back, metrics are."""
    path = tmp_path / "control.sock"
    with exporting(path) as address:
        status, _, body = get(address, "/metrics")
        assert status == 503
        assert "posternd is not running" in body
        with running(path) as daemon:
            assert get(address, "/metrics")[0] == 200
            daemon.answers["metrics.text"] = {"text": 5}
            assert get(address, "/metrics")[0] == 503
            daemon.answers["metrics.text"] = ControlError(UNREACHABLE, "no")
            assert get(address, "/metrics")[0] == 503


def test_hostile_scrapers_hurt_only_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense, endless headers and connections that say nothing are answered or cut; a good scrape still works."""
    monkeypatch.setattr(metrics_http, "SCRAPE_TIMEOUT_S", 0.3)
    path = tmp_path / "control.sock"
    with running(path), exporting(path) as address:
        silent = [socket.create_connection(address, timeout=20) for _ in range(metrics_http.MAX_THREADS + 4)]
        for octets in (
            b"\x00\xff\xfe\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        ):
            with socket.create_connection(address, timeout=20) as peer:
                peer.sendall(octets)
                assert peer.recv(65536)
        assert get(address, "/metrics")[0] == 200
        for peer in silent:
            peer.close()


def test_the_address_is_parsed() -> None:
    """IPv4 and IPv6 with a port; anything else is named."""
    assert parse_listen("127.0.0.1:2112") == ("127.0.0.1", 2112)
    assert parse_listen("[::1]:2112") == ("::1", 2112)
    for wrong in ("2112", "localhost:2112", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:99999", "127.0.0.1:-1", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an address and port"):
            parse_listen(wrong)


def test_a_taken_port_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A port that another program has is told, with status 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert metrics_http.main(["--listen", f"127.0.0.1:{port}", "--socket", str(tmp_path / "none")]) == 1
    assert "metrics cannot be served" in caplog.text
