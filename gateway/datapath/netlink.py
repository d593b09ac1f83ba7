"""Links, addresses, routing rules and bridge ports: the only door to pyroute2.

pyroute2 builds an event loop of its own and does not run on uvloop, so its synchronous interface lives in one worker
thread here; everything is asked for by coroutines. The package's `__init__` imports 380 modules, and its routing socket
a test library, TLS and all of traffic control; empty stand-ins for what is never used let the socket load with 62
modules and 1.5 MB.

Deleting what is gone and adding what is there are successes. Events come by `watch`, without pyroute2: a busy network
makes too many of them for its decoder.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import importlib.util
import socket
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface
from typing import Any, NamedTuple, TypeVar

from gateway.values import value_class

_Result = TypeVar("_Result")

_PROHIBIT = 8  # FR_ACT_PROHIBIT
_WHOLE_MARK = 0xFFFFFFFF
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class NetlinkRefused(OSError):
    """The kernel did not do what it was asked for."""


@value_class
class Link:
    """A network interface."""

    index: int
    name: str
    is_bridge: bool
    master: int  # index of the bridge that it is a port of; 0 for none
    is_up: bool
    is_isolated: bool  # a bridge port that reaches no other isolated port


class Guard(NamedTuple):
    """The routing rule that stops unmarked packets of an interface."""

    interface: str
    version: int  # 4 or 6


class Netlink:
    """One worker thread with one routing socket, made in the network namespace of the first caller."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._route: Any = None  # pyroute2 has no types

    async def links(self) -> list[Link]:
        """All interfaces."""
        return await self._do(self._links)

    async def set_up(self, index: int) -> None:
        """Switch an interface on."""
        await self._do(lambda: self._ip().link("set", index=index, state="up"))

    async def add_address(self, index: int, address: IPv4Interface) -> None:
        """Put an address on an interface."""
        length = address.network.prefixlen
        last = str(address.network.broadcast_address)
        await self._do(
            lambda: self._ip().addr("add", index=index, address=str(address.ip), prefixlen=length, broadcast=last),
            errno.EEXIST,
        )

    async def remove_address(self, index: int, address: IPv4Interface) -> None:
        """Take an address from an interface."""
        length = address.network.prefixlen
        await self._do(
            lambda: self._ip().addr("del", index=index, address=str(address.ip), prefixlen=length),
            errno.EADDRNOTAVAIL,
            errno.ENODEV,
        )

    async def guards(self, priority: int) -> set[Guard]:
        """The guards of this priority that are there."""
        return await self._do(lambda: self._guards(priority))

    async def add_guard(self, guard: Guard, priority: int) -> None:
        """Refuse packets from the interface that carry no mark; the interface need not exist yet."""
        await self._do(lambda: self._rule("add", guard, priority), errno.EEXIST)

    async def remove_guard(self, guard: Guard, priority: int) -> None:
        """Take the guard away."""
        await self._do(lambda: self._rule("del", guard, priority), errno.ENOENT)

    async def isolate(self, port: int, isolated: bool) -> None:
        """Keep a bridge port from reaching the bridge's other isolated ports, or let it again."""
        await self._do(lambda: self._ip().brport("set", index=port, isolated=int(isolated)), errno.ENODEV)

    async def work(self, job: Callable[[], _Result]) -> _Result:
        """Run a blocking job of the kernel's on the worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def close(self) -> None:
        """Close the socket and end the thread; what was set stays."""
        if self._route is not None:
            await self.work(self._route.close)
            self._route = None
        self._thread.shutdown(wait=True)

    async def _do(self, job: Callable[[], _Result], *harmless: int) -> _Result:
        def guarded() -> Any:
            try:
                return job()
            except Exception as error:  # its type is pyroute2's, which is imported in this thread only
                number = getattr(error, "code", None)
                if number in harmless and number is not None:
                    return None
                if number is None:
                    raise
                raise NetlinkRefused(number, str(error.args[-1])) from error

        result: _Result = await self.work(guarded)
        return result

    def _ip(self) -> Any:
        if self._route is None:
            self._route = _iproute_class()()
        return self._route

    def _links(self) -> list[Link]:
        return [
            Link(
                index=link["index"],
                name=link.get("ifname"),
                is_bridge=link.get(("linkinfo", "kind")) == "bridge",
                master=link.get("master") or 0,
                is_up=bool(link["flags"] & 1),
                is_isolated=bool(link.get(("linkinfo", "slave_data", "isolated"))),
            )
            for link in self._ip().get_links()
        ]

    def _rule(self, command: str, guard: Guard, priority: int) -> None:
        self._ip().rule(
            command,
            iifname=guard.interface,
            fwmark=0,
            fwmask=_WHOLE_MARK,
            action="prohibit",
            priority=priority,
            family=_FAMILIES[guard.version],
        )

    def _guards(self, priority: int) -> set[Guard]:
        found: set[Guard] = set()
        for version, family in _FAMILIES.items():
            for rule in self._ip().get_rules(family=family):
                if (
                    rule["action"] == _PROHIBIT
                    and rule.get("priority") == priority
                    and rule.get("iifname")
                    and rule.get("fwmask") == _WHOLE_MARK
                    and not rule.get("fwmark")
                ):
                    found.add(Guard(rule.get("iifname"), version))
        return found


class _Empty(type):
    """The type of everything in a stand-in: whatever is asked of it is there, and empty."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _Nothing(metaclass=_Empty):
    """Stands for a class or function of a module that is imported and never used."""

    def __init__(self, *arguments: object) -> None: ...


class _StandIn(types.ModuleType):
    """Stands for such a module."""

    __path__: list[str] = []  # noqa: RUF012 - makes it a package, for imports of what is in it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


# What pyroute2's routing socket imports for features that we do not use: sockets in other processes (with a class of
# the test library), probes of other hosts (with all of TLS), other namespaces, traffic control. A program that has
# loaded one of them keeps it.
_UNUSED = (
    "unittest",
    "unittest.mock",
    "ctypes.util",
    "multiprocessing",
    "pyroute2.netlink.rtnl.probe_msg",
    "pyroute2.netlink.rtnl.tcmsg",
    "pyroute2.requests.tc",
)


def _iproute_class() -> Any:
    """Import pyroute2's routing socket without running the package's own `__init__`, nor what it would not use."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None or spec.submodule_search_locations is None:
            raise NetlinkRefused(errno.ENOPKG, "the Python package pyroute2 is missing: install python3-pyroute2")
        parent = types.ModuleType("pyroute2")
        parent.__path__ = list(spec.submodule_search_locations)
        parent.__spec__ = spec
        sys.modules["pyroute2"] = parent
        stand_ins = {name: _StandIn(name) for name in _UNUSED if name not in sys.modules}
        if traffic_control := stand_ins.get("pyroute2.netlink.rtnl.tcmsg"):
            traffic_control.plugins = {}  # type: ignore[attr-defined]
        sys.modules.update(stand_ins)
        try:
            importlib.import_module("pyroute2.iproute.linux")
        finally:
            for name in stand_ins:
                if not name.startswith("pyroute2"):
                    del sys.modules[name]  # whoever wants the real one later shall get it
    return importlib.import_module("pyroute2.iproute.linux").IPRoute
