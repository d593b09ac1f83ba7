"""TLS hellos and clear alerts (RFC 8446, RFC 5246, RFC 6066), and the JA4 print of a client.

Only what is sent in clear is read: names, versions, cipher and ALPN offers, the server's choice. Encrypted client
hello is
recognised by its extension; the name beside it is then the outer one.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

VERSIONS: Final = {
    0x0002: "SSL 2.0",
    0x0300: "SSL 3.0",
    0x0301: "TLS 1.0",
    0x0302: "TLS 1.1",
    0x0303: "TLS 1.2",
    0x0304: "TLS 1.3",
}
_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
ALERTS: Final = {
    0: "close notify",
    10: "unexpected message",
    20: "bad record MAC",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    47: "illegal parameter",
    48: "unknown certificate authority",
    49: "access denied",
    50: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    86: "inappropriate fallback",
    90: "user cancelled",
    109: "missing extension",
    110: "unsupported extension",
    112: "unrecognized name",
    116: "certificate required",
    120: "no application protocol",
}
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_CIPHERS: Final = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
    0x009C: "RSA-AES128-GCM-SHA256",
    0x009D: "RSA-AES256-GCM-SHA384",
    0x002F: "RSA-AES128-SHA",
    0x0035: "RSA-AES256-SHA",
    0xC013: "ECDHE-RSA-AES128-SHA",
    0xC014: "ECDHE-RSA-AES256-SHA",
    0x0005: "RSA-RC4-128-SHA",
    0x000A: "RSA-3DES-SHA",
}
_MAX_LIST: Final = 400


class ClientHello:
    """What a client offered."""

    __slots__ = (
        *("algorithms", "alpn", "alpn_raw", "ciphers", "ech", "extensions", "legacy_version", "session", "sni"),
        *("ticket", "versions"),
    )

    def __init__(self) -> None:
        self.sni: str | None = None
        self.versions: list[int] = []
        self.legacy_version = 0
        self.ciphers: list[int] = []
        self.extensions: list[int] = []
        self.algorithms: list[int] = []
        self.alpn: list[str] = []
        self.alpn_raw = b""
        self.ech = False
        self.session = b""
        self.ticket = False

    @property
    def best_version(self) -> int:
        """The highest version offered."""
        return max(self.versions, default=self.legacy_version)


class ServerHello(NamedTuple):
    """What a server chose."""

    version: int
    cipher: int
    alpn: str | None
    retry: bool
    session: bytes
    pre_shared: bool


def _grease(value: int) -> bool:
    """Values of RFC 8701 that mean nothing."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def _numbers(data: bytes) -> list[int]:
    return [data[at] << 8 | data[at + 1] for at in range(0, min(len(data), 2 * _MAX_LIST) - 1, 2)]


def client_hello(body: bytes) -> ClientHello | None:
    """Read the body of a ClientHello; None if its lengths do not fit."""
    if len(body) < 38:
        return None
    hello = ClientHello()
    hello.legacy_version = body[0] << 8 | body[1]
    at = 34
    size = body[at]
    hello.session = body[at + 1 : at + 1 + size]
    at += 1 + size
    if at + 2 > len(body):
        return None
    size = body[at] << 8 | body[at + 1]
    hello.ciphers = [item for item in _numbers(body[at + 2 : at + 2 + size]) if not _grease(item)]
    at += 2 + size
    if at >= len(body):
        return None
    at += 1 + body[at]
    for code, data in _extensions(body, at):
        if _grease(code):
            continue
        hello.extensions.append(code)
        if code == 0 and len(data) >= 5 and data[2] == 0:
            hello.sni = _host(data[5 : 5 + (data[3] << 8 | data[4])])
        elif code == 16:
            hello.alpn_raw, hello.alpn = _protocols(data)
        elif code == 43 and data:
            hello.versions = [item for item in _numbers(data[1 : 1 + data[0]]) if not _grease(item)]
        elif code == 13 and len(data) >= 2:
            hello.algorithms = [item for item in _numbers(data[2:]) if not _grease(item)]
        elif code == 0xFE0D:
            hello.ech = True
        elif code == 35:
            hello.ticket = bool(data)
    return hello


def _extensions(body: bytes, at: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    if at + 2 > len(body):
        return found
    end = min(len(body), at + 2 + (body[at] << 8 | body[at + 1]))
    at += 2
    while at + 4 <= end and len(found) < 128:
        code, size = body[at] << 8 | body[at + 1], body[at + 2] << 8 | body[at + 3]
        found.append((code, body[at + 4 : min(end, at + 4 + size)]))
        at += 4 + size
    return found


def _host(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")[:253]
    if "xn--" in text:
        try:
            return raw.decode("ascii").encode("ascii").decode("idna")[:253]
        except UnicodeError:
            return text
    return text


def _protocols(data: bytes) -> tuple[bytes, list[str]]:
    names: list[str] = []
    first = b""
    at = 2
    while at < len(data) and len(names) < 16:
        raw = data[at + 1 : at + 1 + data[at]]
        first = first or raw
        names.append(raw.decode("utf-8", "replace"))
        at += 1 + data[at]
    return first, names


def server_hello(body: bytes) -> ServerHello | None:
    """Read the body of a ServerHello; None if its lengths do not fit."""
    if len(body) < 38:
        return None
    version = body[0] << 8 | body[1]
    size = body[34]
    session = body[35 : 35 + size]
    at = 35 + size
    if at + 3 > len(body):
        return None
    cipher = body[at] << 8 | body[at + 1]
    alpn: str | None = None
    pre_shared = False
    for code, data in _extensions(body, at + 3):
        if code == 43 and len(data) == 2:
            version = data[0] << 8 | data[1]
        elif code == 16:
            names = _protocols(data)[1]
            alpn = names[0] if names else None
        elif code == 41:
            pre_shared = True
    return ServerHello(version, cipher, alpn, body[2:34] == _RETRY_RANDOM, session, pre_shared)


def cipher_name(number: int) -> str:
    """The usual name of a cipher suite, or its number."""
    return _CIPHERS.get(number, f"0x{number:04x}")


def ja4(hello: ClientHello, transport: str) -> str:
    """The JA4 print of a client hello; `transport` is t for TCP, q for QUIC, d for DTLS."""
    version = _JA4_VERSIONS.get(hello.best_version, "00")
    first, last = "0", "0"
    if hello.alpn_raw:
        first, last = chr(hello.alpn_raw[0]), chr(hello.alpn_raw[-1])
        if not (first.isascii() and first.isalnum() and last.isascii() and last.isalnum()):
            digits = hello.alpn_raw.hex()
            first, last = digits[0], digits[-1]
    named = "d" if 0 in hello.extensions else "i"
    head = (
        f"{transport}{version}{named}{min(99, len(hello.ciphers)):02d}{min(99, len(hello.extensions)):02d}{first}{last}"
    )
    ciphers = ",".join(sorted(f"{item:04x}" for item in hello.ciphers))
    extensions = ",".join(sorted(f"{item:04x}" for item in hello.extensions if item not in (0, 16)))
    algorithms = ",".join(f"{item:04x}" for item in hello.algorithms)
    listed = f"{extensions}_{algorithms}" if algorithms else extensions
    return f"{head}_{_short_hash(ciphers)}_{_short_hash(listed) if hello.extensions else '0' * 12}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
