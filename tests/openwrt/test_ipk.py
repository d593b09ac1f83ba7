"""The .ipk's layout: made the same twice, and a package broken in any way is noticed."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from openwrt import ipk
from openwrt.ipk import MEMBERS, Package, pack, problems, write
from rootfs.tree import Tree
from tests.openwrt.conftest import EPOCH

Parts = dict[str, bytes]
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def package() -> Package:
    """A small package with a conffile, a program and a directory within a directory."""
    tree = Tree()
    tree.add("etc/config/thing", "config thing\n", 0o600)
    tree.add("usr/bin/thing", "#!/bin/sh\n", 0o755)
    tree.add("usr/lib/thing/deep/data", b"\0\1")
    return Package(
        "thing", "1.0-r1", "A thing.\nWith two lines.", tree, ("libc", "other"), conffiles=("etc/config/thing",)
    )


def members_of(path: Path, part: str) -> list[tarfile.TarInfo]:
    """The members of one of the inner archives."""
    with tarfile.open(path) as outer:
        inner = outer.extractfile(part)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            return archive.getmembers()


def test_a_package_has_three_members_in_their_order(package: Package, tmp_path: Path) -> None:
    """A gzip of a tar: version, data, control."""
    path = write(package, tmp_path, EPOCH)
    assert path.name == "thing_1.0-r1_all.ipk"
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"]
    assert problems(path) == []


def test_the_data_has_every_directory_before_its_files(package: Package, tmp_path: Path) -> None:
    """Names begin with ./ and directories are sorted; owner, time and mode are those of the recipe."""
    members = members_of(write(package, tmp_path, EPOCH), "./data.tar.gz")
    assert [(member.name, oct(member.mode)) for member in members] == [
        (".", "0o755"),
        ("./etc", "0o755"),
        ("./etc/config", "0o755"),
        ("./usr", "0o755"),
        ("./usr/bin", "0o755"),
        ("./usr/lib", "0o755"),
        ("./usr/lib/thing", "0o755"),
        ("./usr/lib/thing/deep", "0o755"),
        ("./etc/config/thing", "0o600"),
        ("./usr/bin/thing", "0o755"),
        ("./usr/lib/thing/deep/data", "0o644"),
    ]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", EPOCH)}


def test_the_control_file_says_what_the_package_is(package: Package, tmp_path: Path) -> None:
    """Fields as the system's package manager reads them back."""
    told = ipk.fields(write(package, tmp_path, EPOCH))
    assert told["Package"] == "thing"
    assert told["Depends"] == "libc, other"
    assert told["Architecture"] == "all"
    assert told["Description"].split("\n") == [" A thing.", " With two lines."]
    assert int(told["Installed-Size"]) % 512 == 0  # of the tar, not of the files


