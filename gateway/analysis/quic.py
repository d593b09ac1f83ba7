"""QUIC Initial packets (RFC 9000, RFC 9001, RFC 9369): the client's name, versions, and whether it was answered.

Initial packets of versions 1 and 2 are encrypted with keys that follow from a public salt and the connection id.
Decrypting is
slow in Python, so only the client's first three Initials of the first 200 flows are opened; of others the version is
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.analysis import tls

if TYPE_CHECKING:
    from gateway.analysis.state import State

_V1: Final = 0x00000001
_V2: Final = 0x6B3343CF
# Packet type bits of the long header: version 2 turned them round by one.
_INITIAL: Final = {_V1: 0, _V2: 1}
_RETRY: Final = {_V1: 3, _V2: 0}
_NAMES: Final = {_V1: "1", _V2: "2", 0: "negotiation", 0xFF00001D: "draft-29"}
_MAX_FLOWS: Final = 200
_MAX_OPENED: Final = 3
_MAX_HELLO: Final = 8_192


class QuicFlow:
    """One flow's handshake."""

    __slots__ = (
        "alpn",
        "answered_ns",
        "crypto",
        "done",
        "flow",
        "frame",
        "initials",
        "ja4",
        "opened",
        "retry",
        "sni",
        "time",
        "version",
    )

    def __init__(self, flow: Any, version: int, t: int, frame: int) -> None:  # Any: UdpFlow, which imports this module
        self.flow = flow
        self.version = version
        self.time = t
        self.frame = frame
        self.initials = self.opened = 0
        self.retry = self.done = False
        self.answered_ns: int | None = None
        self.crypto: dict[int, bytes] = {}
        self.sni: str | None = None
        self.alpn: list[str] = []
        self.ja4: str | None = None


def variable(buf: bytes, at: int, end: int) -> tuple[int, int] | None:
    """A variable-length integer and the position behind it (RFC 9000 section 16)."""
    if at >= end:
        return None
    size = 1 << (buf[at] >> 6)
    if at + size > end:
        return None
    return int.from_bytes(buf[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


def datagram(
    st: State, flow: Any, from_orig: bool, key: bytes, buf: bytes, at: int, end: int, t: int, frame: int
) -> bool:
    """Take one datagram on port 443; returns whether it has a long header of QUIC or belongs to a known flow."""
    known: QuicFlow | None = flow.app
    if at >= end:
        return False
    if not buf[at] & 0x80:
        if known is not None and not from_orig and known.answered_ns is None:
            known.answered_ns = t - known.time
        return known is not None
    if at + 7 > end:
        return False
    version = int.from_bytes(buf[at + 1 : at + 5], "big")
    plausible = version in _NAMES or version >> 8 == 0xFF0000 or version >> 24 in (0x51, 0x54)
    if not plausible:
        return False
    kind = buf[at] >> 4 & 3
    if known is None:
        if version == 0:
            return False
        known = flow.app = QuicFlow(flow, version, t, frame)
        if len(st.quic) < st.settings.tables.rows:
            st.quic.append(known)
        st.quic_total += 1
    if not from_orig:
        if version in _RETRY and kind == _RETRY[version]:
            known.retry = True
        elif known.answered_ns is None:
            known.answered_ns = t - known.time
        return True
    if version in _INITIAL and kind == _INITIAL[version]:
        known.version = version
        known.initials += 1
        if not known.done and known.opened < _MAX_OPENED and (known.opened or st.quic_opened < _MAX_FLOWS):
            if not known.opened:
                st.quic_opened += 1
            known.opened += 1
            # The tables of its cipher take as long as a small capture, and most captures have no QUIC.
            from gateway.analysis.quic_initial import opened

            clear = opened(buf, at, end, version)
            if clear is not None:
                _frames(known, clear)
                _hello(known)
    return True


def _frames(known: QuicFlow, clear: bytes) -> None:
    at, end = 0, len(clear)
    for _ in range(256):
        if at >= end:
            return
        kind = clear[at]
        if kind == 1:  # ping
            at += 1
            continue
        if kind == 0:  # padding, often hundreds of bytes between two frames
            at += len(clear[at:]) - len(clear[at:].lstrip(b"\0"))
            continue
        if kind in (2, 3):  # acknowledgement
            at += 1
            values = []
            for _ in range(4):
                value = variable(clear, at, end)
                if value is None:
                    return
                values.append(value[0])
                at = value[1]
            for _ in range(min(values[2], 64) * 2 + (3 if kind == 3 else 0)):
                value = variable(clear, at, end)
                if value is None:
                    return
                at = value[1]
            continue
        if kind != 6:
            return
        offset = variable(clear, at + 1, end)
        size = variable(clear, offset[1], end) if offset is not None else None
        if offset is None or size is None:
            return
        data = clear[size[1] : size[1] + size[0]]
        if offset[0] < _MAX_HELLO and len(known.crypto) < 64 and len(data) > len(known.crypto.get(offset[0], b"")):
            known.crypto[offset[0]] = data
        at = size[1] + size[0]


def _hello(known: QuicFlow) -> None:
    whole = b""
    for offset in sorted(known.crypto):
        if offset > len(whole):
            break
        whole += known.crypto[offset][len(whole) - offset :]
    if len(whole) < 4 or whole[0] != 1:
        return
    size = int.from_bytes(whole[1:4], "big")
    if len(whole) < 4 + size:
        return
    hello = tls.client_hello(whole[4 : 4 + size])
    known.done = True
    known.crypto.clear()
    if hello is not None:
        known.sni = hello.sni
        known.alpn = hello.alpn
        known.ja4 = tls.ja4(hello, "q")
        known.flow.name = hello.sni


def version_name(version: int) -> str:
    """A QUIC version as people write it."""
    return _NAMES.get(version, f"0x{version:08x}")
