"""The fallback for elements: the same changes said in nft's language, gathered and given to `nft -f -` every 50 ms.

For kernels or sandboxes where the codec's self-test fails. It knows no transaction per login, only per batch, and its
final counters are read just before the removal instead of with it: slower and a little less exact, but it works
wherever the ruleset itself could be loaded.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final

from gateway.addresses import MacAddress
from gateway.datapath.elements import (
    DOWN,
    UP,
    Change,
    Done,
    Drop,
    ElementSet,
    ElementsRefused,
    Finals,
    Kind,
    Put,
    ReadDone,
    Stored,
    Tally,
    key_of_number,
)
from gateway.datapath.nft import nft_json, run_nft

INTERVAL_S: Final = 0.05
_NOTHING: Final = Tally(0, 0)


class ScriptedElements:
    """Elements of one table, through batches of nft scripts; `run` must be running."""

    mode = "fallback"

    def __init__(self, table: str) -> None:
        self._table = table
        self._waiting: list[tuple[Sequence[Change], Done]] = []
        self._reads: list[tuple[Sequence[int], ReadDone]] = []
        self._wake = asyncio.Event()

    def close(self) -> None:
        """Nothing is held."""

    def commit(self, changes: Sequence[Change], done: Done) -> None:
        """Queue the changes for the next batch."""
        self._waiting.append((changes, done))
        self._wake.set()

    def read(self, numbers: Sequence[int], done: ReadDone) -> None:
        """Queue a reading for after the next batch."""
        self._reads.append((numbers, done))
        self._wake.set()

    async def run(self) -> None:
        """Work off what was queued, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(INTERVAL_S)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Work off what is queued now."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            if (trouble := await self._apply([change for changes, _ in waiting for change in changes]))[0] is None:
                for changes, done in waiting:
                    done(None, {place: tally for place, tally in trouble[1].items() if _drops(changes, place)})
            else:
                # One bad change spoils a batch: find out whose it is.
                for changes, done in waiting:
                    refused, finals = await self._apply(changes)
                    done(refused, finals)
        reads, self._reads = self._reads, []
        if reads:
            up = await self._list(UP)
            down = await self._list(DOWN)
            for numbers, done_reading in reads:
                keys = [(number, key_of_number(number)) for number in numbers]
                done_reading({n: (up[k].tally, down[k].tally) for n, k in keys if k in up and k in down})

    async def dump(self, element_set: ElementSet) -> dict[bytes, Stored]:
        """Read a whole set."""
        return await self._list(element_set, demanded=True)

    async def _apply(self, changes: Sequence[Change]) -> tuple[ElementsRefused | None, Finals]:
        present: dict[str, dict[bytes, Stored]] = {}
        for change in changes:
            if change.set.name not in present:
                present[change.set.name] = await self._list(change.set)
        finals: Finals = {}
        lines: list[str] = []
        for change in changes:
            held = present[change.set.name]
            where = f"inet {self._table} {change.set.name}"
            stored = held.pop(change.key, None)
            if isinstance(change, Put) and stored is not None and not change.set.kind.timed:
                held[change.key] = stored
                continue
            if stored is not None:
                lines.append(f"delete element {where} {{ {name_key(change.set.kind, change.key)} }}")
                if isinstance(change, Drop) and change.set.kind.counted:
                    finals[change.set.name, change.key] = stored.tally
            if isinstance(change, Put):
                lines.append(f"add element {where} {{ {name_put(change)} }}")
                held[change.key] = Stored(change.mark, change.tally or _NOTHING)
        if not lines:
            return None, finals
        trouble = await run_nft("\n".join(lines) + "\n")
        if trouble:
            return ElementsRefused(trouble, lost="No such file" in trouble), {}
        return None, finals

    async def _list(self, element_set: ElementSet, *, demanded: bool = False) -> dict[bytes, Stored]:
        kind = "map" if element_set.kind.marked else "set"
        text = await nft_json("list", kind, "inet", self._table, element_set.name)
        if not text:
            if demanded:
                raise ElementsRefused(f"{element_set.name} is not there", lost=True)
            return {}
        return read_listing(text)


def _drops(changes: Sequence[Change], place: tuple[str, bytes]) -> bool:
    return any(isinstance(change, Drop) and (change.set.name, change.key) == place for change in changes)


def name_key(kind: Kind, key: bytes) -> str:
    """Say a key as nft wants it."""
    if kind is Kind.NUMBERS:
        return str(int.from_bytes(key, sys.byteorder))
    mac = str(MacAddress(key[:6]))
    return mac if kind is Kind.AUTH6 else f"{mac} . {IPv4Address(key[8:12])}"


def name_put(put: Put) -> str:
    """Say an element that shall be there."""
    text = name_key(put.set.kind, put.key)
    if put.tally is not None:
        text += f" counter packets {put.tally.packets} bytes {put.tally.bytes}"
    if put.lifetime_s is not None:
        text += f" timeout {put.lifetime_s}s"
    if put.set.kind.marked:
        text += f" : {put.mark}"
    return text


def read_listing(text: str) -> dict[bytes, Stored]:
    """Read the elements of a set or map from nft's JSON."""
    found: dict[bytes, Stored] = {}
    for item in json.loads(text).get("nftables", ()):
        listed = item.get("set") or item.get("map")
        for element in (listed or {}).get("elem", ()):
            # A map's element is a pair of key and data; details of either stand in a wrapper named "elem".
            pair = element if isinstance(element, list) else [element, 0]
            details = pair[0]["elem"] if isinstance(pair[0], dict) and "elem" in pair[0] else {"val": pair[0]}
            counter = details.get("counter") or {}
            tally = Tally(counter.get("bytes", 0), counter.get("packets", 0))
            found[_key(details["val"])] = Stored(int(pair[1]), tally, int(details.get("timeout", 0)) * 1000)
    return found


def _key(value: Any) -> bytes:
    if isinstance(value, int):
        return key_of_number(value)
    if isinstance(value, dict):
        mac, address = value["concat"]
        return MacAddress.parse(mac) + b"\0\0" + IPv4Address(address).packed
    return bytes(MacAddress.parse(value))
