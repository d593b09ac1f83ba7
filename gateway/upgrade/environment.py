"""The boot loader's memory: which slot is good, and which one is to be tried once.

GRUB's environment block is a file of exactly 1024 octets that it rewrites in place, so we do the same: its blocks on
the disk must not move. Lines `name=value`, then `#` to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SIZE: Final = 1024
_TITLE: Final = "# GRUB Environment Block\n"


class BlockDamaged(ValueError):
    """The block is not one; the message says why."""


def decode(block: bytes) -> dict[str, str]:
    """Names and values; raises BlockDamaged when it is not a block."""
    if len(block) != SIZE or not block.startswith(_TITLE.encode()):
        raise BlockDamaged("the boot loader's memory (grubenv) is damaged: write the image anew")
    found = {}
    for line in block.decode("ascii", "replace").splitlines()[1:]:
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found[name] = value
    return found


def encode(values: Mapping[str, str]) -> bytes:
    """The block; raises BlockDamaged when it does not fit, or a value has a line's end."""
    text = _TITLE + "".join(f"{name}={value}\n" for name, value in values.items())
    if any("\n" in value for value in values.values()) or len(text) > SIZE:
        raise BlockDamaged("this does not fit into the boot loader's memory")
    return text.encode("ascii").ljust(SIZE, b"#")
