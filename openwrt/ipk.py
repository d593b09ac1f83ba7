"""The .ipk of OpenWrt up to 24.10, written and read without its SDK.

A package is a gzip of a tar with `debian-binary`, `data.tar.gz` and `control.tar.gz`, in this order. Names begin with
`./`, owners are root without a name, every time is one, directories come first, and files in the order in which they
compress best (`openwrt.order`), so the same files are the same octets. `problems` is a reader of our own that holds a
package against these rules. zopfli writes the same format as gzip in 4 % fewer octets; every gunzip reads it.
"""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openwrt.order import alike
from rootfs.tree import DIRECTORY, PROGRAM, Tree

MEMBERS: Final = ("./debian-binary", "./data.tar.gz", "./control.tar.gz")
# In the order that the SDK writes them.
_FIELDS: Final = (
    "Package", "Version", "Depends", "Conflicts", "Provides", "Source", "SourceName", "License", "LicenseFiles",
    "Section", "Require-User", "SourceDateEpoch", "URL", "Maintainer", "Architecture", "Installed-Size", "Description",
)  # fmt: skip
_GZIP_HEAD: Final = bytes.fromhex("1f8b08000000000002ff")
# What every package of the SDK has: enable and start services, run uci-defaults, make users. Our own code, if there is
# any, is in postinst-pkg and prerm-pkg, which these call.
_POSTINST: Final = """\
#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_postinst $0 $@
"""
_PRERM: Final = """\
#!/bin/sh
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_prerm $0 $@
"""


@dataclass(frozen=True, slots=True)
class Package:
    """What a package says of itself, and its files."""

    name: str
    version: str  # 1.2.3-r1
    description: str
    tree: Tree
    depends: Sequence[str] = ()
    architecture: str = "all"
    section: str = "net"
    licence: str = "MIT"  # an SPDX expression
    users: str = ""  # Require-User: user:group:further groups …, one word for each user
    conffiles: Sequence[str] = ()
    arrives: str = ""  # a shell script of our own after installation,
    leaves: str = ""  # and one before removal

    @property
    def file_name(self) -> str:
        """The name that opkg expects."""
        return f"{self.name}_{self.version}_{self.architecture}.ipk"


def write(package: Package, destination: Path, epoch: int) -> Path:
    """Write a package into a directory; returns its path."""
    data = _tar(package.tree, epoch)
    parts = Tree()
    parts.add("control", control(package, len(data), epoch))
    if package.conffiles:
        parts.add("conffiles", "".join(f"/{path}\n" for path in sorted(package.conffiles)))
    parts.add("postinst", _POSTINST, PROGRAM)
    parts.add("prerm", _PRERM, PROGRAM)
    for name, script in (("postinst-pkg", package.arrives), ("prerm-pkg", package.leaves)):
        if script:
            parts.add(name, script, PROGRAM)
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        contents = (b"2.0\n", squeeze(data), squeeze(_tar(parts, epoch)))
        for name, content in zip(MEMBERS, contents, strict=True):
            _add(archive, name, content, 0o644, epoch)
    path = destination / package.file_name
    path.write_bytes(pack(outer.getvalue()))
    return path


def control(package: Package, unpacked_bytes: int, epoch: int) -> str:
    """The control file: fields in the SDK's order, absent ones left out."""
    values = {
        "Package": package.name,
        "Version": package.version,
        "Depends": ", ".join(package.depends),
        "Source": f"feeds/postern/{package.name}",
        "SourceName": package.name,
        "License": package.licence,
        "Section": package.section,
        "Require-User": package.users,
        "SourceDateEpoch": str(epoch),
        "Maintainer": "Postern <postern@localhost>",
        "Architecture": package.architecture,
        "Installed-Size": str(unpacked_bytes),
        "Description": " " + package.description.replace("\n", "\n "),
    }
    return "".join(f"{name}: {values[name]}\n" for name in _FIELDS if values.get(name, "").strip())


