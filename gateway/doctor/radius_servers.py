"""RADIUS servers: do they answer, signed, with our secret? And does accounting get through? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from gateway.config import RadiusServer
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

RECENT_S: Final = 900.0  # an answer of that time says that the server is there
_OPEN: Final = "open"  # breaker state


class Outcome(Enum):
    """What became of a Status-Server request (RFC 5997)."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"  # a right answer without Message-Authenticator
    WRONG = "wrong"  # an answer that does not verify
    REFUSED = "refused"  # the network says that nobody is there
    SILENCE = "silence"
    NOT_ASKED = "not asked"


@value_class
class Asked:
    """One server asked for one purpose."""

    server: RadiusServer
    purpose: str  # auth or acct
    outcome: Outcome
    took_s: float = 0.0
    detail: str = ""

    @property
    def port(self) -> int:
        """The port of that purpose."""
        return self.server.auth_port if self.purpose == "auth" else self.server.acct_port


@value_class
class Past:
    """What the daemon knows of the same server and purpose."""

    breaker: str
    reason: str
    last_answer_age_s: float | None


def judge_server(asked: Asked, past: Past | None) -> Row:
    """One server and purpose, by what it said just now and by what the daemon saw before."""
    check = f"RADIUS {asked.server.name} ({'logins' if asked.purpose == 'auth' else 'accounting'})"
    address = asked.server.address
    where = f"[{address}]:{asked.port}" if address.version == 6 else f"{address}:{asked.port}"
    took = f"in {asked.took_s * 1000:.0f} ms"
    match asked.outcome:
        case Outcome.SIGNED:
            return ok(check, f"{where} answers {took}, with Message-Authenticator.")
        case Outcome.UNSIGNED if asked.purpose == "acct":
            # An accounting request is signed itself, so that no answer to another one can be made to fit it.
            return ok(check, f"{where} answers {took}.")
        case Outcome.UNSIGNED:
            return warn(
                check,
                f"{where} answers {took}, but without Message-Authenticator, so that anybody on the way can forge its "
                "answers (CVE-2024-3596).",
                "Update the server, or let it send Message-Authenticator always (FreeRADIUS 3.2.3 and later do).",
            )
        case Outcome.WRONG:
            return fail(
                check,
                f"{where} answers, but its answer does not verify: {asked.detail}",
                f"Set the same secret in section radius_server '{asked.server.name}' and in the server's client entry.",
            )
        case Outcome.REFUSED:
            return fail(
                check,
                f"Nobody listens at {where}: {asked.detail}",
                "Start the RADIUS server, or correct address and port of its section.",
            )
        case Outcome.SILENCE | Outcome.NOT_ASKED:
            return _by_the_past(check, where, asked, past)


def _by_the_past(check: str, where: str, asked: Asked, past: Past | None) -> Row:
    """A server that may not know Status-Server is judged by the answers to real requests."""
    silent = asked.outcome is Outcome.SILENCE
    remedy = (
        "See that the server runs, that its firewall lets us in, and that it knows our address as a client with the "
        "same secret; a server drops requests of strangers without a word."
    )
    if past is not None and past.breaker == _OPEN:
        return fail(check, f"{where} does not answer: {past.reason or 'requests were not answered'}", remedy)
    if past is not None and past.last_answer_age_s is not None and past.last_answer_age_s < RECENT_S:
        how = "not Status-Server, but it" if silent else "it"
        return ok(check, f"{where}: {how} answered a request {past.last_answer_age_s:.0f} s ago.")
    if silent:
        return fail(
            check,
            f"{where} did not answer Status-Server, nor any request lately.",
            remedy + " If it does not know Status-Server, set option status_server '0'.",
        )
    return skipped(
        check,
        f"{where} is not asked with Status-Server, and no request was answered lately.",
        "Log in once; or set option status_server '1' if the server knows it.",
    )


def judge_queue(servers: Sequence[RadiusServer], queue: Mapping[str, object], limit: int) -> Row:
    """Accounting records that no server has answered for; `queue` is that of `radius.status`."""
    check = "accounting queue"
    if not any(server.acct_port for server in servers):
        return skipped(check, "No RADIUS server is told about sessions.")
    length, dropped = _whole(queue.get("length")), _whole(queue.get("dropped"))
    remedy = "Bring the accounting server back (rows RADIUS): what waits is told then, with the times of its events."
    if dropped:
        return fail(check, f"{dropped} records were dropped because the queue of {limit} was full.", remedy)
    if queue.get("outage"):
        return warn(check, f"No server answers; {length} of at most {limit} records wait, kept over restarts.", remedy)
    if length > limit // 2:
        return warn(check, f"{length} of at most {limit} records wait.", remedy)
    return ok(check, f"{length} records wait to be answered for.")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
