"""The resolver behind the kernel's redirect: a guest that asks a foreign resolver gets our answer, as if from there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from gateway.config import Config, Dns, Endpoint, Zone
from gateway.dns.service import DnsService
from tests.netns.harness import RESOLVER4, RESOLVER6, Lab, wait_for

pytestmark = pytest.mark.root
REDIRECT = """table inet redirected {
    chain c_redirect {
        type nat hook prerouting priority dstnat;
        iifname "BRIDGE" meta l4proto { tcp, udp } th dport 53 redirect
    }
}
"""


@contextmanager
def serving(lab: Lab, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[DnsService]:
    """The service in the gateway's namespace, in a thread."""
    home = lab.zones[0]
    zone = Zone(name="guest", interface=home.bridge, address=home.address)
    service = DnsService(Config(dns=Dns(upstreams=(Endpoint(RESOLVER4, 53),)), zones=(zone,)), time.monotonic)
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def serve() -> None:
        task = asyncio.ensure_future(service.run())
        started.append((asyncio.get_running_loop(), task))
        await asyncio.gather(task, return_exceptions=True)

    def thread() -> None:
        with lab.inside(lab.gateway), asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve())

    worker = threading.Thread(target=thread, name="dns")
    worker.start()
    try:
        assert wait_for(lambda: started and {e.address.version for _, e in service.status().listening} == {4, 6})
        yield service
    finally:
        if started:
            loop, task = started[0]
            loop.call_soon_threadsafe(task.cancel)
        worker.join(20)
    assert not worker.is_alive()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_whatever_resolver_a_guest_asks_we_answer(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """UDP and TCP, IPv4 and IPv6, ours or a foreign address: dig accepts the answer, so it came from whom it asked."""
    with Lab("dns", static=True, plain=True) as lab:
        lab.start_internet()
        ruleset = REDIRECT.replace("BRIDGE", lab.zones[0].bridge)
        lab.run(lab.gateway, ["nft", ruleset])
        with serving(lab, loop_factory) as service:
            servers = (str(lab.zones[0].address.ip), str(RESOLVER4), "192.0.2.99", str(RESOLVER6))
            for server in servers:
                for transport in ("+notcp", "+tcp"):
                    dig = ["dig", "+tries=2", "+time=3", "+short", transport, f"@{server}"]
                    ours = lab.run(lab.guest.netns, [*dig, "login.postern.lan"]).stdout.strip()
                    assert ours == str(lab.zones[0].address.ip), f"{server} {transport}"
            foreign = lab.run(lab.guest.netns, ["dig", "+time=3", "@192.0.2.99", "www.example.test"]).stdout
            assert "status: NOERROR" in foreign or "status: NXDOMAIN" in foreign
            assert service.counts().core.answered == 1
            assert service.counts().send_failures == 0
