"""The helper of the analysis in machine code: compiled for one Python on one kind of processor, always optional.

`python -m rootfs.native` compiles it beside its source, for a checkout; `build` makes the same for a package and an
image of this machine's own architecture. Two builds with one compiler are the same octets.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from rootfs.payload import PROJECT

_FOLDER: Final = PROJECT / "gateway" / "analysis"
_NAME: Final = "_usual"
_FLAGS: Final = (
    *("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Wno-cast-function-type"),
    *("-Wl,-z,relro,-z,now,--build-id=none,--strip-all", f"-ffile-prefix-map={PROJECT}=."),
)


def fits(machine: str) -> bool:
    """Whether what is compiled here runs on a machine (as `uname -m` says): there is no cross-compiler in this."""
    return platform.machine() == machine


def _sources() -> list[Path]:
    """The sources and their header, in an order that is always the same."""
    return sorted(_FOLDER.glob(f"{_NAME}*.[ch]"))


def module_name() -> str:
    """The file name under which this Python looks for the helper."""
    return _NAME + str(sysconfig.get_config_var("EXT_SUFFIX"))


def build(destination: Path, compiler: str = "gcc") -> Path:
    """Compile the helper for the running Python into a directory; returns its path.

    Raises CalledProcessError with what the compiler said, and FileNotFoundError when there is no compiler.
    """
    path = destination / module_name()
    include = f"-I{sysconfig.get_path('include')}"
    sources = [str(source) for source in _sources() if source.suffix == ".c"]
    subprocess.run(
        [compiler, *_FLAGS, include, *sources, "-lm", "-o", str(path)], check=True, capture_output=True, text=True
    )
    path.chmod(0o644)
    return path


def main() -> int:
    """Compile the helper beside its source unless it is there and newer; returns the exit code."""
    path = _FOLDER / module_name()
    if path.exists() and path.stat().st_mtime >= max(source.stat().st_mtime for source in _sources()):
        return 0
    try:
        build(_FOLDER)
    except subprocess.CalledProcessError as error:
        print(f"the helper of the analysis was not compiled; it runs without, slower\n{error.stderr}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
