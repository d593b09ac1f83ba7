"""Recording through the daemon: it may open the socket that sees packets, a confined child does the rest.

A recording is made in the spool of the analysis and becomes a job there when it ends, also if the daemon has ended
meanwhile. What becomes of the job is between the spool and whoever shows it.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.addresses import MacAddress
from gateway.admin.roles import Role
from gateway.capture import recording
from gateway.capture.recording import Bounds, Recording
from gateway.control import params as read
from gateway.control.protocol import BAD_PARAMS, BUSY, NOT_FOUND, UNAVAILABLE, ControlError, JsonValue, Params
from gateway.control.server import Access, Caller, Method
from gateway.values import value_class

if TYPE_CHECKING:
    from gateway.daemon import Gateway

SPOOL: Final = "spool"  # below the state directory
AT_ONCE: Final = 2
MAX_SECONDS: Final = 24 * 3600
MAX_BYTES: Final = 500 << 20
_SYSFS: Final = Path("/sys/class/net")
_SHOWN: Final = 20  # recordings that have ended are jobs, and listed there; these few say how they ended


@value_class
class _Wanted:
    """Where to record, what, and how the capture shall be called."""

    interface: str
    filter: str
    name: str


class CaptureMethods:
    """The methods `captures.*`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def table(self) -> dict[str, Method]:
        """All of them; what passes on a network is not for viewers."""
        look, change = Access.READ | Access.WRITE, Access.WRITE
        return {
            "captures.interfaces": Method(self.interfaces, look, role=Role.OPERATOR),
            "captures.record": Method(self.record, change, role=Role.OPERATOR),
            "captures.recordings": Method(self.recordings, look, role=Role.OPERATOR),
            "captures.stop": Method(self.stop, change, role=Role.OPERATOR),
        }

    def interfaces(self, caller: Caller, params: Params) -> JsonValue:
        """Where can be recorded: guest networks first, then the uplinks, then whatever else there is."""
        read.only(params)
        config = self._gateway.config
        zones = {zone.interface: zone.name for zone in config.zones}
        rows: list[JsonValue] = []
        present = sorted(entry.name for entry in _SYSFS.iterdir() if (entry / "type").is_file())
        for name in sorted(present, key=lambda name: (name not in zones, name not in config.network.uplinks, name)):
            kind = "zone" if name in zones else "uplink" if name in config.network.uplinks else "other"
            rows.append({"name": name, "kind": kind, "zone": zones.get(name)})
        return {"rows": rows}

    async def record(self, caller: Caller, params: Params) -> JsonValue:
        """Begin a recording."""
        read.only(params, "interface", "client", "seconds", "bytes", "packets", "filter")
        bounds = Bounds(
            max_seconds=read.number(params, "seconds", 60.0, low=1, high=MAX_SECONDS),
            max_bytes=read.integer(params, "bytes", 20 << 20, low=64 << 10, high=MAX_BYTES),
            max_packets=read.integer(params, "packets", 1_000_000, low=1, high=100_000_000),
        )
        wanted = self._wanted(params)
        spool = self._spool()
        running = sum(found.status == "recording" for found in await asyncio.to_thread(recording.listing, spool))
        if running >= AT_ONCE:
            raise ControlError(BUSY, f"{running} recordings run already; end one of them first")
        # Filters, sockets and jobs for a recording now and then: they need not be in memory for months.
        try:
            from gateway.capture import recorder
            from gateway.capture.expression import FilterError
            from gateway.capture.tap import TapError
        except ModuleNotFoundError:
            raise ControlError(
                UNAVAILABLE, "recording comes with the package postern-analysis, which is not installed"
            ) from None

        try:
            started = await asyncio.to_thread(
                recorder.start,
                spool,
                wanted.interface,
                wanted.filter,
                bounds,
                job_name=f"{wanted.name}-{time.strftime('%Y%m%d-%H%M%S')}.pcap",
                job_owner=caller.name,
            )
        except FilterError as err:
            raise ControlError(BAD_PARAMS, f"filter: {err}") from None
        except TapError as err:
            raise ControlError(UNAVAILABLE, str(err)) from None
        except OSError as err:
            raise ControlError(UNAVAILABLE, f"{err.filename or spool}: {err.strerror}") from None
        return _row(started)

    async def recordings(self, caller: Caller, params: Params) -> JsonValue:
        """Recordings that run, then the latest that have ended."""
        read.only(params)
        found = await asyncio.to_thread(recording.listing, self._spool())
        found.sort(key=lambda item: (item.status != "recording", -item.started_unix))
        return {"rows": [_row(item) for item in found[:_SHOWN]]}

    async def stop(self, caller: Caller, params: Params) -> JsonValue:
        """End a recording; it becomes a job in a moment."""
        read.only(params, "id")
        wanted = read.text(params, "id")
        directory = self._spool() / wanted
        found = recording.load(directory) if recording.is_recording_id(wanted) else None
        if found is None:
            raise ControlError(NOT_FOUND, f"there is no recording {wanted[:64]!r}")
        recording.request_stop(directory)
        return {"id": wanted}

    def _spool(self) -> Path:
        spool = Path(self._gateway.config.general.state_dir) / SPOOL
        if not spool.is_dir():
            text = f"there is no spool at {spool}: captures need the package of the analysis (postern-worker)"
            raise ControlError(UNAVAILABLE, text)
        return spool

    def _wanted(self, params: Params) -> _Wanted:
        """The interface and filter that the parameters mean; raises `bad_params` and `not_found`."""
        interface = read.text(params, "interface", "", longest=15)
        client = read.text(params, "client", "")
        filter_text = read.text(params, "filter", "").strip()
        if bool(interface) == bool(client):
            raise ControlError(BAD_PARAMS, "give an interface or a client, one of the two")
        if interface:
            return _Wanted(interface, filter_text, interface)
        zone, mac = self._client(client)
        of_client = f"mac {mac}"
        where = next(found.interface for found in self._gateway.config.zones if found.name == zone)
        both = f"{of_client} and ({filter_text})" if filter_text else of_client
        return _Wanted(where, both, re.sub("[^0-9a-f]", "", str(mac)))

    def _client(self, wanted: str) -> tuple[str, MacAddress]:
        """Zone and MAC of a client that is here, or of a MAC where there is one zone only."""
        zones = self._gateway.config.zones
        for session in self._gateway.machine.sessions:
            if wanted.lower() in (str(session.key.mac), str(session.address), session.acct_session_id):
                return session.key.zone, session.key.mac
        try:
            mac = MacAddress.parse(wanted)
        except ValueError:
            raise ControlError(NOT_FOUND, f"no client has the MAC, address or session id {wanted!r}") from None
        for session in self._gateway.machine.sessions:
            if session.key.mac == mac:
                return session.key.zone, mac
        if len(zones) == 1:
            return zones[0].name, mac
        raise ControlError(NOT_FOUND, f"no client has the MAC {mac} now; record on an interface with `mac {mac}`")


def _row(item: Recording) -> dict[str, JsonValue]:
    until = item.finished_unix if item.finished_unix is not None else time.time()
    return {
        "id": item.id,
        "interface": item.interface,
        "filter": item.filter,
        "status": item.status,
        "started_unix": item.started_unix,
        "seconds": round(max(0.0, until - item.started_unix), 1),
        "max_seconds": item.bounds.max_seconds,
        "bytes": item.bytes,
        "max_bytes": item.bounds.max_bytes,
        "packets": item.packets,
        "dropped": item.dropped,
        "ended_by": item.ended_by,
    }
