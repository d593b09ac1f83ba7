"""The `nft` command: loads and checks rulesets, each in one transaction."""

from __future__ import annotations

import asyncio
import os
from typing import Final

_TIMEOUT_S: Final = 30  # ten thousand elements take half a second on a slow core
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}


async def run_nft(script: str, *options: str) -> str:
    """Give a script to `nft -f -`; returns an empty string, or what nft said against it."""
    code, _output, trouble = await _run(script, *options, "-f", "-")
    return "" if code == 0 else trouble.strip() or f"nft ended with {code}"


async def nft_json(*words: str) -> str:
    """Run a listing with JSON output; empty when what was asked for is not there."""
    code, output, _trouble = await _run("", "-j", *words)
    return output if code == 0 else ""


async def _run(stdin: str, *arguments: str) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd=os.sep,
        )
    except FileNotFoundError:
        return 127, "", "the command nft is missing: install the package nftables"
    try:
        output, trouble = await asyncio.wait_for(process.communicate(stdin.encode()), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 124, "", f"nft did not end within {_TIMEOUT_S} s"
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace"), trouble.decode(errors="replace")
