"""One server for one purpose: breaker, identifiers, what is in flight, and the probing that revives it.

Pure state, driven by `exchange`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.config import Radius, RadiusServer
from gateway.radius.breaker import Breaker, BreakerState
from gateway.radius.identifiers import Identifiers
from gateway.radius.packets import Code
from gateway.radius.requests import Body, Randomness
from gateway.radius.tallies import Tallies

HEALTHY_PROBES: Final = 3  # in a row, before a server is trusted again


class Purpose(Enum):
    """What a server is asked for; the value is the label of metrics."""

    AUTH = "auth"
    ACCT = "acct"


@dataclass(slots=True, eq=False)
class Train:
    """One question and its repetitions to one server after the other, until somebody answers or nobody is left."""

    purpose: Purpose
    number: int  # of the login or of the record
    body: Body
    deadline: float | None
    tried: tuple[Channel, ...] = ()
    reasons: tuple[str, ...] = ()
    channel: Channel | None = None
    slot: int = -1
    data: bytes = b""
    code: Code = Code.ACCESS_REQUEST
    authenticator: bytes = b""
    sends: int = 0
    first_sent: float = 0.0
    wait_s: float = 0.0
    due: float = 0.0
    refusal: str = ""  # the sentence about an answer that lacked only Message-Authenticator
    unreachable: bool = False
    over: bool = False


class Channel:
    """One server for one purpose."""

    __slots__ = (
        "answers_status",
        "breaker",
        "healthy_probes",
        "identifiers",
        "identity",
        "in_flight",
        "last_reason",
        "place",
        "probe_due",
        "purpose",
        "server",
        "tallies",
    )

    def __init__(
        self, server: RadiusServer, purpose: Purpose, radius: Radius, max_sockets: int, random: Randomness
    ) -> None:
        self.server = server
        self.purpose = purpose
        address = server.address
        host = f"[{address}]" if address.version == 6 else str(address)
        self.place = f"{server.name} ({host}:{self.port})"  # the server's name and where it is, for people
        self.identity = f"{server.name}@{address}"  # under which what was learned about the server is remembered
        self.breaker = Breaker(
            failure_threshold=radius.circuit_breaker_failure_threshold,
            timeout_s=radius.circuit_breaker_timeout,
            max_requests=radius.circuit_breaker_max_requests,
        )
        self.identifiers = Identifiers(max_sockets, random)
        self.in_flight: dict[int, Train] = {}  # by slot
        self.tallies = Tallies()
        self.last_reason = ""  # why the breaker opened
        self.probe_due: float | None = None
        self.healthy_probes = 0
        # Whether it knows Status-Server: None until it answered once, False when it came back without having done so.
        self.answers_status: bool | None = None if server.status_server else False

    @property
    def port(self) -> int:
        """The server's port for this purpose."""
        return self.server.auth_port if self.purpose is Purpose.AUTH else self.server.acct_port

    def usable(self, now: float, *, others: bool) -> bool:
        """Whether a request may go here; `others`: there is a server in good health that could take it.

        A server that answers Status-Server is then tried by probes, not by people who wait.
        """
        if self.breaker.state is BreakerState.CLOSED:
            return True
        if others and self.answers_status:
            return False
        return self.breaker.admits(now, cautiously=others)
