"""The kernel's elements are made those of the ledger, and what they had counted is not lost."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from gateway.addresses import MacAddress
from gateway.config import Config, Network, Zone
from gateway.datapath.damage import Damage, Statistics
from gateway.datapath.elements import DOWN, UP, ElementsRefused, Stored, Tally, key_of_client, key_of_number
from gateway.datapath.ledger import Client, Ledger, zone_sets
from gateway.datapath.reconcile import BULK, Reconciler
from gateway.session.events import Event, TrafficAllowed
from gateway.session.model import ClientKey, Counters
from tests.gateway.datapath.kernel_in_memory import NOTHING, MemoryElements

CONFIG = Config(network=Network(uplinks=("eth0",)), zones=(Zone(name="guest", interface="br-guest"),))


class Scene:
    """A ledger, a kernel, and who reconciles them."""

    def __init__(self) -> None:
        self.kernel = MemoryElements()
        self.kernel.sets = {UP: {}, DOWN: {}}
        self.ledger = Ledger(zone_sets(CONFIG))
        self.events: list[Event] = []
        self.damage, self.statistics = Damage(), Statistics()
        self.reconciler = Reconciler(
            self.kernel, self.ledger, self.events.append, lambda: 100.0, self.damage, self.statistics
        )

    def client(self, number: int) -> Client:
        """One more client that is wanted."""
        key = ClientKey("guest", MacAddress(b"\2\0\0\0" + number.to_bytes(2, "big")))
        client = Client(key, IPv4Address(0x0A290000 + number), number, None)
        self.ledger.remember(client)
        self.ledger.bind(key, client.address)
        return client

    def holds(self, client: Client) -> bool:
        """Whether the kernel lets a client through, counts it, and knows its address."""
        zone = self.ledger.zones["guest"]
        element, number = key_of_client(client.key.mac, client.address), key_of_number(client.number)
        let_in = self.kernel.sets.get(zone.auth4, {}).get(element)
        return (
            let_in is not None
            and let_in.mark == client.number
            and element in self.kernel.sets.get(zone.bind4, {})
            and number in self.kernel.sets[UP]
            and number in self.kernel.sets[DOWN]
        )


def test_an_empty_kernel_gets_everybody_and_the_hub_hears_of_each() -> None:
    """In several transactions, so that the loop is not held up; a second time nobody is told anything."""
    scene = Scene()
    clients = [scene.client(number) for number in range(1, BULK)]
    asyncio.run(scene.reconciler.reconcile())
    assert all(map(scene.holds, clients))
    assert scene.events == [TrafficAllowed(client.key) for client in clients]
    assert scene.kernel.transactions > 2
    asyncio.run(scene.reconciler.reconcile())
    assert len(scene.events) == len(clients)


def test_what_nobody_ordered_goes() -> None:
    """A client that was forgotten while the table could not be reached is shut out."""
    scene = Scene()
    gone, stays = scene.client(1), scene.client(2)
    asyncio.run(scene.reconciler.reconcile())
    scene.ledger.forget(gone)
    scene.ledger.unbind(gone.key, gone.address)
    asyncio.run(scene.reconciler.reconcile())
    assert not scene.holds(gone)
    assert scene.holds(stays)
    assert key_of_number(1) not in scene.kernel.sets[UP]


def test_a_start_takes_over_what_was_counted() -> None:
    """Of clients that stay and of those who leave, whose elements go; nobody is told, for nobody noticed."""
    before = Scene()
    stays, leaves = before.client(1), before.client(2)
    asyncio.run(before.reconciler.reconcile())
    for number in (1, 2):
        before.kernel.count(number, Tally(number * 10, number), Tally(number * 100, number))
    after = Scene()
    after.reconciler.elements = after.kernel = before.kernel
    again = after.client(1)
    kept = asyncio.run(after.reconciler.adopt([leaves]))
    assert kept == {stays.key: Counters(10, 1, 100, 1), leaves.key: Counters(20, 2, 200, 2)}
    assert after.holds(again)
    assert after.kernel.sets[UP][key_of_number(1)].tally == Tally(10, 1)
    assert key_of_number(2) not in after.kernel.sets[UP]
    assert after.events == []


def test_counters_under_a_strangers_number_are_not_taken_over() -> None:
    """The kernel knows the number as another client's: what that one used is nobody else's."""
    scene = Scene()
    client = scene.client(7)
    zone = scene.ledger.zones["guest"]
    stranger = key_of_client(MacAddress(b"\2\0\0\0\xff\xff"), IPv4Address("10.41.0.99"))
    scene.kernel.sets[zone.auth4] = {stranger: Stored(7, NOTHING)}
    scene.kernel.count(7, Tally(999, 9), Tally(999, 9))
    assert asyncio.run(scene.reconciler.adopt([])) == {}
    assert scene.holds(client)
    assert stranger not in scene.kernel.sets[zone.auth4]
    assert scene.kernel.sets[UP][key_of_number(7)].tally == NOTHING


def test_a_refusal_is_noted_for_the_watch() -> None:
    """Elements that the kernel does not take are tried again; a set that cannot be read is the caller's to handle."""
    scene = Scene()
    client = scene.client(1)

    async def story() -> None:
        present = await scene.reconciler.dump()
        scene.kernel.refusal = ElementsRefused("out of memory")
        await scene.reconciler._reconcile(present, tell=False)
        with pytest.raises(ElementsRefused):
            await scene.reconciler.dump()

    asyncio.run(story())
    assert scene.statistics.refusals > 0
    assert scene.damage.take() == {client.key}
