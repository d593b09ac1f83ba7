"""What our OpenWrt packages contain; the Makefiles for the SDK install the same files (a test compares them)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.config_example import example
from openwrt.ipk import Package
from rootfs.payload import carried, licences, program, version
from rootfs.tree import PLAIN, PROGRAM, Tree
from rootfs.vendor import Library

FEED: Final = Path(__file__).parent
RELEASE: Final = "r1"
ARCHITECTURES: Final = (
    "x86_64", "aarch64_generic", "aarch64_cortex-a53", "aarch64_cortex-a72", "aarch64_cortex-a76",
    "arm_cortex-a7_neon-vfpv4", "arm_arm1176jzf-s_vfp", "mipsel_24kc",
)  # fmt: skip
# Parts of Python that the feed has as packages of their own; tests/openwrt holds them against what the code imports.
PYTHON: Final = (
    "python3-light", "python3-asyncio", "python3-logging", "python3-urllib", "python3-email", "python3-codecs",
    "python3-ctypes", "python3-multiprocessing", "python3-sqlite3", "python3-openssl", "python3-msgpack",
)  # fmt: skip
USERS: Final = (
    "postern:postern:postern-admin:postern-spool postern-portal:postern-portal:postern "
    "postern-admin-web:postern-admin-web:postern:postern-spool postern-worker:postern-worker:postern-spool"
)
# Modes do not come from the checkout.
_PROGRAMS: Final = ("etc/init.d/", "etc/uci-defaults/", "etc/hotplug.d/")
_PRIVATE: Final = ("etc/config/postern",)


def packages(libraries: list[Library], build_id: str) -> list[Package]:
    """Our packages that serve every architecture."""
    main = program(build_id)
    main.merge(_files("postern/files"))
    main.add("usr/share/postern/postern.conf.example", example())
    main.add("usr/share/licenses/postern/LICENSES", licences(libraries))
    number = f"{version()}-{RELEASE}"
    return [
        Package(
            "postern",
            number,
            "Captive-portal gateway: gives guests addresses, holds them at a login page,\n"
            "lets them through in the kernel, accounts to RADIUS, analyses captures.",
            main,
            depends=(*PYTHON, "nftables", "kmod-nft-core", "kmod-nft-nat", "openssl-util", "postern-vendor"),
            users=USERS,
            conffiles=("etc/config/postern",),
        ),
        Package("postern-vendor", number, "Python libraries that Postern carries with it.", carried(libraries)),
        Package(
            "luci-app-postern",
            number,
            "LuCI status page of Postern, and the way to its own administration pages.",
            _luci(),
            depends=("luci-base", "postern"),
            section="luci",
        ),
    ]


def _files(folder: str) -> Tree:
    tree = Tree()
    top = FEED / folder
    for path in sorted(top.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(top))
            mode = PROGRAM if name.startswith(_PROGRAMS) else 0o600 if name in _PRIVATE else PLAIN
            tree.add(name, path.read_bytes(), mode)
    return tree


def _luci() -> Tree:
    tree = _files("luci-app-postern/root")
    for path, entry in _files("luci-app-postern/htdocs"):
        tree.add(f"www/{path}", entry.data, entry.mode)
    return tree
