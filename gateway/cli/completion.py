"""`postern completion`: the script that completes commands in bash."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from gateway.cli.options import Subparsers

SCRIPT: Final = Path(__file__).with_name("postern.bash")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern completion bash`."""
    parser = subparsers.add_parser(
        "completion",
        help="completion for the shell",
        description='Completion for the shell: eval "$(postern completion bash)", or put it in '
        "/usr/share/bash-completion/completions/postern.",
    )
    parser.add_argument("shell", choices=("bash",), help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(SCRIPT.read_text("utf-8"))
    return 0
