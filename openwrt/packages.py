"""What our OpenWrt packages contain. The Makefiles for the SDK install the same trees (`openwrt.stage`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from openwrt.ipk import Package
from openwrt.lean import lean
from rootfs.payload import HOME, LAUNCHERS, PROJECT, carried, licences, program, version
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
    "python3-ctypes", "python3-sqlite3", "python3-openssl", "python3-xml",
    "python3-msgpack",
)  # fmt: skip
SYSTEM: Final = (
    "nftables", "kmod-nft-core", "kmod-nft-nat", "kmod-nf-conntrack-netlink", "kmod-sched-core", "kmod-sched-bpf",
)  # fmt: skip
# user:group:further groups, one word for each user. The system asks for a member by looking for its name as a part of
# the list, so a user whose name is part of another's comes first.
USERS: Final = (
    "postern:postern:postern-admin,postern-spool postern-portal:postern-portal:postern "
    "postern-admin-web:postern-admin-web:postern,postern-spool postern-worker:postern-worker:postern-spool"
)
CONFIGURATION: Final = "etc/config/postern"
# Modes do not come from the checkout.
_PROGRAMS: Final = ("etc/init.d/", "etc/uci-defaults/", "etc/hotplug.d/")
# What a router can do without is a package of its own: captures, and the administration's pages.
_OPTIONAL: Final = {
    "postern-analysis": (
        "usr/sbin/postern-worker",
        *(
            f"{HOME}/gateway/{part}"
            for part in ("analysis/", "capture/", "cli/analyze.py", "cli/capture.py")
        ),
    ),
    "postern-admin": tuple(
        f"{HOME}/webui/{part}"
        for part in (
            "admin/", "static/admin/", "templates/admin/", "locale/setup/", "backend.py", "flow_table.py", "jobs.py",
            "looks.py", "multipart.py", "portal/preview.py", "progress.py", "reports.py", "sse.py", "uploads.py",
        )
    ),
}  # fmt: skip
# The gate shows what it was told and lists what was recorded with these.
_ALWAYS: Final = tuple(
    f"{HOME}/gateway/{part}"
    for part in ("analysis/__init__.py", "analysis/escape.py", "capture/__init__.py", "capture/recording.py")
)
# Of images with two slots, for bash, for people who write programs: nothing of these is read here.
_ELSEWHERE: Final = (
    "usr/sbin/postern-trial",
    *(
        f"{HOME}/gateway/{part}"
        for part in ("upgrade/trial.py", "cli/postern.bash", "analysis/schema.py", "analysis/report.schema.json")
    ),
)
# Run when a part comes to or leaves a router on which the gate runs already. In the SDK's packages the same.
ARRIVES: Final = """\
#!/bin/sh
[ -n "$IPKG_INSTROOT" ] || ! /etc/init.d/postern running || /etc/init.d/postern reload
exit 0
"""
LEAVES: Final = """\
#!/bin/sh
[ -n "$IPKG_INSTROOT" ] || ubus call service delete '{"name":"postern","instance":"@INSTANCE@"}' >/dev/null 2>&1
exit 0
"""
# Modules whose classes' docstrings are read at run time.
READ: Final = ("gateway/config.py",)

# Bytecode goes to RAM: the flash is small and wears out. Each user has a directory that only it can write, because
# whoever writes bytecode decides what its reader does.
_LAUNCHER: Final = """\
#!/usr/bin/python3 -I
import os
import sys

sys.pycache_prefix = f"/var/run/postern-bytecode/{{os.geteuid()}}"
sys.path[:0] = ["/usr/lib/postern", "/usr/lib/postern/vendor"]
{umask}from {module} import main

