"""The time zone, on a system in a directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.system.timezones import current, names, set_timezone

ZONES = Path("/usr/share/zoneinfo")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with two zones."""
    for name in ("Europe/Paris", "America/Argentina/Ushuaia", "UTC"):
        file = tmp_path / "usr/share/zoneinfo" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ZONES / name, file)
    (tmp_path / "usr/share/zoneinfo/posix").mkdir()
    shutil.copyfile(ZONES / "UTC", tmp_path / "usr/share/zoneinfo/posix/UTC")
    (tmp_path / "usr/share/zoneinfo/zone.tab").write_text("# no zone")
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_zones_are_those_of_the_database(root: Path) -> None:
    """Tables, and the same zones under other rules, are not offered."""
    assert names(root) == ["America/Argentina/Ushuaia", "Europe/Paris", "UTC"]
    assert names(root / "nowhere") == ["UTC"]


def test_a_zone_is_set_as_debian_does(root: Path) -> None:
    """Link and name agree; a second one takes the place of the first."""
    assert current(root) == "UTC"
    for name in ("Europe/Paris", "America/Argentina/Ushuaia"):
        set_timezone(name, root)
        assert current(root) == name
        assert (root / "etc/timezone").read_text() == f"{name}\n"
        assert str((root / "etc/localtime").readlink()) == f"/usr/share/zoneinfo/{name}"
    (root / "etc/localtime").unlink()
    assert current(root) == "America/Argentina/Ushuaia"


@pytest.mark.parametrize(
    "name", ["", "Europe/Atlantis", "../../etc/passwd", "/etc/passwd", "zone.tab", "Europe", "a\nb", "-"]
)
def test_anything_else_is_refused(root: Path, name: str) -> None:
    """Nothing outside of the database is ever named."""
    with pytest.raises(ValueError, match="not a time zone"):
        set_timezone(name, root)
    assert not (root / "etc/localtime").exists()


def test_openwrt_keeps_the_rule_beside_the_name(root: Path) -> None:
    """Its C library reads the POSIX form; the names of the commands are fixed."""
    (root / "sbin").mkdir()
    (root / "etc/init.d").mkdir()
    for command in ("sbin/uci", "etc/init.d/system"):
        (root / command).write_text(f'#!/bin/sh\necho "{command} $*" >> {root}/said\n')
        (root / command).chmod(0o755)
    set_timezone("Europe/Paris", root)
    assert (root / "said").read_text().splitlines() == [
        "sbin/uci set system.@system[0].zonename=Europe/Paris",
        "sbin/uci set system.@system[0].timezone=CET-1CEST,M3.5.0,M10.5.0/3",
        "sbin/uci commit system",
        "etc/init.d/system reload",
    ]
    (root / "sbin/uci").write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    with pytest.raises(OSError, match="no such option"):
        set_timezone("Europe/Paris", root)
