"""Fuzzer of the analysis: damaged captures must end with a report or a named refusal.

Run `python -m tests.fuzz.analysis --seconds 60 [--seed N] [FILE ...]`; without files, the shared captures under 100
kB are used.
A failing input is written to the file named in the last line, so that it can be run again.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from gateway.analysis.engine import analyze
from gateway.analysis.refusals import AnalysisRefused
from gateway.analysis.settings import Settings

_SETTINGS = Settings().with_overrides({"tables.half_open": "64", "tables.flows": "64", "tables.fragment_groups": "16"})
_DEEP = _SETTINGS.with_overrides({"reader.decapsulate": "yes"})
_INTERESTING = (0, 1, 0x7F, 0x80, 0xC0, 0xFF)
_SLOW_S = 20.0


def damaged(generator: random.Random, data: bytes) -> bytes:
    """A copy with bytes changed, runs removed or doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 16, 64))):
        if not changed:
            break
        at = generator.randrange(len(changed))
        kind = generator.randrange(6)
        if kind <= 2:
            changed[at] = generator.choice(_INTERESTING) if kind else generator.randrange(256)
        elif kind == 3:
            changed[at : at + 4] = generator.getrandbits(32).to_bytes(4, "little")
        elif kind == 4:
            del changed[at : at + generator.randrange(1, 40)]
        else:
            changed[at:at] = changed[at : at + generator.randrange(1, 200)]
    if generator.randrange(8) == 0:
        del changed[generator.randrange(len(changed) + 1) :]
    return bytes(changed)


def attempt(generator: random.Random, data: bytes) -> None:
    """Analyse damaged bytes; anything but a report or a refusal is raised."""
    try:
        report = analyze(io.BytesIO(data), name="fuzz", settings=generator.choice((_SETTINGS, _DEEP)))
    except AnalysisRefused:
        return
    json.dumps(report, allow_nan=False)


def rounds(generator: random.Random, count: int, seeds: list[bytes]) -> int:
    """Run `count` attempts; returns how many were made."""
    for _ in range(count):
        attempt(generator, damaged(generator, generator.choice(seeds)))
    return count


def main() -> int:
    """Fuzz for a time; returns 1 at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parents[3] / "shared" / "captures"
    files = arguments.files or [path for path in sorted(folder.glob("*.pcap*")) if path.stat().st_size < 100_000]
    if not files:
        print(f"no captures to start from: give files, or put the shared captures into {folder}", file=sys.stderr)
        return 2
    seeds = [path.read_bytes() for path in files]
    generator = random.Random(arguments.seed)
    until = time.monotonic() + arguments.seconds
    done = 0
    while time.monotonic() < until:
        data = damaged(generator, generator.choice(seeds))
        begun = time.monotonic()
        try:
            attempt(generator, data)
            assert time.monotonic() - begun < _SLOW_S, "took too long"
        except BaseException:
            with tempfile.NamedTemporaryFile(prefix="fuzz-analysis-", suffix=".pcap", delete=False) as out:
                out.write(data)
            print(f"failed after {done} inputs; the input is in {out.name}", file=sys.stderr)
            raise
        done += 1
    print(f"{done} damaged captures analysed in {arguments.seconds:.0f} s, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
