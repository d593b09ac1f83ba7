"""Where the metrics come from: reads the state of every room when it is asked, and changes nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from gateway import __version__
from gateway.control.protocol import JsonValue
from gateway.figures import (
    ControlFigures,
    DatapathFigures,
    DhcpFigures,
    Histogram,
    JournalFigures,
    LoginFigures,
    LoginStatus,
    LoginType,
    RadiusFigures,
    RadiusState,
    RadiusStatus,
    RadiusType,
    SessionFigures,
    TimelineFigures,
)
from gateway.journal import msgpack_flavour
from gateway.platform import build_id
from gateway.radius.breaker import BreakerState
from gateway.radius.channel import Purpose
from gateway.radius.tallies import BUCKETS_S

if TYPE_CHECKING:
    from gateway.daemon import Gateway

# What a channel's tallies call the answers of a server; what is left is no answer.
_ANSWERS = ("accept", "reject", "challenge", "response")


class GatewaySources:
    """The figures of one gateway (`figures.Sources`)."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def sessions(self) -> SessionFigures:
        """Sessions now, and how the ended ones ended."""
        machine = self._gateway.machine
        states = Counter((session.key.zone, session.state.value) for session in machine.sessions)
        ended = {cause.name.lower(): count for cause, count in machine.ended.items()}
        return SessionFigures(dict(states), ended)

    def dhcp(self) -> DhcpFigures:
        """DHCP of all zones."""
        requests: Counter[str] = Counter()
        leases: dict[tuple[str, str], int] = {}
        pools: dict[str, int] = {}
        for zone, server in self._gateway.dhcp.servers.items():
            counts = server.counts()
            requests.update(counts.requests)
            pools[zone] = counts.pool_size
            for state in ("bound", "offered", "quarantined", "free"):
                leases[zone, state] = getattr(counts, state)
        return DhcpFigures(dict(requests), leases, pools)

    def logins(self) -> LoginFigures:
        """Logins, as the portal counted them."""
        figures = LoginFigures()
        told = self._gateway.methods.portal.figures
        for row in rows(told.get("logins")):
            figures.attempts[cast(LoginType, str(row.get("type")))] = _whole(row.get("count"))
        for row in rows(told.get("login_outcomes")):
            key = (cast(LoginType, str(row.get("type"))), cast(LoginStatus, str(row.get("status"))))
            figures.outcomes[key] = _whole(row.get("count"))
        for row in rows(told.get("login_duration_seconds")):
            histogram = _histogram(row)
            if histogram is not None:
                figures.durations[cast(LoginType, str(row.get("type")))] = histogram
        return figures

    def radius(self) -> RadiusFigures:
        """Requests to RADIUS servers."""
        figures = RadiusFigures()
        for channel in self._gateway.radius.channels():
            name, tallies = channel.server.name, channel.tallies
            kind: RadiusType = "auth" if channel.purpose is Purpose.AUTH else "acct"
            for status, count in tallies.requests.items():
                answered = status in _ANSWERS
                outcome: RadiusStatus = "success" if answered else "failure"
                figures.requests[name, kind, outcome] += count
                figures.results[name, kind, status if answered else "none"] += count
            figures.durations[name, kind] = Histogram(BUCKETS_S, tallies.buckets, tallies.duration_sum_s)
        return figures

    def radius_state(self) -> RadiusState:
        """Which servers are asked, and what waits to be told."""
        radius = self._gateway.radius
        up: dict[str, bool] = {}
        for channel in radius.channels():
            name = channel.server.name
            up[name] = up.get(name, False) or channel.breaker.state is not BreakerState.OPEN
        in_flight = sum(len(channel.in_flight) for channel in radius.channels())
        waiting = (record.event_unix for record in radius.snapshot().records)
        oldest = min((event for event in waiting if event is not None), default=None)
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        return RadiusState(up, in_flight, radius.queue_length(), age)

    def journal(self) -> JournalFigures:
        """What survives."""
        journal = self._gateway.journal
        return JournalFigures(journal.appended, journal.size_bytes, journal.syncs, journal.failures)

    def datapath(self) -> DatapathFigures:
        """The kernel's side."""
        datapath = self._gateway.datapath
        numbers = datapath.statistics
        return DatapathFigures(
            ready=datapath.ready,
            elements=datapath.elements,
            changes=numbers.logins + numbers.logouts,
            failures=numbers.refusals,
            rebuilds=numbers.tables_lost,
        )

    def control(self) -> ControlFigures:
        """The control socket."""
        control = self._gateway.control
        return ControlFigures(control.connections, control.counters.calls, dict(control.counters.errors))

    def timeline(self) -> TimelineFigures:
        """The ring of client events."""
        return TimelineFigures(len(self._gateway.timeline), self._gateway.timeline.total)

    def dns_queries(self) -> Mapping[str, int]:
        """Guests' queries by what became of them."""
        counts = self._gateway.dns.counts().core
        return {
            "forwarded": counts.forwarded,
            "answered": counts.answered,
            "local": sum(counts.answered_locally.values()),
            "unanswered": counts.unanswered,
            "dropped": sum(counts.dropped.values()),
        }

    def dropped(self) -> Mapping[tuple[str, str], int]:
        """What was dropped, by room and reason."""
        dropped: Counter[tuple[str, str]] = Counter()
        for server in self._gateway.dhcp.servers.values():
            dropped.update({("dhcp", str(reason)): count for reason, count in server.counts().refusals.items()})
        for channel in self._gateway.radius.channels():
            dropped.update({("radius", reason): count for reason, count in channel.tallies.refused.items()})
        dropped.update({("dns", reason): count for reason, count in self._gateway.dns.counts().core.dropped.items()})
        return dict(dropped)

    def errors(self) -> Mapping[str, int]:
        """What goes wrong, by type."""
        journal, control = self._gateway.journal, self._gateway.control
        failed = sum(
            count
            for channel in self._gateway.radius.channels()
            for status, count in channel.tallies.requests.items()
            if status not in _ANSWERS
        )
        return {
            "journal": journal.failures + journal.lost_records,
            "control": sum(control.counters.errors.values()),
            "radius": failed,
            "datapath": self._gateway.datapath.statistics.refusals,
            "dns": self._gateway.dns.counts().core.unanswered,
        }

    def build(self) -> Mapping[str, str]:
        """What is running."""
        return {
            "version": __version__,
            "build_id": build_id(),
            "python": sys.version.split()[0],
            "loop": self._gateway.loop_name,
            "msgpack": msgpack_flavour(),
        }


def rows(value: JsonValue) -> list[dict[str, JsonValue]]:
    """The objects of a list that another process sent."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _whole(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _histogram(row: dict[str, JsonValue]) -> Histogram | None:
    """A histogram as the portal sends it, with cumulative counts; None when it is not one."""
    bounds, counts, total = row.get("bounds"), row.get("counts"), row.get("sum")
    if not isinstance(bounds, list) or not isinstance(counts, list) or not isinstance(total, int | float):
        return None
    limits = tuple(float(bound) for bound in bounds if isinstance(bound, int | float))
    cumulative = [count for count in counts if isinstance(count, int)]
    if len(limits) != len(bounds) or len(cumulative) != len(limits) + 1:
        return None
    single = [count - before for count, before in zip(cumulative, [0, *cumulative], strict=False)]
    return Histogram(limits, single, float(total))
