"""Elements through nfnetlink: a login or logout is one transaction of some 15 µs, decided before the call returns.

All or nothing. Counters of what a `Drop` removed come back with it: the kernel echoes the removed element as it was
when it had stopped matching packets, so not one octet is lost (kernels that echo no counter are asked just before).
`self_test` proves on a scratch table that this kernel does what is relied on here; where it does not, `scripted` takes
over.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Done,
    Drop,
    ElementSet,
    ElementsRefused,
    Encoder,
    Finals,
    Kind,
    Put,
    ReadDone,
    Stored,
    Tally,
    decode_elements,
    key_of_client,
    key_of_number,
)
from gateway.datapath.nfnetlink import ACK, DUMP, ECHO, Channel, KernelRefused, Reply
from gateway.datapath.nft import run_nft
from gateway.values import value_class

# Keys of one read: every reply is a buffer of its own in the receive queue.
READ: Final = 150
LOOP_SHARE_S: Final = 0.004  # how long a long dump may keep the event loop before it lets others run


@value_class
class Abilities:
    """What differs between kernels."""

    echoes_counters: bool  # a removed element comes back with its counter
    renews_lifetimes: bool  # adding an element again sets its lifetime (6.13); else it must be replaced
    destroys: bool  # knows DESTROYSETELEM (6.3); else what shall be dropped is looked up first


class KernelElements:
    """Elements of one table, through one nfnetlink socket on the event loop's thread."""

    mode = "codec"

    def __init__(self, table: str, abilities: Abilities) -> None:
        self.table = table
        self.channel = Channel()
        self._encoder = Encoder(table, destroys=abilities.destroys)
        self._abilities = abilities

    def close(self) -> None:
        """Close the socket; the kernel keeps the elements."""
        self.channel.close()

    def commit(self, changes: Sequence[Change], done: Done) -> None:
        """Make the changes in one transaction and call `done` with what came of it."""
        try:
            done(None, self._commit(changes))
        except KernelRefused as refused:
            # Anything missing but a dropped element: a set, so the table is not what we loaded.
            done(ElementsRefused(str(refused), lost=refused.errno == errno.ENOENT), {})
        except OSError as error:
            done(ElementsRefused(f"cannot talk to the kernel: {error}"), {})

    def read(self, numbers: Sequence[int], done: ReadDone) -> None:
        """Read counters of clients and call `done` with those that were found."""
        found: dict[int, tuple[Tally, Tally]] = {}
        for first in range(0, len(numbers), READ):
            keys = [key_of_number(number) for number in numbers[first : first + READ]]
            up = self._read(UP, keys)
            down = self._read(DOWN, keys)
            for number, key in zip(numbers[first : first + READ], keys, strict=True):
                if key in up and key in down:
                    found[number] = (up[key], down[key])
        done(found)

    async def dump(self, element_set: ElementSet) -> dict[bytes, Stored]:
        """Read a whole set without holding up the event loop; raises ElementsRefused."""
        channel = Channel()  # its own: a dump goes on between other requests
        stored: dict[bytes, Stored] = {}
        try:
            pieces = channel.dump(self._encoder.read(element_set, (), 1, DUMP))
            since = time.perf_counter()
            for replies in pieces:
                for reply in replies:
                    for _name, key, value in decode_elements(reply):
                        stored[key] = value
                if time.perf_counter() - since > LOOP_SHARE_S:
                    await asyncio.sleep(0)
                    since = time.perf_counter()
        except KernelRefused as refused:
            raise ElementsRefused(str(refused), lost=refused.errno == errno.ENOENT) from refused
        except OSError as error:
            raise ElementsRefused(f"cannot talk to the kernel: {error}") from error
        finally:
            channel.close()
        return stored

    def _commit(self, changes: Sequence[Change]) -> Finals:
        """Send the changes until they hold.

        A transaction that the kernel takes back costs it an RCU grace period, ten milliseconds and more during which we
        wait: so nothing is tried that is known to fail often, such as deleting what its lifetime has ended already.
        """
        wanted: list[Change] = list(changes)
        finals: Finals = {}
        abilities = self._abilities
        if not abilities.renews_lifetimes:
            wanted = self._replacing(wanted)
        if not (abilities.destroys and abilities.echoes_counters):
            wanted, finals = self._look_up_drops(wanted)
        change = self._encoder.change
        while wanted:
            last = len(wanted)
            batch = [
                change(
                    one,
                    place,
                    (ECHO if type(one) is Drop and one.set.kind.counted else 0) | (ACK if place == last else 0),
                )
                for place, one in enumerate(wanted, 1)
            ]
            try:
                replies = self.channel.transact(batch, last)
            except KernelRefused as refused:
                if not 1 <= refused.place <= last:
                    raise
                at = refused.place - 1
                culprit = wanted[at]
                room = Drop(culprit.set, culprit.key)
                # There with another mark. A Drop just before makes room; a second refusal is final.
                if (
                    not isinstance(culprit, Put)
                    or refused.errno not in (errno.EEXIST, errno.EBUSY)
                    or (at and wanted[at - 1] == room)
                ):
                    raise
                wanted.insert(at, room)
                continue
            if replies and abilities.echoes_counters:
                finals.update(_tallies(replies))
            break
        return finals

    def _replacing(self, changes: Sequence[Change]) -> list[Change]:
        """Where lifetimes are not renewed in place: remove before adding."""
        replaced: list[Change] = []
        for change in changes:
            if isinstance(change, Put) and change.set.kind.timed:
                replaced.append(Drop(change.set, change.key))
            replaced.append(change)
        return replaced

    def _look_up_drops(self, changes: Sequence[Change]) -> tuple[list[Change], Finals]:
        """Leave out drops of what is not there, and note the counters of the rest."""
        left: list[Change] = []
        finals: Finals = {}
        for change in changes:
            if isinstance(change, Drop):
                found = self._read(change.set, [change.key])
                if change.key not in found:
                    continue
                if change.set.kind.counted:
                    finals[change.set.name, change.key] = found[change.key]
            left.append(change)
        return left, finals

    def _read(self, element_set: ElementSet, keys: Sequence[bytes]) -> dict[bytes, Tally]:
        """Read some elements; the kernel stops at the first key that is missing, so go on after it."""
        found: dict[bytes, Tally] = {}
        left = list(keys)
        while left:
            replies, refused = self.channel.ask_tolerantly(self._encoder.read(element_set, left, 1, ACK), 1)
            before = len(found)
            for reply in replies:
                for _name, key, stored in decode_elements(reply):
                    found[key] = stored.tally
            if refused is None or refused.errno != errno.ENOENT:
                break
            left = left[len(found) - before + 1 :]
        return found


