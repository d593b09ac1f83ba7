"""One connection written packet by packet, for tests that need an exact sequence of events."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.analysis.report import Finding, Report
from tests.gateway.analysis.packets import ACK, SYN, Trace, tcp

CLIENT, SERVER = "192.168.7.10", "198.51.100.20"
SCALE = bytes.fromhex("020405b4" + "01030307")  # MSS 1460, window scale 7
PLAIN = bytes.fromhex("020405b4")


class Wire:
    """Times are in milliseconds, sequence numbers relative to the SYNs."""

    def __init__(
        self,
        trace: Trace | None = None,
        *,
        sport: int = 40_000,
        port: int = 443,
        server: str = SERVER,
        at_ms: float = 0,
    ) -> None:
        self.trace = trace if trace is not None else Trace()
        self._up = (CLIENT, sport, server, port)
        self._down = (server, port, CLIENT, sport)
        self._at_ms = at_ms

    def up(
        self,
        ms: float,
        flags: int,
        seq: int,
        ack: int,
        size: int = 0,
        win: int = 500,
        options: bytes = b"",
        ttl: int = 64,
    ) -> None:
        """A segment of the client."""
        self._add(ms, self._up, flags, seq, ack, size, win, options, ttl)

    def down(
        self,
        ms: float,
        flags: int,
        seq: int,
        ack: int,
        size: int = 0,
        win: int = 500,
        options: bytes = b"",
        ttl: int = 64,
    ) -> None:
        """A segment of the server."""
        self._add(ms, self._down, flags, seq, ack, size, win, options, ttl)

    def open(self, rtt_ms: float = 20, options: bytes = SCALE) -> None:
        """The handshake, seen near the client; it ends 1 ms after `rtt_ms`."""
        self.up(0, SYN, 0, 0, win=60_000, options=options)
        self.down(rtt_ms, SYN | ACK, 0, 1, win=60_000, options=options)
        self.up(rtt_ms + 1, ACK, 1, 1)

    def labels(self) -> dict[str, list[int]]:
        """The frames of each label."""
        return self.trace.report()["tcp"]["label_frames"]

    def found(self, *beginnings: str, **overrides: str) -> list[Finding]:
        """The findings whose kind begins so."""
        return found(self.trace.report(**overrides), *beginnings)

    def _add(
        self,
        ms: float,
        ends: tuple[str, int, str, int],
        flags: int,
        seq: int,
        ack: int,
        size: int,
        win: int,
        options: bytes,
        ttl: int,
    ) -> None:
        ident = self.trace.next_id()
        packet = tcp(*ends, flags, seq, ack, bytes(size), win=win, options=options, ip_id=ident, ttl=ttl)
        self.trace.add((self._at_ms + ms) / 1000, packet)


def found(report: Report, *beginnings: str) -> list[Finding]:
    """The findings whose kind begins so."""
    return [row for row in report["findings"] if row["kind"].startswith(beginnings)]


def kinds(rows: Iterable[Finding]) -> list[tuple[str, str]]:
    """Kind and severity of findings."""
    return [(row["kind"], row["severity"]) for row in rows]
