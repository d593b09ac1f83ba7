"""AES-128 in plain Python (FIPS 197): enough to read a handful of QUIC Initial packets.

A block costs about 40 microseconds; the caller bounds how many packets are tried. Only the forward direction is
here: counter mode
(the encryption part of GCM) and header protection need no other.
"""

from __future__ import annotations

import struct
from typing import Final


def _tables() -> tuple[bytes, list[int]]:
    """The S-box, and the combined S-box and column table of the first row."""
    power, log = [0] * 256, [0] * 256
    value = 1
    for exponent in range(255):
        power[exponent] = value
        log[value] = exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
        value &= 0xFF
    box = bytearray(256)
    for item in range(256):
        inverse = power[(255 - log[item]) % 255] if item else 0
        mixed = inverse
        for shift in range(1, 5):
            mixed ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box[item] = mixed ^ 0x63
    columns = []
    for item in range(256):
        one = box[item]
        two = (one << 1) ^ (0x11B if one & 0x80 else 0)
        columns.append(two << 24 | one << 16 | one << 8 | (two ^ one))
    return bytes(box), columns


_BOX, _T0 = _tables()
_T1: Final = [(word >> 8 | word << 24) & 0xFFFFFFFF for word in _T0]
_T2: Final = [(word >> 16 | word << 16) & 0xFFFFFFFF for word in _T0]
_T3: Final = [(word >> 24 | word << 8) & 0xFFFFFFFF for word in _T0]


def expand_key(key: bytes) -> list[int]:
    """The 44 round-key words of a 16-byte key."""
    words = list(struct.unpack(">4I", key))
    constant = 1
    for index in range(4, 44):
        word = words[-1]
        if index % 4 == 0:
            word = (word << 8 | word >> 24) & 0xFFFFFFFF
            word = _BOX[word >> 24] << 24 | _BOX[word >> 16 & 255] << 16 | _BOX[word >> 8 & 255] << 8 | _BOX[word & 255]
            word ^= constant << 24
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        words.append(words[index - 4] ^ word)
    return words


def encrypt_block(words: list[int], block: bytes) -> bytes:
    """One block of 16 bytes under expanded key words."""
    a, b, c, d = (item ^ key for item, key in zip(struct.unpack(">4I", block), words[:4], strict=True))
    for at in range(4, 40, 4):
        a, b, c, d = (
            _T0[a >> 24] ^ _T1[b >> 16 & 255] ^ _T2[c >> 8 & 255] ^ _T3[d & 255] ^ words[at],
            _T0[b >> 24] ^ _T1[c >> 16 & 255] ^ _T2[d >> 8 & 255] ^ _T3[a & 255] ^ words[at + 1],
            _T0[c >> 24] ^ _T1[d >> 16 & 255] ^ _T2[a >> 8 & 255] ^ _T3[b & 255] ^ words[at + 2],
            _T0[d >> 24] ^ _T1[a >> 16 & 255] ^ _T2[b >> 8 & 255] ^ _T3[c & 255] ^ words[at + 3],
        )
    rows = ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c))
    return struct.pack(
        ">4I",
        *(
            (_BOX[w >> 24] << 24 | _BOX[x >> 16 & 255] << 16 | _BOX[y >> 8 & 255] << 8 | _BOX[z & 255]) ^ words[40 + at]
            for at, (w, x, y, z) in enumerate(rows)
        ),
    )


def gcm_decrypt(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """Decrypt without checking the tag: whoever reads a capture cannot ask the sender again anyway."""
    words = expand_key(key)
    clear = bytearray()
    for number in range((len(data) + 15) // 16):
        stream = encrypt_block(words, nonce + struct.pack(">I", number + 2))
        piece = data[16 * number : 16 * number + 16]
        clear += bytes(x ^ y for x, y in zip(piece, stream, strict=False))
    return bytes(clear)
