"""Random connections, labelled by tshark and by us: every frame of every label is the same.

What the two define differently on purpose does not happen here: resets with numbers of their own, acknowledgements of
what was never recorded, copies of packets.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.gateway.analysis.packets import ACK, FIN, PSH, SYN, Trace
from tests.gateway.analysis.wire import Wire

TSHARK = shutil.which("tshark")
LABELS: Final = (
    *("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment"),
    *("duplicate_ack", "zero_window", "window_full", "window_update", "keep_alive", "keep_alive_ack"),
    *("zero_window_probe", "reused_ports"),
)
CONNECTIONS: Final = 12


class Side:
    """What one end has sent, and what it has acknowledged."""

    def __init__(self, generator: random.Random) -> None:
        near_the_end = generator.random() < 0.4
        self.next = generator.randrange(1 << 32) if not near_the_end else (1 << 32) - generator.randrange(1, 9000)
        self.scale = generator.choice((None, 0, 3, 7))
        self.win = generator.choice((500, 1000, 8000, 65_535))
        self.sent: list[tuple[int, int]] = []
        self.acked = 0  # of the other side

    def options(self) -> bytes:
        """What its SYN offers."""
        return b"\x02\x04\x05\xb4" + (b"\1\3\3" + bytes([self.scale]) if self.scale is not None else b"")


class Talk:
    """One connection in the making, with losses, repeats, probes and closed windows."""

    def __init__(self, generator: random.Random, trace: Trace, number: int) -> None:
        self._random = generator
        self._wire = Wire(trace, sport=40_000 + number, at_ms=number * 120_000)
        self._ms = 0.0
        self._sides = (Side(generator), Side(generator))

    def run(self, steps: int) -> None:
        """Open, and then do one thing after the other."""
        client, server = self._sides
        for _ in range(self._random.choice((1, 1, 1, 2))):
            self._send(0, SYN, client.next, 0, options=client.options())
        client.next += 1
        self._send(1, SYN | ACK, server.next, client.next, options=server.options())
        server.next += 1
        client.acked, server.acked = server.next, client.next
        if self._random.random() < 0.95:
            self._send(0, ACK, client.next, client.acked)
        for _ in range(steps):
            way = self._random.randrange(2)
            step = self._random.choice(
                (self._data, self._data, self._acknowledge, self._again, self._window, self._idle)
            )
            step(way, self._sides[way], self._sides[1 - way])
        self._send(0, FIN | ACK, client.next, client.acked)

    def _send(self, way: int, flags: int, seq: int, ack: int, size: int = 0, options: bytes = b"") -> None:
        self._ms += self._random.choice((0.1, 0.4, 1, 2, 10, 30, 60, 210, 500, 1300)) * self._random.uniform(0.8, 1.2)
        method = (self._wire.up, self._wire.down)[way]
        method(self._ms, flags, seq, ack, size, self._sides[way].win, options)

    def _data(self, way: int, own: Side, other: Side) -> None:
        for _ in range(self._random.choice((1, 1, 2, 4))):
            size = self._random.choice((1, 10, 536, 1000, 1448, 1448, 5000))
            own.sent.append((own.next, size))
            if self._random.random() < 0.9:
                self._send(way, ACK | PSH * self._random.randrange(2), own.next, own.acked, size)
            own.next += size

    def _acknowledge(self, way: int, own: Side, other: Side) -> None:
        if other.sent and self._random.random() < 0.5:
            own.acked = other.sent[-1][0]  # a hole before the newest segment
            for _ in range(self._random.choice((1, 2, 3, 4))):
                self._send(way, ACK, own.next, own.acked)
            if self._random.random() < 0.6:
                self._send(1 - way, ACK, own.acked, other.acked, other.sent[-1][1])
        else:
            self._send(way, ACK, own.next, own.acked)

    def _again(self, way: int, own: Side, other: Side) -> None:
        if own.sent:
            seq, size = self._random.choice(own.sent[-5:])
            part = self._random.choice((0, 0, 0, size // 2))
            self._send(way, ACK, seq + part, own.acked, size - part)

    def _window(self, way: int, own: Side, other: Side) -> None:
        own.win = self._random.choice((0, 0, 1000, 1001, 8000, 65_535))
        self._send(way, ACK, own.next, own.acked)
        if own.win == 0:
            for _ in range(self._random.randrange(3)):
                self._send(1 - way, ACK, other.next, other.acked, 1)
                self._send(way, ACK, own.next, own.acked)
            own.win = self._random.choice((0, 1000))
            self._send(way, ACK, own.next, own.acked)

    def _idle(self, way: int, own: Side, other: Side) -> None:
        self._send(way, ACK, own.next - 1, own.acked, self._random.randrange(2))
        self._send(1 - way, ACK, other.next, other.acked)


def labels_of_tshark(path: Path) -> dict[str, list[int]]:
    """The frames tshark puts under each label."""
    assert TSHARK is not None
    fields = [argument for label in LABELS for argument in ("-e", f"tcp.analysis.{label}")]
    command = [TSHARK, "-n", "-r", str(path), "-T", "fields", "-e", "frame.number", *fields]
    told: dict[str, list[int]] = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        frame, *values = line.split("\t")
        for label, value in zip(LABELS, values, strict=False):
            if value:
                told.setdefault(label, []).append(int(frame))
    return told


@pytest.mark.skipif(TSHARK is None, reason="no tshark here (apt-get install tshark)")
@pytest.mark.parametrize("seed", range(6))
def test_random_connections_are_labelled_as_tshark_does(tmp_path: Path, seed: int) -> None:
    """A dozen connections of sixty steps each; only the definitions that differ on purpose may differ."""
    generator = random.Random(seed)
    trace = Trace()
    for number in range(CONNECTIONS):
        Talk(generator, trace, number).run(60)
    path = tmp_path / "random.pcap"
    path.write_bytes(trace.pcap())
    told = labels_of_tshark(path)
    ours = {label: frames for label, frames in trace.report()["tcp"]["label_frames"].items() if label in LABELS}
    assert sum(map(len, told.values())) > 300
    # Our lists end at 200 frames.
    assert {label: frames[:200] for label, frames in told.items()} == ours
