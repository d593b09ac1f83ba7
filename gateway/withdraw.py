"""`posternd --withdraw`: take out of the kernel what a stopped posternd left there.

A stop leaves table, guards, addresses and forwarding, so that a restart goes unnoticed and a crash opens nothing.
Whoever removes the package wants none of it. Where nothing of ours is in the kernel nothing is changed: addresses and
forwarding of a machine that never was a gate are not ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.datapath.datapath import Datapath
from gateway.datapath.netlink import Netlink
from gateway.datapath.seal import seals
from gateway.datapath.table import GateTable

WAIT_S: Final = 20.0  # a posternd that is stopping has this long, as its service manager gives it


class StillRuns(Exception):
    """A posternd runs on this configuration, and would put everything back."""


def withdraw(config: Config, wait_s: float = WAIT_S) -> bool:
    """Remove everything; returns whether there was anything. Raises StillRuns, and OSError without the capability."""
    lock = Path(config.general.state_dir) / "posternd.lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return asyncio.run(_remove(config))
    try:
        _wait_for(descriptor, wait_s)
        return asyncio.run(_remove(config))
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= until:
                raise StillRuns("posternd runs; stop it first") from error
            time.sleep(0.1)
        else:
            return


async def _remove(config: Config) -> bool:
    if not await _anything(config):
        return False
    datapath = Datapath(config, lambda _event: None, time.monotonic)
    try:
        await datapath.teardown()
    finally:
        await datapath.close()
    return True


async def _anything(config: Config) -> bool:
    table, netlink = GateTable(config.network.table), Netlink()
    try:
        return bool(table.chains() or await netlink.work(seals) or await netlink.guards(config.network.rule_priority))
    finally:
        table.close()
        await netlink.close()
