"""`python -m openwrt.stage DESTINATION CACHE`: write each package's tree to a directory, for the SDK's Makefile.

CACHE/wheels has the wheels of our libraries, which the SDK has fetched. Needs nothing but Python 3.11.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from openwrt.packages import packages
from rootfs.build import build_id, source_epoch
from rootfs.vendor import VendorError, libraries


def main(arguments: Sequence[str]) -> int:
    """Write the trees; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m openwrt.stage DESTINATION CACHE", file=sys.stderr)
        return 2
    destination, cache = map(Path, arguments)
    os.umask(0o022)
    try:
        for package in packages(libraries(cache), build_id()):
            package.tree.write(destination / package.name, source_epoch())
    except VendorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
