"""The words of a benchmark's command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NamedTuple


class Options(NamedTuple):
    """What is to be measured."""

    parts: set[str]
    quick: bool


def read_options(description: str | None, parts: Sequence[str]) -> Options:
    """Read them; ends the program with 2 for a part that there is not, and for who is not root."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(parts), help="which parts to measure")
    parser.add_argument("--quick", action="store_true", help="less of everything, for trying the benchmark itself")
    given = parser.parse_args()
    chosen = set(given.parts.split(","))
    if unknown := chosen - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.exit(2, "this benchmark makes network namespaces: run it as root\n")
    return Options(chosen, given.quick)