def _tallies(replies: Sequence[Reply]) -> Finals:
    return {(name, key): stored.tally for reply in replies for name, key, stored in decode_elements(reply)}


_NOTHING: Final = Tally(0, 0)
_SCRATCH_TABLE: Final = "postern_selftest"
# One that is there was left by a start that was killed in the midst of its test.
_SCRATCH: Final = """
table inet {table} {{
}}
delete table inet {table}
table inet {table} {{
\tmap auth4 {{ typeof ether saddr . ip saddr : meta mark; flags timeout; }}
\tset up {{ typeof ct mark; size 256; counter; }}
}}
"""


async def self_test() -> Abilities:
    """Add, read back, renew and remove elements of a scratch table; raises ElementsRefused when this does not work."""
    table = _SCRATCH_TABLE
    trouble = await run_nft(_SCRATCH.format(table=table))
    if trouble:
        raise ElementsRefused(f"the scratch table was refused: {trouble}")
    try:
        return await _test_in(table)
    finally:
        await run_nft(f"delete table inet {table}\n")


async def _test_in(table: str) -> Abilities:
    auth = ElementSet("auth4", Kind.AUTH4)
    who = key_of_client(MacAddress(b"\x02\0\x5e\x10\0\x2a"), IPv4Address("192.0.2.42"))
    number = key_of_number(0x1234)
    elements = KernelElements(table, Abilities(echoes_counters=True, renews_lifetimes=True, destroys=False))
    try:
        elements._commit([Put(auth, who, 0x1234, 60), Put(UP, number, tally=Tally(70_000, 9))])
        stored = await elements.dump(auth)
        counted = elements._read(UP, [number])
        if stored != {who: Stored(0x1234, _NOTHING, 60_000)} or counted != {number: Tally(70_000, 9)}:
            raise ElementsRefused(f"elements come back changed: {stored}, {counted}")
        elements._commit([Put(auth, who, 0x1234, 3600)])
        renewed = (await elements.dump(auth)).get(who) == Stored(0x1234, _NOTHING, 3_600_000)
        echoes, destroys = _test_removal(elements, number)
        return Abilities(echoes, renewed, destroys)
    except OSError as error:
        raise ElementsRefused(f"the codec does not work here: {error}") from error
    finally:
        elements.close()


def _test_removal(elements: KernelElements, number: bytes) -> tuple[bool, bool]:
    """Whether a removed element is echoed with its counter, and whether nothing may be destroyed."""
    absent = Drop(UP, key_of_number(0x4321))
    destroying = Encoder(elements.table)
    try:
        elements.channel.transact([destroying.change(absent, 1, ACK)], 1)
        destroys = True
    except KernelRefused:
        destroys = False
    encoder = destroying if destroys else Encoder(elements.table, destroys=False)
    replies = elements.channel.transact([encoder.change(Drop(UP, number), 1, ECHO | ACK)], 1)
    if elements._read(UP, [number]):
        raise ElementsRefused("a removed element is still there")
    return _tallies(replies) == {("up", number): Tally(70_000, 9)}, destroys
