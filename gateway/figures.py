"""What is measured, as plain values: counters and histograms that rooms keep, figures that are read at a scrape.

No metrics library in here: rooms count with integers and `Histogram`, the hub gathers them behind `Sources`, and
`metrics` alone knows how Prometheus wants them written. Label values are bounded everywhere: zones, servers, fixed
names; never a MAC address or a user name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

# From a local decision to the portal's deadline of 20 s; the fine steps lie where a RADIUS answer is expected.
LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

LoginType = Literal["uam", "api", "wispr"]  # the form of the portal, the JSON API, a WISPr client
LoginStatus = Literal["success", "failure", "timeout"]
RadiusType = Literal["auth", "acct"]
RadiusStatus = Literal["success", "failure"]  # on the wire: a Reject is an answer, hence success


class Histogram:
    """Durations counted by size. `observe` costs less than a microsecond."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(
        self, bounds_s: Sequence[float] = LATENCY_BOUNDS_S, counts: Sequence[int] | None = None, sum_s: float = 0.0
    ) -> None:
        """Empty, or with what somebody else has counted: `counts` not cumulative, the last above every bound."""
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1) if counts is None else list(counts)
        self.sum_s = sum_s

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Bucket bounds as Prometheus writes them, each with the count of durations up to it."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, self.bounds_s), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class LoginFigures:
    """Logins by the way they came; kept by the hub."""

    def __init__(self) -> None:
        self.attempts: Counter[LoginType] = Counter()
        self.outcomes: Counter[tuple[LoginType, LoginStatus]] = Counter()
        self.durations: dict[LoginType, Histogram] = {}

    def begun(self, kind: LoginType) -> None:
        """A guest asked to be let in."""
        self.attempts[kind] += 1

    def ended(self, kind: LoginType, status: LoginStatus, seconds: float) -> None:
        """It was answered, after `seconds`."""
        self.outcomes[kind, status] += 1
        self.durations.setdefault(kind, Histogram()).observe(seconds)


class RadiusFigures:
    """Requests to RADIUS servers, by server; kept by the shell that owns the exchange."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, RadiusType, RadiusStatus]] = Counter()
        self.results: Counter[tuple[str, RadiusType, str]] = Counter()
        self.durations: dict[tuple[str, RadiusType], Histogram] = {}

    def answered(self, server: str, kind: RadiusType, result: str, seconds: float) -> None:
        """A server answered: `result` is accept, reject, challenge or response."""
        self.requests[server, kind, "success"] += 1
        self.results[server, kind, result] += 1
        self.durations.setdefault((server, kind), Histogram()).observe(seconds)

    def failed(self, server: str, kind: RadiusType) -> None:
        """No usable answer came from this server."""
        self.requests[server, kind, "failure"] += 1
        self.results[server, kind, "none"] += 1


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Sessions by zone and state (SessionState values), and how the ended ones ended."""

    by_zone_and_state: Mapping[tuple[str, str], int] = field(default_factory=dict)
    ended_by_cause: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DhcpFigures:
    """Messages by type (discover, request …), leases by zone and state, addresses per zone's pool."""

    requests_by_type: Mapping[str, int] = field(default_factory=dict)
    leases_by_zone_and_state: Mapping[tuple[str, str], int] = field(default_factory=dict)
    pool_by_zone: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RadiusState:
    """RADIUS as it stands now."""

    up_by_server: Mapping[str, bool] = field(default_factory=dict)
    in_flight: int = 0
    queued_records: int = 0  # accounting that no server has answered yet
    oldest_record_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """What survives: records appended, size of the file, syncs to the disk, failures of either."""

    records: int = 0
    size_bytes: int = 0
    syncs: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class DatapathFigures:
    """The kernel's side: whether our table is there, changes made, rebuilds after somebody flushed it."""

    ready: bool = False
    elements: int = 0
    changes: int = 0
    failures: int = 0
    rebuilds: int = 0


@dataclass(frozen=True, slots=True)
class ControlFigures:
    """The control socket (ControlServer.counters and .connections)."""

    connections: int = 0
    requests: int = 0
    errors_by_code: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
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
