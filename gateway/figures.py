"""What is measured, as plain values that are read at a scrape.

No metrics library in here: rooms count with integers, `sources` gathers them behind `Sources`, and `metrics` alone
knows how Prometheus wants them written. Label values are bounded everywhere: zones, servers, fixed names; never a MAC
address or a user name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gateway.values import value_class

LoginType = Literal["uam", "api", "wispr"]  # the form of the portal, the JSON API, a WISPr client
LoginStatus = Literal["success", "failure", "timeout"]
RadiusType = Literal["auth", "acct"]
RadiusStatus = Literal["success", "failure"]  # on the wire: a Reject is an answer, hence success


@value_class
class Histogram:
    """Durations counted by size: `counts` are not cumulative, the last one is above every bound."""

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float

    def cumulative(self) -> list[tuple[str, float]]:
        """Bucket bounds as Prometheus writes them, each with the count of durations up to it."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, self.bounds_s), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


@dataclass(slots=True)
class LoginFigures:
    """Logins by the way they came, since the start."""

    attempts: Counter[LoginType] = field(default_factory=Counter)
    outcomes: Counter[tuple[LoginType, LoginStatus]] = field(default_factory=Counter)
    durations: dict[LoginType, Histogram] = field(default_factory=dict)


@dataclass(slots=True)
class RadiusFigures:
    """Requests to RADIUS servers by server, since the start. Results: accept, reject, challenge, response, none."""

    requests: Counter[tuple[str, RadiusType, RadiusStatus]] = field(default_factory=Counter)
    results: Counter[tuple[str, RadiusType, str]] = field(default_factory=Counter)
    durations: dict[tuple[str, RadiusType], Histogram] = field(default_factory=dict)


@value_class
class SessionFigures:
    """Sessions by zone and state (SessionState values), and how the ended ones ended."""

    by_zone_and_state: Mapping[tuple[str, str], int] = field(default_factory=dict)
    ended_by_cause: Mapping[str, int] = field(default_factory=dict)


@value_class
class DhcpFigures:
    """Messages by type (discover, request …), leases by zone and state, addresses per zone's pool."""

    requests_by_type: Mapping[str, int] = field(default_factory=dict)
    leases_by_zone_and_state: Mapping[tuple[str, str], int] = field(default_factory=dict)
    pool_by_zone: Mapping[str, int] = field(default_factory=dict)


@value_class
class RadiusState:
    """RADIUS as it stands now."""

    up_by_server: Mapping[str, bool] = field(default_factory=dict)
    in_flight: int = 0
    queued_records: int = 0  # accounting that no server has answered yet
    oldest_record_age_s: float = 0.0


@value_class
class JournalFigures:
    """What survives: records appended, size of the file, syncs to the disk, failures of either."""

    records: int = 0
    size_bytes: int = 0
    syncs: int = 0
    failures: int = 0


@value_class
class DatapathFigures:
    """The kernel's side: whether our table is there, changes made, rebuilds after somebody flushed it."""

    ready: bool = False
    elements: int = 0
    changes: int = 0
    failures: int = 0
    rebuilds: int = 0


@value_class
class ControlFigures:
    """The control socket (ControlServer.counters and .connections)."""

    connections: int = 0
    requests: int = 0
    errors_by_code: Mapping[str, int] = field(default_factory=dict)


@value_class
class TimelineFigures:
    """The ring of client events."""

    held: int = 0
    total: int = 0


class Sources(Protocol):
    """Where the figures come from; the hub implements it, each method reads state and changes nothing."""

    def sessions(self) -> SessionFigures:
        """Sessions now."""

    def dhcp(self) -> DhcpFigures:
        """DHCP since the start, leases now."""

    def logins(self) -> LoginFigures:
        """Logins since the start."""

    def radius(self) -> RadiusFigures:
        """RADIUS requests since the start."""

    def radius_state(self) -> RadiusState:
        """RADIUS now."""

    def journal(self) -> JournalFigures:
        """The journal."""

    def datapath(self) -> DatapathFigures:
        """The kernel's side."""

    def control(self) -> ControlFigures:
        """The control socket."""

    def timeline(self) -> TimelineFigures:
        """The ring of client events."""

    def dns_queries(self) -> Mapping[str, int]:
        """Guests' queries by what became of them (forwarded, local, limited, failed …)."""

    def dropped(self) -> Mapping[tuple[str, str], int]:
        """Packets and messages that were dropped, by room (dhcp, radius, dns …) and reason."""

    def errors(self) -> Mapping[str, int]:
        """Errors by type: the operator's table of what goes wrong."""

    def build(self) -> Mapping[str, str]:
        """Labels of the running program: version, python, loop, msgpack."""
