"""In which order the small files of a slot are packed: what a start reads first comes first, and in that order.

squashfs packs small files together into blocks and unpacks a whole block for each file that is read, keeping three.
Python reads several hundred small files at a start: where they lie as directories list them, most of these reads
unpack a quarter of a megabyte again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rootfs.payload import HOME

# What the processes import, in the order in which they start: the gate, its pages, then all that waits for it.
_STARTS: Final = """\
import sys
sys.path[:0] = sys.argv[1:]
import gateway.__main__, gateway.memory
gateway.memory.import_loops_without_tls()
import gateway.daemon
import webui.__main__, webui.portal.service
import gateway.system.__main__, webui.admin.service, gateway.analysis.worker, gateway.cli.main, gateway.upgrade.trial
print(*sys.modules)
"""
_LIBRARY: Final = "usr/lib/python3.11"
_PLACES: Final = (HOME, f"{HOME}/vendor", _LIBRARY, f"{_LIBRARY}/lib-dynload", "usr/lib/python3/dist-packages")
_HIGHEST: Final = 32767  # of what mksquashfs takes as a priority


def priorities(root: Path) -> str:
    """The file for mksquashfs' option -sort. Raises CalledProcessError when a process cannot be imported."""
    found = dict.fromkeys(path for name in _modules(root) for path in _files(root, name))
    return "".join(f"{path.relative_to(root)} {_HIGHEST - index}\n" for index, path in enumerate(found))


def _modules(root: Path) -> list[str]:
    """The modules that are imported, in their order, by the builder's Python and none of its own packages.

    Machine code of another architecture cannot be imported here; all of it has something that stands for it.
    """
    paths = [str(root / place) for place in _PLACES if not place.startswith(_LIBRARY)]
    done = subprocess.run([sys.executable, "-ISB", "-c", _STARTS, *paths], check=True, capture_output=True, text=True)
    return done.stdout.split()


def _files(root: Path, name: str) -> Iterator[Path]:
    """What is read of the root when a module is imported."""
    for place in _PLACES:
        path = root / place / name.replace(".", "/")
        yield from sorted((path / "__pycache__").glob("__init__.cpython-*.pyc"))
        yield from sorted((path.parent / "__pycache__").glob(f"{path.name}.cpython-*.pyc"))
        yield from sorted(path.parent.glob(f"{path.name}.*.so"))
