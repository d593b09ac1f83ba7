"""The index of a feed: the control fields of each package, with its file's name, size and hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from openwrt.ipk import fields, pack


def write_index(packages: Sequence[Path], destination: Path) -> list[Path]:
    """Write `Packages` and `Packages.gz` beside the packages; returns both paths."""
    blocks = []
    for path in sorted(packages):
        told = fields(path)
        description = told.pop("Description")
        data = path.read_bytes()
        told.update({"Filename": path.name, "Size": str(len(data)), "SHA256sum": hashlib.sha256(data).hexdigest()})
        blocks.append("".join(f"{name}: {value}\n" for name, value in [*told.items(), ("Description", description)]))
    text = "\n".join(blocks) + "\n"
    plain, packed = destination / "Packages", destination / "Packages.gz"
    plain.write_text(text, encoding="utf-8")
    packed.write_bytes(pack(text.encode()))
    return [plain, packed]
