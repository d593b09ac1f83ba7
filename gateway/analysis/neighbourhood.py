"""Which addresses belong to the network at hand.

Private addresses say so themselves. In IPv6 hosts speak with global addresses inside their own network too: there
the prefixes count that neighbour discovery spoke of (RFC 4861), and where none was recorded, the one prefix that
nearly every connection has at one end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from gateway.analysis.fold import split_key
from gateway.analysis.measures import is_group, is_local

if TYPE_CHECKING:
    from gateway.analysis.state import State

_PREFIX: Final = 8  # bytes of a network
_SHARE: Final = 0.9  # of the connections that a prefix takes part in to be ours without neighbour discovery


def membership(st: State) -> Callable[[bytes], bool]:
    """A test whether an address is local, for when the whole file is read; made once, for several detectors ask."""
    if st.local is None:
        st.local = _membership(st)
    return st.local


def _membership(st: State) -> Callable[[bytes], bool]:
    ours = frozenset(st.icmp.prefixes) or _usual(st)

    @lru_cache(maxsize=4096)  # flow after flow asks for the same addresses
    def local(address: bytes) -> bool:
        return is_local(address) or address[:_PREFIX] in ours

    return local


def _usual(st: State) -> frozenset[bytes]:
    """The prefix at one end of nearly all IPv6 connections; of two that are, the one that opens them."""
    counts: Counter[bytes] = Counter()
    total = 0
    for key in chain((conn.key for conn in st.connections), (flow.key for flow in st.udp_flows)):
        if len(key) < 36:
            continue
        source, target, _, _ = split_key(key)
        if is_local(source) or is_local(target) or is_group(target):
            continue
        total += 1
        for prefix in dict.fromkeys((source[:_PREFIX], target[:_PREFIX])):  # the source first: it wins a tie
            counts[prefix] += 1
    if not total:
        return frozenset()
    best, count = counts.most_common(1)[0]
    return frozenset({best}) if count >= _SHARE * total else frozenset()
