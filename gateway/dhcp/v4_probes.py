"""Addresses being asked for by ARP before they are offered (RFC 5227 §2.1.1), and what was learned.

Pure state. Each address is asked for twice within the probe time, any number of addresses at once. All probes take the
same time, so the order in which they began is the order in which they are due.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from gateway.dhcp.leases import Lease
from gateway.dhcp.v4_codec import Message

FRESH_S: Final = 300.0
"""How long an address that nobody answered for may be offered without asking again."""


@dataclass(slots=True, eq=False)
class Probe:
    """An address held for a client while it is asked for, and the message that waits."""

    lease: Lease
    request: Message
    tried: int  # how many addresses were tried for this client in a row, this one included


class ProbeQueue:
    """The probes under way, and the addresses that were found free lately."""

    def __init__(self, timeout_s: float) -> None:
        self._half_s = timeout_s / 2
        self._waiting: dict[int, Probe] = {}
        self._queue: deque[tuple[float, Probe, bool]] = deque()  # when due, whether it was asked for twice by then
        self._free_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: object) -> bool:
        """Whether this address is being asked for."""
        return number in self._waiting

    def of_number(self, number: int) -> Probe | None:
        """The probe under way for an address."""
        return self._waiting.get(number)

    def start(self, probe: Probe, now: float) -> None:
        """Begin to wait; the caller has the first question sent."""
        self._waiting[probe.lease.number] = probe
        self._queue.append((now + self._half_s, probe, False))

    def stop(self, number: int) -> None:
        """Wait for this address no longer."""
        self._waiting.pop(number, None)

    def next_due(self) -> float | None:
        """When `take_due` may next have something."""
        return self._queue[0][0] if self._queue else None

    def take_due(self, now: float) -> list[tuple[Probe, bool]]:
        """Probes to ask for again (False) and those that nobody answered (True), in the order they began."""
        due: list[tuple[Probe, bool]] = []
        while self._queue and self._queue[0][0] <= now:
            _, probe, asked_twice = self._queue.popleft()
            number = probe.lease.number
            if self._waiting.get(number) is not probe:
                continue
            due.append((probe, asked_twice))
            if asked_twice:
                del self._waiting[number]
                self._free_at[number] = now
            else:
                self._queue.append((now + self._half_s, probe, True))
        return due

    def is_fresh(self, number: int, now: float) -> bool:
        """Whether the address was found free so lately that it need not be asked for."""
        free_at = self._free_at.get(number)
        return free_at is not None and now - free_at < FRESH_S

    def forget(self, number: int) -> None:
        """What was learned of the address no longer holds: somebody has it now."""
        self._free_at.pop(number, None)
