"""The Debian package: what is in it, that it is the same twice, and that a clean Debian takes it and runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootfs import deb, native
from rootfs.build import build_id, source_epoch
from rootfs.dist import CACHE, bill_of_materials
from rootfs.image.base import base
from rootfs.payload import version
from rootfs.sdist import write_sdist
from rootfs.vendor import libraries

LIMIT_BYTES = 2_000_000
EXPOSURE_LIMIT = 3.0


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built once."""
    directory = tmp_path_factory.mktemp("deb")
    return deb.build(deb.contents(libraries(CACHE), build_id(), source_epoch()), directory, source_epoch())


@pytest.fixture(scope="module")
def clean(package: Path) -> Iterator[Path]:
    """A clean Debian with the package in it, installed by apt; the mounts of the tree are its own namespace's."""
    CACHE.mkdir(exist_ok=True)
    made = base("x86_64", CACHE)
    root = Path(tempfile.mkdtemp(prefix="postern-debian-"))
    try:
        subprocess.run(["tar", "-C", str(root), "-xf", str(made / "root.tar"), "--exclude=./dev/*"], check=True)
        root.chmod(0o755)
        shutil.copy(package, root / "tmp" / package.name)
        said = inside(root, f"apt-get install -y --no-install-recommends /tmp/{package.name}")
        assert "Setting up postern" in said, said
        yield root
    finally:
        shutil.rmtree(root)


def inside(root: Path, line: str, *, check: bool = True) -> str:
    """Run a line in the tree, with /proc and a few devices that go away with the namespace."""
    script = (
        f"mount -t proc proc {root}/proc && mount -t tmpfs tmpfs {root}/dev && mknod -m 666 {root}/dev/null c 1 3 && "
        f"mknod -m 666 {root}/dev/urandom c 1 9 && exec chroot {root} /bin/sh -c '{line}'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
    if check and done.returncode:
        raise AssertionError(f"{line} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def test_the_same_source_gives_the_same_octets(package: Path, tmp_path: Path) -> None:
    """Built again, it is the same package; so are the source archive and the bill of materials."""
    again = deb.build(deb.contents(libraries(CACHE), build_id(), source_epoch()), tmp_path, source_epoch())
    assert again.read_bytes() == package.read_bytes()
    first = write_sdist(tmp_path, source_epoch()).read_bytes()
    assert write_sdist(tmp_path, source_epoch()).read_bytes() == first
    bills = {bill_of_materials(libraries(CACHE), [], source_epoch()) for _ in range(2)}
    assert len(bills) == 1


def test_it_is_small_and_holds_nothing_that_it_should_not(package: Path) -> None:
    """One package for every architecture, under its limit, without scapy, bytecode, keys or files of other owners."""
    assert package.stat().st_size <= LIMIT_BYTES
    listed = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True).stdout
    assert "scapy" not in listed
    assert ".pyc" not in listed
    assert ".pem" not in listed
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())
    control = subprocess.run(["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True).stdout
    assert "Architecture: all" in control
    assert f"Version: {version()}" in control


@pytest.mark.root
@pytest.mark.slow
def test_the_helper_of_the_analysis_is_a_package_of_its_own(clean: Path, tmp_path: Path) -> None:
    """Where it is installed the analysis uses it, and goes on without when it is removed."""
    first, second = tmp_path / "first", tmp_path / "second"
    made = []
    for directory in (first, second):
        directory.mkdir()
        made.append(deb.build_native(native.build(directory), "amd64", directory, source_epoch()))
    assert made[0].read_bytes() == made[1].read_bytes()
    shutil.copy(made[0], clean / "tmp" / made[0].name)
    question = (
        'python3 -c "import sys; sys.path.insert(0, \\"/usr/lib/postern\\"); '
        'from gateway.analysis import batch, native; print(native.active())"'
    )
    for line, expected in (
        ("true", "False"),
        (f"apt-get install -y /tmp/{made[0].name}", "True"),
        ("apt-get remove -y postern-native", "False"),
    ):
        inside(clean, line)
        assert inside(clean, question).split() == [expected]


@pytest.mark.root
@pytest.mark.slow
def test_a_clean_debian_takes_it(clean: Path) -> None:
    """apt installs it; users, directories and units are there; the programs answer; the configuration is right."""
    assert inside(clean, "postern --version").strip() == f"postern {version()}"
    assert "no problem" in inside(clean, "posternd --check", check=False) or "eth0" in inside(
        clean, "posternd --check", check=False
    )
    assert "switched off" in inside(clean, "posternd")
    assert "usage: postern-web" in inside(clean, "postern-web --help")
    for user in ("postern", "postern-portal", "postern-admin-web", "postern-worker"):
        assert user in inside(clean, f"id {user}")
    modes = inside(clean, 'stat -c "%a %U:%G %n" /etc/config/postern /var/lib/postern /var/lib/postern/spool')
    assert modes.splitlines() == [
        "640 root:postern /etc/config/postern",
        "751 postern:postern /var/lib/postern",
        "2770 postern:postern-spool /var/lib/postern/spool",
    ]
    wanted = clean / "etc/systemd/system/multi-user.target.wants"
    assert {path.name for path in wanted.iterdir()} >= set(deb.UNITS)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("unit", deb.UNITS)
def test_units_are_right_and_tight(clean: Path, unit: str) -> None:
    """systemd finds nothing wrong with a unit, and its exposure is at most 3."""
    said = inside(clean, f"systemd-analyze verify --man=no /usr/lib/systemd/system/{unit}", check=False)
    assert [line for line in said.splitlines() if "postern" in line] == []
    said = inside(clean, f"systemd-analyze security --offline=yes /usr/lib/systemd/system/{unit}", check=False)
    [verdict] = [line for line in said.splitlines() if "Overall exposure level" in line]
    assert float(verdict.split(": ")[1].split()[0]) <= EXPOSURE_LIMIT


@pytest.mark.root
@pytest.mark.slow
def test_upgrade_keeps_and_purge_removes(clean: Path, package: Path) -> None:
    """A changed configuration and state stay over an upgrade and a removal, and go with a purge."""
    config = clean / "etc/config/postern"
    config.write_text(config.read_text().replace("'eth0'", "'wan0'"))
    (clean / "var/lib/postern/sessions.msgpack").write_bytes(b"kept")
    inside(clean, f"apt-get install -y --reinstall /tmp/{package.name}")
    assert "wan0" in config.read_text()
    inside(clean, "apt-get remove -y postern")
    assert "wan0" in config.read_text()
    assert (clean / "var/lib/postern/sessions.msgpack").exists()
    assert not (clean / "usr/lib/postern").exists()
    inside(clean, "apt-get purge -y postern")
    assert not config.exists()
    assert not (clean / "var/lib/postern").exists()
    inside(clean, f"apt-get install -y --no-install-recommends /tmp/{package.name}")
    assert os.access(config, os.R_OK)