sys.exit(main())
"""
# A stop leaves the gate in the kernel as it is; who removes the package wants none of it. With its guards it takes
# back forwarding, which a router needs for its own network.
GATE_LEAVES: Final = """\
#!/bin/sh
[ -n "$IPKG_INSTROOT" ] || [ "$PKG_UPGRADE" = 1 ] || {
  /etc/init.d/postern stop
  /usr/sbin/posternd --withdraw
  /etc/init.d/sysctl restart
} >/dev/null 2>&1
exit 0
"""


def packages(libraries: list[Library], build_id: str) -> list[Package]:
    """Our packages that serve every architecture."""
    parts = {"postern": Tree(), **{name: Tree() for name in _OPTIONAL}}
    for path, entry in _program(build_id):
        parts[_part(path)].add(path, entry.data, entry.mode)
    main = parts["postern"]
    main.merge(_files("postern/files"))
    main.add("usr/share/licenses/postern/LICENSE", (PROJECT / "LICENSE").read_bytes())
    vendor = carried(libraries)
    vendor.add("usr/share/licenses/postern-vendor/LICENSES", licences(libraries))
    number = f"{version()}-{RELEASE}"
    return [
        Package(
            "postern",
            number,
            "Captive-portal gateway: gives guests addresses, holds them at a login page,\n"
            "lets them through in the kernel, and accounts for them to RADIUS.",
            main,
            depends=(*PYTHON, *SYSTEM, "postern-vendor"),
            users=USERS,
            leaves=GATE_LEAVES,
            conffiles=(CONFIGURATION,),
        ),
        Package(
            "postern-admin",
            number,
            "Postern's administration pages and REST API, over HTTPS on port 8443.",
            parts["postern-admin"],
            depends=("postern", "postern-analysis", "openssl-util"),
            arrives=ARRIVES,
            leaves=LEAVES.replace("@INSTANCE@", "admin"),
        ),
        Package(
            "postern-analysis",
            number,
            "Recording and analysis of captures for Postern: postern capture, postern analyze.",
            parts["postern-analysis"],
            depends=("postern",),
            arrives=ARRIVES,
            leaves=LEAVES.replace("@INSTANCE@", "worker"),
        ),
        Package(
            "postern-vendor",
            number,
            "Python libraries that Postern carries with it.",
            vendor,
            licence=" AND ".join(sorted({_term(item.licence) for item in libraries} - {"NOASSERTION"})),
        ),
        Package(
            "luci-app-postern",
            number,
            "LuCI status page of Postern, and the way to its own administration pages.",
            _luci(),
            depends=("luci-base", "postern-admin"),
            section="luci",
        ),
    ]


def _part(path: str) -> str:
    """The package that a file of the program goes to."""
    if path.startswith(_ALWAYS):
        return "postern"
    return next((name for name, places in _OPTIONAL.items() if path.startswith(places)), "postern")


def _program(build_id: str) -> Tree:
    """Our code without what only people read, and its launchers."""
    tree = Tree()
    for path, entry in program(build_id):
        if path in _ELSEWHERE or path.endswith("/py.typed"):
            continue
        if path in LAUNCHERS:
            # procd has no such setting; a person's own holds for the command.
            umask = "os.umask(0o027)\n" if path.startswith("usr/sbin/") else ""
            tree.add(path, _LAUNCHER.format(module=LAUNCHERS[path], umask=umask), PROGRAM)
        elif path.endswith(".py"):
            tree.add(path, lean(entry.data.decode(), keep_classes=path.endswith(READ)))
        elif path.endswith(".json"):
            tree.add(path, json.dumps(json.loads(entry.data), ensure_ascii=False, separators=(",", ":")) + "\n")
        else:
            tree.add(path, entry.data)
    return tree


def _term(licence: str) -> str:
    """A licence as one term of a longer expression."""
    return f"({licence})" if " OR " in licence else licence


def _files(folder: str) -> Tree:
    tree = Tree()
    top = FEED / folder
    for path in sorted(top.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(top))
            mode = PROGRAM if name.startswith(_PROGRAMS) else 0o600 if name == CONFIGURATION else PLAIN
            tree.add(name, path.read_bytes(), mode)
    return tree


def _luci() -> Tree:
    tree = _files("luci-app-postern/root")
    for path, entry in _files("luci-app-postern/htdocs"):
        tree.add(f"www/{path}", entry.data, entry.mode)
    return tree
