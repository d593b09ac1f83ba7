"""Logins, logouts and their bounds; what the form and the API share.

An attempt runs as a task of its own: a client that closes the page after asking changes neither what the daemon does
nor what the back-off counts. Asked twice for the same (a guest taps the button again), it is one attempt with two
listeners.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.addresses import MacAddress
from gateway.control.client import ControlError
from gateway.values import value_class
from webui.portal.counts import LoginStatus, LoginType, PortalCounts
from webui.portal.daemon import Daemon, DaemonUnavailable, NoLease
from webui.portal.model import ONLINE_OUTCOMES, ContractError, LoginMethod, LoginReply, Outcome
from webui.portal.online import OnlineClients
from webui.portal.throttle import LoginThrottle

log = logging.getLogger(__name__)

MAX_CREDENTIAL_CHARS: Final = 253  # a RADIUS attribute holds 253 octets (RFC 2865 §5)
MAX_CODE_CHARS: Final = 64  # the longest voucher code with a separator after each character
_MAX_UNDER_WAY: Final = 4096
_STATUS: Final[dict[Outcome, LoginStatus]] = {
    Outcome.SUCCESS: "success",
    Outcome.ALREADY: "success",
    Outcome.TIMEOUT: "timeout",
}


@value_class
class Attempt:
    """One wish to be let in."""

    kind: LoginType
    ip: str
    mac: MacAddress
    method: LoginMethod
    username: str = ""
    password: str = ""
    user_agent: str = ""
    code: str = ""  # of a voucher

    def __repr__(self) -> str:
        return f"Attempt({self.kind}, {self.ip}, {self.mac}, {self.method}, {self.username!r}, …)"


class Logins:
    """All attempts of this portal."""

    def __init__(
        self,
        daemon: Daemon,
        online: OnlineClients,
        counts: PortalCounts,
        group: asyncio.TaskGroup,
        clock: Callable[[], float],
    ) -> None:
        self.throttle = LoginThrottle(attempts=5, backoff_s=10)
        self.timeout_s = 20.0
        self._daemon = daemon
        self._online = online
        self._counts = counts
        self._group = group
        self._clock = clock
        # By client address: a digest of what was asked (so that no password is kept for comparing), and the answer.
        self._under_way: dict[str, tuple[bytes, asyncio.Task[LoginReply]]] = {}

    def set_bounds(self, attempts: int, backoff_s: float, timeout_s: float) -> None:
        """Take other bounds; mistakes that were made stay counted."""
        self.throttle.attempts = attempts
        self.throttle.backoff_s = backoff_s
        self.timeout_s = timeout_s

    def stop(self) -> None:
        """Give up what is under way; the daemon goes on with what it was asked, or cancels it."""
        for _, task in list(self._under_way.values()):
            task.cancel()

    async def attempt(self, attempt: Attempt) -> LoginReply:
        """Try to log a client in; never raises for anything that a guest, the daemon or a RADIUS server may do."""
        digest = hashlib.blake2b(
            f"{attempt.mac}\0{attempt.method}\0{attempt.username}\0{attempt.password}\0{attempt.code}".encode()
        ).digest()
        under_way = self._under_way.get(attempt.ip)
        if under_way is not None:
            if under_way[0] != digest:
                return LoginReply(Outcome.BUSY)
            return await asyncio.shield(under_way[1])
        if len(self._under_way) >= _MAX_UNDER_WAY:
            return LoginReply(Outcome.UNAVAILABLE)
        delay_s = 0.0
        if attempt.method is LoginMethod.PASSWORD:
            verdict = self.throttle.check(attempt.mac, attempt.username, self._clock())
            if verdict.wait_s:
                return LoginReply(Outcome.THROTTLED, wait_s=math.ceil(verdict.wait_s))
            delay_s = verdict.delay_s
        task = self._group.create_task(self._run(attempt, delay_s), name="portal login")
        self._under_way[attempt.ip] = (digest, task)
        task.add_done_callback(lambda _: self._under_way.pop(attempt.ip, None))
        return await asyncio.shield(task)

    async def _run(self, attempt: Attempt, delay_s: float) -> LoginReply:
        started = self._clock()
        if delay_s:
            await asyncio.sleep(delay_s)
        reply = await self._ask(attempt, self.timeout_s - delay_s)
        now = self._clock()
        if attempt.method is LoginMethod.PASSWORD:
            if reply.outcome is Outcome.REJECT:
                wait_s = self.throttle.failed(attempt.mac, attempt.username, now)
                reply = replace(reply, wait_s=math.ceil(wait_s))
            elif reply.outcome is Outcome.SUCCESS:
                self.throttle.succeeded(attempt.mac, attempt.username)
        if reply.outcome in ONLINE_OUTCOMES:
            self._online.set(attempt.ip, online=True)
        self._counts.login_ended(attempt.kind, _STATUS.get(reply.outcome, "failure"), now - started)
        return reply

    async def _ask(self, attempt: Attempt, timeout_s: float) -> LoginReply:
        params = {
            "ip": attempt.ip,
            "mac": str(attempt.mac),
            "method": attempt.method.value,
            "username": attempt.username,
            "password": attempt.password,
            "user_agent": attempt.user_agent,
        }
        if attempt.method is LoginMethod.VOUCHER:
            params["code"] = attempt.code
        try:
            return await self._daemon.login({**params}, timeout_s)
        except TimeoutError:
            return LoginReply(Outcome.TIMEOUT)
        except DaemonUnavailable:
            return LoginReply(Outcome.UNAVAILABLE)
        except NoLease:
            return LoginReply(Outcome.NO_LEASE)
        except (ControlError, ContractError) as err:
            log.error("login not decided ip=%s mac=%s reason=%s", attempt.ip, attempt.mac, err)
            return LoginReply(Outcome.ERROR)
