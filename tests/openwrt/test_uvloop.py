"""`postern-uvloop`: only where there is a wheel, and only a library that a router's loader takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from openwrt import ipk, uvloop
from openwrt.packages import ARCHITECTURES
from rootfs.build import IPK_LIMITS
from rootfs.dist import CACHE
from rootfs.vendor import VendorError
from tests.openwrt.conftest import EPOCH


def test_a_processor_without_a_wheel_gets_no_package() -> None:
    """Routers with other processors run asyncio's loop."""
    served = [name for name in ARCHITECTURES if uvloop.processor(name)]
    assert served == ["x86_64", "aarch64_generic", "aarch64_cortex-a53", "aarch64_cortex-a72", "aarch64_cortex-a76"]
    assert uvloop.package("mipsel_24kc", CACHE) is None


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64_cortex-a53"])
def test_the_package_holds_one_stripped_library_of_its_processor(architecture: str, tmp_path: Path) -> None:
    """It keeps the rules and its limit, is the same twice, and no Python but its own sees it."""
    target = uvloop.processor(architecture)
    assert target is not None
    if shutil.which(target.strip) is None:
        pytest.skip(f"{target.strip} is missing: apt-get install {target.package}")
    package = uvloop.package(architecture, CACHE)
    again = uvloop.package(architecture, CACHE)
    assert package is not None
    assert again is not None
    path = ipk.write(package, tmp_path, EPOCH)
    assert path.name == f"postern-uvloop_0.23.0-r1_{architecture}.ipk"
    assert ipk.problems(path) == []
    assert path.stat().st_size <= IPK_LIMITS["postern-uvloop"]
    first = path.read_bytes()
    assert ipk.write(again, tmp_path, EPOCH).read_bytes() == first
    assert [name for name in package.tree.files if name.endswith(".so")] == [
        "usr/lib/python3.11/site-packages/uvloop/loop.so"
    ]
    assert not any(name.endswith((".pyx", ".pxd")) for name in package.tree.files)
    assert "python3-openssl" in package.depends  # it imports ssl whether it is used or not
    library = package.tree.files["usr/lib/python3.11/site-packages/uvloop/loop.so"].data
    assert uvloop.library_problems(library, target) == []


def test_a_library_of_another_kind_is_refused() -> None:
    """Another processor, another C library, and one that was not stripped."""
    x86_64, aarch64 = uvloop.processor("x86_64"), uvloop.processor("aarch64_generic")
    assert x86_64 is not None
    assert aarch64 is not None
    system = Path("/bin/sh").read_bytes()
    found = uvloop.library_problems(system, aarch64)
    assert any("is not for AArch64" in sentence for sentence in found)
    assert any(sentence.startswith("it needs ") for sentence in found)
    large = system + bytes(uvloop.STRIPPED_LIMIT_BYTES)
    assert any("octets" in sentence for sentence in uvloop.library_problems(large, x86_64))


def test_the_lock_file_is_read_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is none stops the build, with its number."""
    lock = tmp_path / "wheels.lock"
    lock.write_text("# text\nuvloop==1.0 anywhere --hash=sha256:abc\n")
    monkeypatch.setattr(uvloop, "LOCK", lock)
    with pytest.raises(VendorError, match="line 2"):
        list(uvloop.locked())
