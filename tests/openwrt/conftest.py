"""The packages, made once for all tests here: reading and checking the sources takes seconds."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from openwrt.ipk import Package
from openwrt.packages import packages
from rootfs.dist import CACHE
from rootfs.vendor import Library, libraries

EPOCH = 1_700_000_000


@pytest.fixture(scope="session")
def vendor() -> list[Library]:
    """The libraries of the lock file."""
    return libraries(CACHE)


@pytest.fixture(scope="session")
def made(vendor: list[Library]) -> dict[str, Package]:
    """Our packages by name."""
    return {package.name: package for package in packages(vendor, "0123456789ab")}


@pytest.fixture(scope="session")
def device(made: dict[str, Package], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with all of our packages in it, and msgpack, which a router has from the official feed."""
    root = tmp_path_factory.mktemp("device")
    for package in made.values():
        package.tree.write(root, EPOCH)
    (root / "feed").mkdir()
    (root / "feed" / "msgpack").symlink_to(Path(str(msgpack.__file__)).parent)
    return root
