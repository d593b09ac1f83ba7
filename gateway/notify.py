"""Telling the service manager how we are (sd_notify(3), the protocol of systemd's NOTIFY_SOCKET).

Where no manager listens, as on OpenWrt or in a terminal, nothing is sent and nothing fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Final

LOG: Final = logging.getLogger(__name__)


def notify(state: str) -> bool:
    """Send `READY=1`, `STOPPING=1`, `STATUS=…` or `WATCHDOG=1`; whether somebody listens. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace, as unix(7) writes it
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            peer.sendto(state.encode(), address)
    except OSError as error:
        LOG.warning("the service manager could not be told %s: %s", state.split("=")[0], error)
        return False
    return True


def watchdog_s() -> float | None:
    """How often to send `WATCHDOG=1`, half of what the manager waits; None when it does not watch this process."""
    wanted, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or int(wanted) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(wanted) / 2e6


async def keep_alive() -> None:
    """Send `WATCHDOG=1` for as long as the loop turns; ends at once when nobody watches."""
    every_s = watchdog_s()
    while every_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
