"""The last 24 hours in one point a minute, for the dashboard. Pure state, 80 KB; the file is written by `history_file`.

A point belongs to a minute of the wall clock. Minutes in which the gateway did not run, or before the clock was set
right, have no point. Rates are kept as what was carried in the minute, so that a longer span is a sum.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from gateway.values import value_class

MINUTES: Final = 1440
MINUTE_S: Final = 60
SERIES: Final = {
    "online": "clients that are online",
    "upload_bytes": "octets from clients in that minute",
    "download_bytes": "octets to clients in that minute",
    "logins": "logins that succeeded in that minute",
    "failures": "logins that failed in that minute",
    "memory_bytes": "memory of posternd",
    "load": "load average of one minute, in hundredths",
}
SUMMED: Final = frozenset({"upload_bytes", "download_bytes", "logins", "failures"})  # the others are averaged
_MAGIC: Final = b"PHIS\x01"
_HEADER: Final = struct.Struct("<5sBHqI")  # magic, series, points, first minute, CRC-32
_LARGEST: Final = (1 << 63) - 1


class HistoryDamaged(ValueError):
    """The octets are no history of ours."""


@value_class
class Totals:
    """What is counted upwards since the start."""

    upload_bytes: int
    download_bytes: int
    logins: int
    failures: int


class History:
    """The ring. `-1` is a minute without a point."""

    def __init__(self) -> None:
        self._newest = -1  # the latest minute with a point, in minutes of Unix time
        self._series = {name: array("q", [-1]) * MINUTES for name in SERIES}
        self._before: Totals | None = None

    def add(self, unix: float, totals: Totals, *, online: int, memory_bytes: int, load: float) -> None:
        """Note the minute that `unix` is in; a second time adds to it. A clock that was set back begins anew."""
        minute = int(unix) // MINUTE_S
        before = totals if self._before is None else self._before
        self._before = totals
        values = {
            "online": online,
            "memory_bytes": memory_bytes,
            "load": round(load * 100),
            "upload_bytes": totals.upload_bytes - before.upload_bytes,
            "download_bytes": totals.download_bytes - before.download_bytes,
            "logins": totals.logins - before.logins,
            "failures": totals.failures - before.failures,
        }
        same = minute == self._newest
        self._move_to(minute)
        place = minute % MINUTES
        for name, value in values.items():
            kept = self._series[name]
            value = min(max(value, 0), _LARGEST)
            kept[place] = kept[place] + value if same and name in SUMMED and kept[place] >= 0 else value

    def read(
        self, names: Iterable[str], unix: float, span_s: int, step_s: int
    ) -> tuple[int, dict[str, list[float | None]]]:
        """Series over the last `span_s`, a value for each `step_s` (whole minutes), oldest first; None: no point.

        Returns the Unix time at which the first step begins. Raises KeyError for a series that is not there.
        """
        step = max(1, step_s // MINUTE_S)
        # The minute that goes on has no point yet. Steps begin at the same times whenever one asks.
        end = (int(unix) // MINUTE_S - 1) // step * step + step
        steps = max(1, min(span_s // MINUTE_S, MINUTES) // step)
        first = end - steps * step
        return first * MINUTE_S, {
            name: [self._step(name, start, step) for start in range(first, end, step)] for name in names
        }

    def sums(self, unix: float, span_s: int) -> Mapping[str, int]:
        """What was carried and decided in the last `span_s`."""
        newest = int(unix) // MINUTE_S
        minutes = range(newest - min(span_s // MINUTE_S, MINUTES) + 1, newest + 1)
        return {name: sum(max(0, self._at(name, minute)) for minute in minutes) for name in SERIES if name in SUMMED}

    # -- what survives ----------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """Everything, compressed; a few kilobytes."""
        first = self._newest - MINUTES + 1
        rows = b"".join(
            array("q", [self._at(name, first + offset) for offset in range(MINUTES)]).tobytes() for name in SERIES
        )
        body = zlib.compress(rows, 6)
        return _HEADER.pack(_MAGIC, len(SERIES), MINUTES, first, _checksum(first, body)) + body

    def load(self, data: bytes) -> None:
        """Take what `dump` gave; raises HistoryDamaged, and then nothing is changed."""
        try:
            magic, series, points, first, checksum = _HEADER.unpack_from(data)
        except struct.error:
            raise HistoryDamaged("it is too short") from None
        body = data[_HEADER.size :]
        if magic != _MAGIC or _checksum(first, body) != checksum or (series, points) != (len(SERIES), MINUTES):
            raise HistoryDamaged("its check fails, or it is of another version")
        wanted = len(SERIES) * MINUTES * 8
        try:
            rows = zlib.decompressobj().decompress(body, wanted + 1)
        except zlib.error as err:
            raise HistoryDamaged(str(err)) from None
        if len(rows) != wanted:
            raise HistoryDamaged("it has another length")
        for index, name in enumerate(SERIES):
            values = array("q")
            values.frombytes(rows[index * MINUTES * 8 : (index + 1) * MINUTES * 8])
            for offset, value in enumerate(values):
                self._series[name][(first + offset) % MINUTES] = value
        self._newest = first + MINUTES - 1

    def _step(self, name: str, start: int, step: int) -> float | None:
        points = [value for value in self._values(name, start, step) if value >= 0]
        if not points:
            return None
        total = sum(points) if name in SUMMED else sum(points) / len(points)
        return total / 100 if name == "load" else total

    def _values(self, name: str, start: int, step: int) -> Iterator[int]:
        return (self._at(name, minute) for minute in range(start, start + step))

    def _at(self, name: str, minute: int) -> int:
        kept = self._series[name]
        return kept[minute % MINUTES] if self._newest - MINUTES < minute <= self._newest else -1

    def _move_to(self, minute: int) -> None:
        """Make room for a minute: those between it and the newest have no point."""
        if minute < self._newest or minute - self._newest >= MINUTES:
            for kept in self._series.values():
                kept[:] = array("q", [-1]) * MINUTES
        else:
            for gone in range(self._newest + 1, minute + 1):
                for kept in self._series.values():
                    kept[gone % MINUTES] = -1
        self._newest = minute


def _checksum(first: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(first.to_bytes(8, "little", signed=True)))
