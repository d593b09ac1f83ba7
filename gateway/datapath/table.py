"""The loaded table: put in place in one transaction, watched, and told apart from what should be there.

A new ruleset replaces the rules of the loaded one in place: chains are emptied and written anew, but the sets of
clients keep their elements and counters, so that nobody online notices. Only when the kernel does not accept that
(another layout of the sets after an upgrade) is the table made from nothing; the caller then adds the elements again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.datapath.nfnetlink import DUMP, SUBSYSTEM_NFTABLES, Channel, attributes, message
from gateway.datapath.nft import run_nft
from gateway.datapath.ruleset import version_of

log = logging.getLogger(__name__)

_GET_CHAIN: Final = 4
_GET_SET: Final = 10
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_SET_TABLE, _SET_NAME, _SET_FLAGS = 1, 2, 3
_ANONYMOUS: Final = 0x1
_MAP: Final = 0x8
_CLIENT_SETS: Final = ("up", "down", "auth4_", "auth6_", "bind4_")


class RulesetRefused(Exception):
    """nft or the kernel did not take the ruleset; the text says why."""


class LoadedSet(NamedTuple):
    """A named set or map of the loaded table."""

    name: str
    is_map: bool


class GateTable:
    """Our table in the kernel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._channel = Channel()
        self._expected: dict[str, int] = {}

    def close(self) -> None:
        """Close the socket; the table stays."""
        self._channel.close()

    async def load(self, text: str) -> bool:
        """Load a ruleset; returns whether the elements that were there have been kept. Raises RulesetRefused."""
        chains = self.chains()
        kept = False
        if chains:
            trouble = await run_nft(replacing(self.name, text, chains, self.sets()))
            kept = not trouble
            if trouble:
                log.warning("the loaded table could not be changed in place, making it anew reason=%s", trouble)
        if not kept:
            trouble = await run_nft(f"table inet {self.name}\ndelete table inet {self.name}\n{text}")
            if trouble:
                raise RulesetRefused(f"the ruleset was refused: {trouble}")
        self._expected = self.chains()
        return kept

    async def remove(self) -> None:
        """Remove the table and everything in it."""
        await run_nft(f"table inet {self.name}\ndelete table inet {self.name}\n")
        self._expected = {}

    def intact(self) -> bool:
        """Whether every chain has as many rules as were loaded; false when the table is gone."""
        return bool(self._expected) and self.chains() == self._expected

    def is_version_of(self, text: str) -> bool:
        """Whether this very ruleset is loaded, by the name of its version chain."""
        return version_of(text) in self.chains()

    def chains(self) -> dict[str, int]:
        """Chains of the table and how many rules (and jumps to it) each has; empty without the table."""
        found: dict[str, int] = {}
        for replies in self._channel.dump(message(SUBSYSTEM_NFTABLES, _GET_CHAIN, DUMP, 1, b"")):
            for reply in replies:
                table = name = ""
                uses = 0
                for kind, start, end in attributes(reply.data, reply.start, reply.end):
                    if kind == _CHAIN_TABLE:
                        table = _text(reply.data[start:end])
                    elif kind == _CHAIN_NAME:
                        name = _text(reply.data[start:end])
                    elif kind == _CHAIN_USE:
                        uses = int.from_bytes(reply.data[start:end], "big")
                if table == self.name:
                    found[name] = uses
        return found

    def sets(self) -> list[LoadedSet]:
        """Named sets and maps of the table."""
        found: list[LoadedSet] = []
        for replies in self._channel.dump(message(SUBSYSTEM_NFTABLES, _GET_SET, DUMP, 1, b"")):
            for reply in replies:
                table = name = ""
                flags = 0
                for kind, start, end in attributes(reply.data, reply.start, reply.end):
                    if kind == _SET_TABLE:
                        table = _text(reply.data[start:end])
                    elif kind == _SET_NAME:
                        name = _text(reply.data[start:end])
                    elif kind == _SET_FLAGS:
                        flags = int.from_bytes(reply.data[start:end], "big")
                if table == self.name and not flags & _ANONYMOUS:
                    found.append(LoadedSet(name, bool(flags & _MAP)))
        return found


def replacing(table: str, text: str, chains: Mapping[str, int], sets: list[LoadedSet]) -> str:
    """The script that turns the loaded table into `text` in one transaction, keeping the clients' elements."""
    lines = [f"flush table inet {table}"]
    lines += [f"delete chain inet {table} {name}" for name in sorted(chains) if f"chain {name} {{" not in text]
    for loaded in sorted(sets):
        word = "map" if loaded.is_map else "set"
        if f"{word} {loaded.name} {{" not in text:
            lines.append(f"delete {word} inet {table} {loaded.name}")
        elif not loaded.name.startswith(_CLIENT_SETS):
            # What the configuration fills is filled anew by the text.
            lines.append(f"flush {word} inet {table} {loaded.name}")
    return "\n".join(lines) + "\n" + text


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")
