"""Keeping the history of the last day: a point a minute, and a file now and then, so that flash does not wear.

The file is written every quarter of an hour and at the end: a power cut loses that much of a curve, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.debug import resident_bytes
from gateway.history import MINUTE_S, MINUTES, SERIES, History, HistoryDamaged, Totals
from gateway.session.model import LoginResult
from gateway.system.files import replace_file

if TYPE_CHECKING:
    from gateway.daemon import Gateway

LOG: Final = logging.getLogger(__name__)
FILE: Final = "history.bin"
SAVED_EVERY_MINUTES: Final = 15
_SUCCESSES: Final = (LoginResult.SUCCESS,)
_NO_LOGINS: Final = (LoginResult.SUCCESS, LoginResult.ALREADY)  # neither of them is a failure


class HistoryKeeper:
    """The history of one gateway: `run()`, then `close()`."""

    def __init__(self, gateway: Gateway, state_dir: Path, unix_clock: Callable[[], float], *, persist: bool) -> None:
        self._gateway = gateway
        self._path = state_dir / FILE
        self._unix = unix_clock
        self._persist = persist
        self.history = History()
        if persist:
            self._load()

    def table(self) -> dict[str, Method]:
        """The one method."""
        return {"history.read": Method(self.read, Access.READ | Access.WRITE)}

    async def run(self) -> None:
        """Note every minute until cancelled."""
        minutes = 0
        self.note(self._unix())  # counts begin here
        while True:
            await asyncio.sleep(MINUTE_S - self._unix() % MINUTE_S)
            self.note(self._unix() - MINUTE_S / 2)  # the minute that has just ended
            minutes += 1
            if minutes % SAVED_EVERY_MINUTES == 0:
                self.save()

    def close(self) -> None:
        """Note the last minute and write the file."""
        self.note(self._unix())
        self.save()

    def note(self, unix: float) -> None:
        """Put this moment into the ring, as the minute that `unix` is in."""
        machine, results = self._gateway.machine, self._gateway.hub.login_results
        totals = Totals(
            machine.upload_bytes,
            machine.download_bytes,
            sum(results[result] for result in _SUCCESSES),
            sum(count for result, count in results.items() if result not in _NO_LOGINS),
        )
        self.history.add(
            unix,
            totals,
            online=machine.sessions.online_count,
            memory_bytes=resident_bytes(),
            load=os.getloadavg()[0],
        )

    def rates_bps(self) -> tuple[int, int]:
        """Upload and download of all guests in the last whole minute, in bit/s."""
        now = self._unix() - MINUTE_S
        carried = self.history.sums(now, MINUTE_S)
        return carried["upload_bytes"] * 8 // MINUTE_S, carried["download_bytes"] * 8 // MINUTE_S

    def save(self) -> None:
        """Write the file; what fails is a line in the log, for a curve is not worth more."""
        if not self._persist:
            return
        try:
            replace_file(self._path, self.history.dump())
        except OSError as err:
            LOG.warning("the history could not be saved path=%s reason=%s", self._path, err.strerror or err)

    def _load(self) -> None:
        try:
            self.history.load(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, HistoryDamaged) as err:
            LOG.warning("the history of the last day is lost path=%s reason=%s", self._path, err)

    def read(self, caller: Caller, params: Params) -> JsonValue:
        """Series of the last day, or a part of it."""
        read.only(params, "series", "span_s", "step_s")
        span_s = read.integer(params, "span_s", MINUTES * MINUTE_S, low=MINUTE_S, high=MINUTES * MINUTE_S)
        step_s = read.integer(params, "step_s", MINUTE_S, low=MINUTE_S, high=span_s)
        names = _names(params.get("series"))
        now = self._unix()
        first_unix, values = self.history.read(names, now, span_s, step_s)
        series: dict[str, JsonValue] = {name: list[JsonValue](points) for name, points in values.items()}
        sums: dict[str, JsonValue] = dict(self.history.sums(now, span_s))
        return {"first_unix": first_unix, "step_s": step_s // MINUTE_S * MINUTE_S, "series": series, "sums": sums}


def _names(wanted: JsonValue) -> Iterable[str]:
    if wanted is None:
        return tuple(SERIES)
    names = wanted if isinstance(wanted, list) else [wanted]
    found = [name for name in names if isinstance(name, str) and name in SERIES]
    if not names or len(found) != len(names):
        raise ControlError(BAD_PARAMS, f"series must be names of: {', '.join(SERIES)}")
    return found
