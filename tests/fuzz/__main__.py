"""Feed seeded garbage to every parser, longer than the tests do.

    python -m tests.fuzz [SECONDS] [--target NAME …] [--seed N]

The time (300 s) is shared out evenly. A line per target tells how much it took; a failure tells the seed of its story,
and the same target with that seed fails at once. Exit codes: 0 all held, 1 something failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from tests.fuzz import analysis, stories

Story = Callable[[random.Random], int]

LONGEST_STORY_S: Final = 60
"""A story takes well below a second, one of the analysis some seconds; a parser that needs this long hangs."""

CAPTURES: Final = Path(__file__).resolve().parents[3] / "shared" / "captures"
LARGEST_CAPTURE: Final = 100_000  # octets; larger ones find nothing more, only later

GATE: Final[Mapping[str, Story]] = {
    "dhcp-codec": stories.dhcp_codec,
    "dhcp-server": stories.dhcp_server,
    "dns-message": stories.dns_message,
    "dns-resolver": stories.dns_resolver,
    "radius-answers": stories.radius_answers,
    "radius-requests": stories.radius_requests,
    "control-frames": stories.control_frames,
    "http": stories.http_requests,
    "config": stories.configuration,
    "journal": stories.journal,
    "mac-addresses": stories.mac_addresses,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target."""

    inputs: int
    seconds: float
    failed_seed: int | None = None
    trace: str = ""


class TooSlow(Exception):
    """A story did not end in time."""


def targets() -> dict[str, Story]:
    """Every target by its name; that of the analysis only where there are captures to begin with."""
    seeds = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pcap*")) if path.stat().st_size < LARGEST_CAPTURE]
    return dict(GATE) | ({"captures": partial(analysis.rounds, count=3, seeds=seeds)} if seeds else {})


def fuzz(story: Story, seconds: float, seed: int) -> Outcome:
    """Tell stories with seeds from `seed` on until the time is over, at least one; stops at the first failure."""
    begun = time.monotonic()
    inputs = 0
    while True:
        signal.alarm(LONGEST_STORY_S)
        try:
            inputs += story(random.Random(seed))
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            return Outcome(inputs, time.monotonic() - begun, seed, traceback.format_exc())
        finally:
            signal.alarm(0)
        seed += 1
        if time.monotonic() - begun >= seconds:
            return Outcome(inputs, time.monotonic() - begun)


def run(chosen: Mapping[str, Story], seconds: float, seed: int) -> int:
    """Fuzz these targets one after the other and print what became of each; returns the exit code."""
    signal.signal(signal.SIGALRM, _too_slow)
    failed = 0
    for name, story in chosen.items():
        outcome = fuzz(story, seconds / len(chosen), seed)
        rate = outcome.inputs / max(outcome.seconds, 1e-9)
        verdict = "ok" if outcome.failed_seed is None else f"FAILED with seed {outcome.failed_seed}"
        print(f"{name:<16} {outcome.inputs:>10,} inputs {rate:>10,.0f}/s  {verdict}", flush=True)
        if outcome.failed_seed is not None:
            failed += 1
            print(outcome.trace, end="")
            print(f"again: ./build.sh fuzz 1 --target {name} --seed {outcome.failed_seed}", flush=True)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments and fuzz."""
    known = targets()
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Feed seeded garbage to every parser.", allow_abbrev=False
    )
    parser.add_argument("seconds", nargs="?", type=float, default=300, help="for all targets together (300)")
    parser.add_argument("--target", action="append", choices=sorted(known), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="seed of the first story; default: a random one")
    arguments = parser.parse_args(argv)
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    if "captures" not in known:
        print(f"captures: left out, none are in {CAPTURES}")
    print(f"seed {seed}")
    return run({name: known[name] for name in arguments.target or known}, arguments.seconds, seed)


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow(f"a story took longer than {LONGEST_STORY_S} s")


if __name__ == "__main__":
    sys.exit(main())