def pack(data: bytes) -> bytes:
    """gzip without a name and without a time."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=9, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def squeeze(data: bytes) -> bytes:
    """The same as `pack`, with fewer octets, by zopfli."""
    # A name for a file that is no file: it reads its input twice, so it takes no pipe.
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        done = subprocess.run(["zopfli", "--i5", "--deflate", "-c", file.name], capture_output=True, check=True)
    checked = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return _GZIP_HEAD + done.stdout + checked


def problems(path: Path) -> list[str]:
    """Every rule of the layout that a package breaks, in sentences; none for a good one."""
    found: list[str] = []
    raw = path.read_bytes()
    if not raw.startswith(_GZIP_HEAD):
        found.append("the file is not a gzip without name and time")
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as outer:
            names = outer.getnames()
            # tarfile takes the trailing part as it stands, so names are compared octet for octet.
            if tuple(names) != MEMBERS:
                return [*found, f"the members are {', '.join(names)} and not {', '.join(MEMBERS)}"]
            parts = {name: _content(outer, name) for name in names}
    except (tarfile.TarError, EOFError, OSError) as error:
        return [*found, f"the outer archive cannot be read: {error}"]
    if parts["./debian-binary"] != b"2.0\n":
        found.append("debian-binary is not 2.0")
    sizes = {}
    for name in MEMBERS[1:]:
        if not parts[name].startswith(_GZIP_HEAD):
            found.append(f"{name} is not a gzip without name and time")
        try:
            sizes[name] = len(gzip.decompress(parts[name]))
            found += _tar_problems(name, parts[name])
        except (tarfile.TarError, EOFError, OSError) as error:
            found.append(f"{name} cannot be read: {error}")
    if not found:
        found += _control_problems(parts, sizes["./data.tar.gz"])
    return found


def fields(path: Path) -> dict[str, str]:
    """The control fields of a package."""
    with (
        tarfile.open(path, "r:gz") as outer,
        tarfile.open(fileobj=io.BytesIO(_content(outer, MEMBERS[2])), mode="r:gz") as inner,
    ):
        text = _content(inner, "./control").decode()
    return dict(re.findall(r"^([A-Z][\w-]*): (.*(?:\n .*)*)$", text, re.MULTILINE))


def _tar(tree: Tree, epoch: int) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in ("", *tree.directories()):
            _add(archive, f"./{path}/" if path else "./", None, DIRECTORY, epoch)
        for path in alike({path: entry.data for path, entry in tree}):
            _add(archive, f"./{path}", tree.files[path].data, tree.files[path].mode, epoch)
    return raw.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes | None, mode: int, epoch: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, epoch
    entry.uname = entry.gname = ""
    if data is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return file.read() if file is not None else b""


def _tar_problems(name: str, packed: bytes) -> list[str]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    times = {member.mtime for member in members}
    if len(times) > 1:
        found.append(f"{name}: files have different times")
    folders = [member.name for member in members if member.isdir()]
    if names[: len(folders)] != folders or folders != sorted(folders, key=str.encode):
        found.append(f"{name}: directories are not first, in the order of their names")
    for member in members:
        if not (member.name == "." or member.name.startswith("./")):
            found.append(f"{name}: {member.name} does not begin with ./")
        if member.uid or member.gid or member.uname or member.gname:
            found.append(f"{name}: {member.name} belongs to somebody other than root")
        if not (member.isdir() or member.isreg() or member.issym()):
            found.append(f"{name}: {member.name} is neither file, link nor directory")
        parent = member.name.rpartition("/")[0] or "."
        if member.name != "." and parent not in names[: names.index(member.name)]:
            found.append(f"{name}: {member.name} comes before its directory")
    return found


def _control_problems(parts: dict[str, bytes], unpacked_bytes: int) -> list[str]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(parts[MEMBERS[2]]), mode="r:gz") as archive:
        inside = {member.name: member for member in archive.getmembers()}
        text = _content(archive, "./control").decode() if "./control" in inside else ""
        conffiles = _content(archive, "./conffiles").decode().splitlines() if "./conffiles" in inside else []
    with tarfile.open(fileobj=io.BytesIO(parts[MEMBERS[1]]), mode="r:gz") as archive:
        shipped = {member.name for member in archive.getmembers() if not member.isdir()}
    told = re.findall(r"^([A-Z][\w-]*): ", text, re.MULTILINE)
    if told != [name for name in _FIELDS if name in told]:
        found.append("the control file's fields are not in the SDK's order")
    found += [
        f"the control file has no {name}"
        for name in ("Package", "Version", "Architecture", "Description")
        if name not in told
    ]
    if f"Installed-Size: {unpacked_bytes}\n" not in text:
        found.append("Installed-Size is not the size of the unpacked data archive")
    for script in ("./postinst", "./prerm"):
        if script not in inside:
            found.append(f"{script} is missing")
        elif inside[script].mode != PROGRAM:
            found.append(f"{script} cannot be run")
    found += [f"the conffile {path} is not shipped" for path in conffiles if f".{path}" not in shipped]
    if conffiles != sorted(conffiles):
        found.append("conffiles are not in order")
    return found
