"""When packets came and how much of them was recorded: what a record says before anybody looks into its packet.

The readers of both formats keep it while they walk. The usual record is the next in the running bin of the series and
costs them one comparison; `turn` is for the others. A bin is 100 ms, doubled whenever there are too many.
"""

from __future__ import annotations

from typing import Final

from gateway.analysis.records import Notes

SECOND: Final = 1_000_000_000
_MOST_BINS: Final = 20_000
_MOST_PAUSES: Final = 100


class Timeline:
    """Times and sizes of the records of one file. `pause_ns` is the shortest silence to be noted."""

    def __init__(self, notes: Notes, pause_ns: int) -> None:
        self._notes = notes
        self._pause_ns = pause_ns
        self.frames = 0
        self.wire_bytes = 0
        self.cut = 0
        self.cut_frame = self.cut_ns = 0  # the first of them, and its time
        self.cut_bytes = 0  # on the wire and not in the file; negative where records hold more than was sent
        self.first_ns: int | None = None
        self.last_ns = 0  # of the record before, in file order
        self.max_ns = 0
        self.backwards = 0
        self.backwards_ns = 0  # the largest step back
        self.backwards_first_ns = 0  # when the first one was noticed
        self.pauses: list[tuple[int, int, int, int]] = []  # gap in ns, frame before, frame after, when it ended
        self.bins: dict[int, list[int]] = {}  # [packets, bytes, first frame] by number of the bin
        self.bin_ns = SECOND // 10
        self.until = 0  # a record not before `last_ns` and before this is in the running bin
        self._low = 0
        self._frames_before = 0  # of the running bin
        self._bytes_before = 0

    def turn(self, t: int, previous: int, frame: int, bytes_before: int) -> int:
        """Take a record that is older than the one before it, or outside the running bin; returns the new `until`.

        `bytes_before` are those on the wire of all records before this one, which is number `frame`.
        """
        if self.first_ns is None:
            self.first_ns = previous = t
        elif t < previous:
            self.backwards += 1
            self.backwards_ns = max(self.backwards_ns, previous - t)
            if self.backwards == 1:
                self.backwards_first_ns = t
                sentence = "the clock runs backwards between two packets"
                self._notes.add("clock-backwards", sentence, None, frame, 0)
        if not self._low <= t < self.until:
            if frame > 1:
                self._close_bin(frame, bytes_before)
                silence = t - previous
                if silence > self._pause_ns and len(self.pauses) < _MOST_PAUSES:
                    self.pauses.append((silence, frame - 1, frame, t))
            self._open_bin(t, previous)
        return self.until

    def cut_record(self, captured: int, wire: int, frame: int, t: int) -> None:
        """Take a record that does not hold what was on the wire, number `frame`."""
        if captured < wire:
            self.cut += 1
            if not self.cut_frame:
                self.cut_frame, self.cut_ns = frame, t
        self.cut_bytes += wire - captured

    def close(self) -> None:
        """Close the running bin when the file has ended."""
        self._close_bin(self.frames + 1, self.wire_bytes)
        self._open_bin(self.last_ns, self.last_ns)

    def _close_bin(self, frame: int, bytes_before: int) -> None:
        number = self._low // self.bin_ns
        row = self.bins.get(number)
        packets, octets = frame - 1 - self._frames_before, bytes_before - self._bytes_before
        if row is None:
            self.bins[number] = [packets, octets, self._frames_before + 1]
        else:
            row[0] += packets
            row[1] += octets
        self._frames_before, self._bytes_before = frame - 1, bytes_before

    def _open_bin(self, t: int, previous: int) -> None:
        self.max_ns = max(self.max_ns, t, previous)
        if len(self.bins) > _MOST_BINS:
            self.bin_ns *= 2
            merged: dict[int, list[int]] = {}
            for number, (packets, octets, first) in self.bins.items():
                row = merged.setdefault(number // 2, [0, 0, first])
                row[0] += packets
                row[1] += octets
            self.bins = merged
        self._low = t // self.bin_ns * self.bin_ns
        self.until = self._low + self.bin_ns