def test_built_twice_a_package_is_the_same_octets(package: Package, tmp_path: Path) -> None:
    """Nothing of the moment or of the machine is in it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write(package, tmp_path / "a", EPOCH)
    second = write(package, tmp_path / "b", EPOCH)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("data", [b"", b"\0", b"abc" * 100_000, bytes(range(256)) * 300])
def test_what_is_squeezed_is_a_gzip_that_every_reader_takes(data: bytes) -> None:
    """Python's reader and the shell's, which check its sum and its length."""
    packed = ipk.squeeze(data)
    assert gzip.decompress(packed) == data
    for reader in (["gzip", "-dc"], ["busybox", "gunzip", "-c"]):
        assert subprocess.run(reader, input=packed, capture_output=True, check=True).stdout == data
    assert len(packed) <= len(pack(data)) + 5


def test_every_package_of_ours_is_the_same_twice(made: dict[str, Package], tmp_path: Path) -> None:
    """The real ones, whose trees come from the checkout."""
    for package in made.values():
        (tmp_path / "again").mkdir(exist_ok=True)
        assert write(package, tmp_path, EPOCH).read_bytes() == write(package, tmp_path / "again", EPOCH).read_bytes()


def _rewritten(path: Path, change: Callable[[Parts], Parts]) -> None:
    """Change the parts of a package, by name, and write it as the writer does."""
    with tarfile.open(path) as outer:
        parts = {member.name: (outer.extractfile(member) or io.BytesIO()).read() for member in outer.getmembers()}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in change(parts).items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), EPOCH
            archive.addfile(entry, io.BytesIO(data))
    path.write_bytes(pack(raw.getvalue()))


def _inner(part: str, change: Callable[[Members], Members]) -> Callable[[Parts], Parts]:
    """A change of the members of an inner archive."""

    def changed(parts: Parts) -> Parts:
        with tarfile.open(fileobj=io.BytesIO(parts[part])) as archive:
            members = [
                (entry, (archive.extractfile(entry) or io.BytesIO()).read() if entry.isreg() else b"")
                for entry in archive.getmembers()
            ]
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for entry, data in change(members):
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return {**parts, part: pack(raw.getvalue())}

    return changed


def _with(path: str, /, **attributes: object) -> Callable[[Members], Members]:
    """Members with other attributes for one of them."""

    def changed(members: Members) -> Members:
        for entry, _ in members:
            if entry.name == path:
                for attribute, value in attributes.items():
                    setattr(entry, attribute, value)
        return members

    return changed


def _text(name: str, old: bytes, new: bytes) -> Callable[[Members], Members]:
    """Members with another content of one of them."""
    return lambda members: [(entry, data.replace(old, new) if entry.name == name else data) for entry, data in members]


def _without(path: str) -> Callable[[Members], Members]:
    """Members without one of them."""
    return lambda members: [item for item in members if item[0].name != path]


DATA, CONTROL = MEMBERS[1:]
BROKEN: list[tuple[str, Callable[[Parts], Parts], str]] = [
    ("order", lambda parts: dict(sorted(parts.items())), "the members are"),
    ("missing", lambda parts: {name: parts[name] for name in MEMBERS[:2]}, "the members are"),
    ("version", lambda parts: {**parts, "./debian-binary": b"3.0\n"}, "debian-binary is not 2.0"),
    ("named gzip", lambda parts: {**parts, DATA: gzip.compress(gzip.decompress(parts[DATA]), 9)}, "not a gzip without"),
    ("cut off", lambda parts: {**parts, DATA: parts[DATA][:-20]}, "cannot be read"),
    ("not sorted", _inner(DATA, lambda members: [members[0], *members[:0:-1]]), "not first, in the order"),
    ("no directory", _inner(DATA, _without("./etc")), "before its directory"),
    ("owner", _inner(DATA, _with("./usr/bin/thing", uid=1000)), "belongs to somebody other than root"),
    ("owner's name", _inner(DATA, _with("./usr/bin/thing", uname="me")), "belongs to somebody other than root"),
    ("time", _inner(DATA, _with("./usr/bin/thing", mtime=1)), "different times"),
    ("name", _inner(DATA, _with("./usr/bin/thing", name="usr/bin/thing")), "does not begin with ./"),
    ("device", _inner(DATA, _with("./usr/lib/thing/deep/data", type=tarfile.FIFOTYPE)), "neither file"),
    ("size", _inner(CONTROL, _text("./control", b"Installed-Size: ", b"Installed-Size: 1")), "Installed-Size"),
    ("field", _inner(CONTROL, _text("./control", b"Architecture: all\n", b"")), "no Architecture"),
    (
        "field order",
        _inner(CONTROL, _text("./control", b"Package: thing\n", b"Section: net\nPackage: thing\n")),
        "fields are not",
    ),
    ("script", _inner(CONTROL, _without("./prerm")), "./prerm is missing"),
    ("mode", _inner(CONTROL, _with("./postinst", mode=0o644)), "./postinst cannot be run"),
    ("conffile", _inner(CONTROL, _text("./conffiles", b"/etc/config/thing", b"/etc/config/none")), "is not shipped"),
    (
        "conffiles",
        _inner(CONTROL, _text("./conffiles", b"/etc", b"/usr/bin/thing\n/etc")),
        "conffiles are not in order",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_package_is_noticed(
    package: Package, tmp_path: Path, change: Callable[[Parts], Parts], sentence: str
) -> None:
    """Each rule of the layout, broken in a package that is good otherwise."""
    path = write(package, tmp_path, EPOCH)
    _rewritten(path, lambda parts: parts)
    assert problems(path) == []
    _rewritten(path, change)
    assert any(sentence in problem for problem in problems(path)), problems(path)


@pytest.mark.parametrize("data", [b"", b"!<arch>\ndebian-binary", gzip.compress(b"text", mtime=0), b"\x1f\x8b\x08"])
def test_a_file_that_is_no_package_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    """Whatever the octets are, the reader answers in sentences."""
    path = tmp_path / "thing.ipk"
    path.write_bytes(data)
    assert problems(path)


def test_scripts_end_quietly_without_the_systems_functions(package: Package, tmp_path: Path) -> None:
    """In a root that is being built there may be no functions.sh yet; both scripts are a shell's."""
    path = write(package, tmp_path, EPOCH)
    with tarfile.open(path) as outer, tarfile.open(fileobj=outer.extractfile(CONTROL)) as archive:
        for name in ("./postinst", "./prerm"):
            script = archive.extractfile(name)
            assert script is not None
            done = subprocess.run(
                ["dash", "-s"],
                input=script.read(),
                check=False,
                env={"IPKG_INSTROOT": str(tmp_path)},
                capture_output=True,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
