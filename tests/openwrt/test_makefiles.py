"""The SDK's Makefiles, run by make under a stand-in for the SDK: they install what the writer packs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openwrt.ipk import Package
from openwrt.packages import FEED
from rootfs.dist import CACHE
from rootfs.payload import PROJECT, version
from rootfs.vendor import Library

# What a Makefile of a package uses of the SDK. `BuildPackage` builds at once and says what it was told.
RULES = """\
INSTALL_DIR:=install -d -m0755
CP:=cp -fpR
all:
"""
PACKAGE = """\
define BuildPackage
$(eval $(call Package/$(1)))
$(1): build
	mkdir -p $(OUT)/$(1)
	$(call Package/$(1)/install,$(OUT)/$(1))
	@echo 'told|$(1)|DEPENDS|$(strip $(DEPENDS))'
	@echo 'told|$(1)|USERID|$(strip $(USERID))'
	@echo 'told|$(1)|PKGARCH|$(PKGARCH)'
	@echo 'told|$(1)|VERSION|$(PKG_VERSION)-r$(PKG_RELEASE)'
	@echo 'told|$(1)|conffiles|$(strip $(Package/$(1)/conffiles))'
	@echo "$$$$arrives" >$(OUT)/$(1).postinst
	@echo "$$$$leaves" >$(OUT)/$(1).prerm
$(1): export arrives=$$(call Package/$(1)/postinst)
$(1): export leaves=$$(call Package/$(1)/prerm)
all: $(1)
$(foreach name,DEPENDS USERID PKGARCH,$(eval $(name):=))
endef
define Download
$(eval $(call Download/$(1)))
downloads:: ; @echo 'download|$(strip $(FILE))|$(strip $(URL))|$(strip $(HASH))'
endef
.PHONY: build downloads
build: downloads
	$(Build/Prepare)
	$(Build/Compile)
"""
LUCI = """\
all:
	mkdir -p $(OUT)/$(PKG_NAME)/www
	cp -fpR htdocs/. $(OUT)/$(PKG_NAME)/www/
	cp -fpR root/. $(OUT)/$(PKG_NAME)/
	@echo 'told|$(PKG_NAME)|DEPENDS|$(LUCI_DEPENDS)'
	@echo 'told|$(PKG_NAME)|PKGARCH|$(LUCI_PKGARCH)'
	@echo 'told|$(PKG_NAME)|VERSION|$(PKG_VERSION)-r$(PKG_RELEASE)'
"""


def make(tmp_path: Path, folder: str) -> list[list[str]]:
    """Run a Makefile of the feed; returns what it said, the files are below OUT."""
    include, top = tmp_path / "include", tmp_path / "top"
    include.mkdir()
    (top / "feeds/luci").mkdir(parents=True)
    (top / "rules.mk").write_text(RULES)
    (top / "feeds/luci/luci.mk").write_text(LUCI)
    (include / "package.mk").write_text(PACKAGE)
    host = tmp_path / "host/bin"
    host.mkdir(parents=True)
    # The SDK's Python has no libraries of ours.
    (host / "python3").write_text('#!/bin/sh\nexec /usr/bin/python3 -s "$@"\n')
    (host / "python3").chmod(0o755)
    variables = {
        "TOPDIR": top,
        "INCLUDE_DIR": include,
        "PKG_BUILD_DIR": tmp_path / "build",
        "DL_DIR": CACHE / "wheels",
        "STAGING_DIR_HOSTPKG": tmp_path / "host",
        "OUT": tmp_path / "out",
    }
    words = ["make", "--silent", "--no-print-directory", "-C", str(FEED / folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
    done = subprocess.run(
        [*words, *(f"{name}={value}" for name, value in variables.items())],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines() if "|" in line]


def files(root: Path) -> dict[str, int]:
    """Every file below a directory, with its mode."""
    return {
        str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_the_makefile_installs_what_the_writer_packs(
    tmp_path: Path, made: dict[str, Package], vendor: list[Library]
) -> None:
    """The same files with the same modes and, but for the build's id, the same content; it says the same of them."""
    said = make(tmp_path, "postern")
    told = {(line[1], line[2]): line[3] for line in said if line[0] == "told"}
    for name in ("postern", "postern-admin", "postern-analysis", "postern-vendor"):
        package, out = made[name], tmp_path / "out" / name
        assert files(out) == {path: entry.mode for path, entry in package.tree}
        changed = [path for path, entry in package.tree if (out / path).read_bytes() != entry.data]
        assert changed == (["usr/lib/postern/gateway/build_id"] if name == "postern" else [])
        assert [word.removeprefix("+") for word in told[name, "DEPENDS"].split()] == list(package.depends)
        assert told[name, "USERID"] == package.users
        assert told[name, "PKGARCH"] == package.architecture
        assert told[name, "VERSION"] == package.version
        assert told[name, "conffiles"].split() == [f"/{path}" for path in package.conffiles]
        for script, text in (("postinst", package.arrives), ("prerm", package.leaves)):
            assert (tmp_path / "out" / f"{name}.{script}").read_text() == (text or "\n")
    downloads = {line[1]: line[3] for line in said if line[0] == "download"}
    assert sorted(downloads.values()) == sorted(library.sha256 for library in vendor)
    for line in said:
        if line[0] == "download":
            assert line[2] == f"file://{CACHE / 'wheels'}"
            assert (CACHE / "wheels" / line[1]).is_file()


def test_the_luci_makefile_installs_what_the_writer_packs(tmp_path: Path, made: dict[str, Package]) -> None:
    """htdocs/ and root/ go where luci.mk puts them."""
    said = make(tmp_path, "luci-app-postern")
    package = made["luci-app-postern"]
    told = {line[2]: line[3] for line in said}
    assert files(tmp_path / "out/luci-app-postern").keys() == {path for path, _ in package.tree}
    assert [word.removeprefix("+") for word in told["DEPENDS"].split()] == list(package.depends)
    assert told["PKGARCH"] == package.architecture
    assert told["VERSION"] == package.version == f"{version()}-r1"


@pytest.mark.parametrize("words", [[], ["one"], ["a", "b", "c"]])
def test_laying_out_without_its_places_says_how_it_is_called(words: list[str]) -> None:
    """Exit code 2, as everywhere."""
    command = [sys.executable, "-m", "openwrt.stage", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
