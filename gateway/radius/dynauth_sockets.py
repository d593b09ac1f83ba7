"""The server's sockets of dynamic authorization: Disconnect-Request and CoA-Request come in here.

A thin shell over `dynauth`: it receives, asks the hub to find and change sessions, and answers when that is done.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, assert_never

from gateway.config import Config, Endpoint
from gateway.log import LogLimiter
from gateway.radius.dynauth import (
    Answer,
    ChangeSessions,
    DisconnectSessions,
    DynamicAuthorizer,
    DynauthAction,
    DynauthEvent,
    OrderDone,
    ReportDrop,
    RequestReceived,
    SessionsMissing,
)
from gateway.radius.session_keys import SessionKeys
from gateway.session.model import ClientKey, GrantChange
from gateway.values import value_class

_LOG: Final = logging.getLogger("postern.radius")
_LARGEST: Final = 4097  # one more than is allowed, so that what is too long is seen to be
_BATCH: Final = 64  # datagrams read before others get their turn
_ORDER_LIMIT_S: Final = 10.0
_IP_PKTINFO: Final = 8  # linux/in.h; Python 3.11 has no name for it
_PKTINFO4: Final = struct.Struct("@i4s4s")  # struct in_pktinfo


class DynamicAuthorization:
    """Listens for Disconnect-Request and CoA-Request; the hub finds and changes the sessions.

    `find` returns the live sessions that match; `disconnect` and `change` return whether it was done and the kernel
    follows, else why not.
    """

    def __init__(
        self,
        config: Config,
        find: Callable[[SessionKeys], list[ClientKey]],
        disconnect: Callable[[ClientKey], Awaitable[tuple[bool, str]]],
        change: Callable[[ClientKey, GrantChange], Awaitable[tuple[bool, str]]],
        clock: Callable[[], float],
        wall_clock: Callable[[], float | None],
        *,
        nas_addresses: Callable[[], frozenset[IPv4Address | IPv6Address]],
    ) -> None:
        self._config = config.radius
        self._find = find
        self._disconnect = disconnect
        self._change = change
        self._clock = clock
        self._wall_clock = wall_clock
        self._core = DynamicAuthorizer(config, nas_addresses)
        self._sockets: list[socket.socket] = []
        self._log_limited = LogLimiter(clock=clock)
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def counters(self) -> dict[str, int]:
        """What became of requests so far, by outcome."""
        return dict(self._core.counters)

    def reconfigure(self, config: Config) -> None:
        """Take over another configuration; the port changes with it."""
        before, self._config = self._config, config.radius
        self._core.reconfigure(config)
        moved = (before.coa_enabled, before.coa_port) != (self._config.coa_enabled, self._config.coa_port)
        if moved and self._tasks is not None:
            self._close()
            self._open()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._open()
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None
            self._close()

    def _open(self) -> None:
        if not self._config.coa_enabled:
            return
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                opened = socket.socket(family, socket.SOCK_DGRAM)
            except OSError as err:  # a kernel without IPv6
                _LOG.info("no dynamic authorization over %s: %s", family.name, err)
                continue
            self._sockets.append(opened)
            opened.setblocking(False)
            # Answers must come from the address that was asked, so that address is wanted with every datagram.
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            opened.bind(("", self._config.coa_port))
            asyncio.get_running_loop().add_reader(opened, self._read, opened)

    def _close(self) -> None:
        for closing in self._sockets:
            asyncio.get_running_loop().remove_reader(closing)
            closing.close()
        self._sockets.clear()

    def _read(self, reading: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, source = reading.recvmsg(_LARGEST, 128)
            except BlockingIOError:
                return
            except OSError as err:
                _LOG.debug("dynamic authorization socket error: %s", err)
                return
            to = Endpoint(ip_address(source[0].partition("%")[0]), source[1])
            via = _Way(reading, source, _answer_control(ancillary))
            self._feed(RequestReceived(to, data, self._wall_clock()), via)

    def _feed(self, event: DynauthEvent, via: _Way) -> None:
        for action in self._core.receive(event, self._clock()):
            self._perform(action, via)

    def _perform(self, action: DynauthAction, via: _Way) -> None:
        match action:
            case Answer(data=data):
                try:
                    via.socket.sendmsg([data], via.control, 0, via.source)
                except OSError as err:  # the requester repeats itself and gets the cached answer
                    _LOG.debug("dynamic authorization answer not sent: %s", err)
            case ReportDrop(source, reason, text):
                self._log_limited(
                    (source.address, reason),
                    _LOG,
                    logging.WARNING,
                    "dynamic authorization request dropped from=%s reason=%s: %s",
                    source,
                    reason,
                    text,
                )
            case DisconnectSessions(request, keys):
                self._order(request, keys, self._disconnect, via)
            case ChangeSessions(request, keys, change):
                self._order(request, keys, lambda key: self._change(key, change), via)
            case _:
                assert_never(action)

    def _order(
        self, request: int, keys: SessionKeys, order: Callable[[ClientKey], Awaitable[tuple[bool, str]]], via: _Way
    ) -> None:
        found = self._find(keys)
        if not found:
            self._feed(SessionsMissing(request), via)
            return
        assert self._tasks is not None
        self._tasks.create_task(self._carry_out(request, found, order, via), name=f"dynamic authorization {request}")

    async def _carry_out(
        self,
        request: int,
        found: list[ClientKey],
        order: Callable[[ClientKey], Awaitable[tuple[bool, str]]],
        via: _Way,
    ) -> None:
        try:
            async with asyncio.timeout(_ORDER_LIMIT_S):
                results = [await order(key) for key in found]
        except TimeoutError:
            results = [(False, f"not done within {_ORDER_LIMIT_S:.0f} s")]
        failed = [reason for done, reason in results if not done]
        self._feed(OrderDone(request, not failed, "; ".join(failed)), via)


@value_class
class _Way:
    """Where an answer goes: through which socket, to whom, and from which of our addresses."""

    socket: socket.socket
    source: tuple[str | int, ...]
    control: list[tuple[int, int, bytes]]


def _answer_control(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Control data that makes the answer leave from the address that the request was sent to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO4.size:
            _, _, address = _PKTINFO4.unpack_from(data)
            return [(level, kind, _PKTINFO4.pack(0, address, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
