"""What the resolver core is told, what it orders, and what it reports of itself."""

from __future__ import annotations

from enum import StrEnum

from gateway.config import Endpoint
from gateway.dns.names import LocalNames
from gateway.dns.upstreams import ReplyPath
from gateway.values import value_class


class Drop(StrEnum):
    """Why a message was not served; a label of the metrics."""

    RATE = "rate"  # the client asks more than its share
    FULL = "full"  # too many queries under way
    MALFORMED = "malformed"
    NOT_A_QUERY = "not_a_query"  # a response, an update, a zone transfer
    STRAY = "stray"  # an upstream answer that nobody waits for (any more)
    MISMATCH = "mismatch"  # an upstream answer to another question


@value_class
class Settings:
    """What the core needs of the configuration."""

    names: LocalNames
    timeout_s: float
    max_pending: int
    client_rate: float
    client_burst: int


@value_class
class QueryReceived:
    """A client of `zone` sent a message; `client` is its address, which the rate limit goes by."""

    zone: str
    client: str
    reply_to: ReplyPath
    tcp: bool
    data: bytes


@value_class
class ResponseReceived:
    """A message came through a lane."""

    lane: int
    data: bytes


@value_class
class LaneFailed:
    """A lane is gone; `unreachable` when the kernel says that the resolver cannot be reached at all."""

    lane: int
    unreachable: bool


@value_class
class UpstreamsChanged:
    """These are the resolvers to ask from now on, the preferred first."""

    endpoints: tuple[Endpoint, ...]


@value_class
class SettingsChanged:
    """The configuration was loaded again."""

    settings: Settings


@value_class
class SendAnswer:
    """Send a message to a client."""

    reply_to: ReplyPath
    data: bytes


@value_class
class CloseClient:
    """Close a client's connection; it sent what cannot be answered."""

    reply_to: ReplyPath


@value_class
class OpenLane:
    """Make a socket towards a resolver."""

    lane: int
    endpoint: Endpoint
    tcp: bool


@value_class
class SendQuery:
    """Send a message through a lane."""

    lane: int
    data: bytes


@value_class
class CloseLane:
    """Close a lane's socket."""

    lane: int


@value_class
class Complain:
    """Write a line about a peer that misbehaves; at most one per source and minute is ordered."""

    source: str
    what: str


Event = QueryReceived | ResponseReceived | LaneFailed | UpstreamsChanged | SettingsChanged
Action = SendAnswer | CloseClient | OpenLane | SendQuery | CloseLane | Complain


@value_class
class Counts:
    """Totals since the start, for the metrics, and how many queries are under way."""

    queries: dict[str, int]  # by zone
    answered_locally: dict[str, int]  # by LocalKind
    forwarded: int
    answered: int  # upstream answers that were passed on
    unanswered: int  # SERVFAIL of ours because nobody answered
    dropped: dict[str, int]  # by Drop
    upstream_failures: dict[str, int]  # by resolver
    pending: int
    limited_clients: int  # clients whose share is not whole again


@value_class
class UpstreamStatus:
    """How a resolver is doing, for people."""

    endpoint: Endpoint
    tcp: bool
    state: str  # "answering", "not asked yet", "resting", "unreachable"
    failures: int
