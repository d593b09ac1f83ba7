"""Decrypting a client's Initial packet of QUIC (RFC 9001 section 5, RFC 9369).

Its keys follow from a public salt and the connection id, so that whoever sees the packet can read it. A module of
its own because the tables of the cipher are made when it is imported, and few captures need them.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from gateway.analysis.aes import encrypt_block, expand_key, gcm_decrypt
from gateway.analysis.quic import variable

_V1: Final = 0x00000001
_V2: Final = 0x6B3343CF
_SALT: Final = {
    _V1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    _V2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
}
_LABELS: Final = {
    _V1: (b"quic key", b"quic iv", b"quic hp"),
    _V2: (b"quicv2 key", b"quicv2 iv", b"quicv2 hp"),
}


def opened(buf: bytes, at: int, end: int, version: int) -> bytes | None:
    """The frames in a client's Initial of version 1 or 2, decrypted; None if its lengths do not fit."""
    position = at + 5
    size = buf[position]
    destination = buf[position + 1 : position + 1 + size]
    position += 1 + size
    if position >= end or size > 20:
        return None
    position += 1 + buf[position]
    token = variable(buf, position, end)
    if token is None:
        return None
    length = variable(buf, token[1] + token[0], end)
    if length is None:
        return None
    number_at = length[1]
    if number_at + 20 > end:
        return None
    secret = hmac.new(_SALT[version], destination, hashlib.sha256).digest()
    client = _expand(secret, b"client in", 32)
    key_label, iv_label, hp_label = _LABELS[version]
    mask = encrypt_block(expand_key(_expand(client, hp_label, 16)), buf[number_at + 4 : number_at + 20])
    number_size = ((buf[at] ^ mask[0]) & 3) + 1
    number = int.from_bytes(
        bytes(x ^ y for x, y in zip(buf[number_at : number_at + number_size], mask[1:], strict=False)), "big"
    )
    iv = _expand(client, iv_label, 12)
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    stop = min(end, number_at + length[0]) - 16  # the tag is not checked
    return gcm_decrypt(_expand(client, key_label, 16), nonce, buf[number_at + number_size : min(stop, at + 1600)])


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3 for up to 32 bytes (RFC 8446 section 7.1)."""
    name = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0\x01"
    return hmac.new(secret, info, hashlib.sha256).digest()[:size]
