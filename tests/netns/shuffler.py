"""A bad link in user space: two TUN devices in two namespaces, and between them seeded loss, delay and reordering.

Run as a program: `shuffler.py LOG SEED DELAY_MS LOSS REORDER FIRST_NETNS SECOND_NETNS`. It makes the device `bad0` in
both namespaces, prints `ready`, and forwards until it is terminated. Then it writes to LOG what it did, as a JSON list:
for each IPv4 packet, in the order in which a kernel handed it over, `[way, digest, fate]`. Way 0 goes from the first
namespace to the second; fate is `passed`, `dropped` or `held`, which lets later packets overtake.

A device without offloads takes and gives packets exactly as they would be on a wire.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Final

DEVICE: Final = "bad0"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_CLONE_NEWNET: Final = 0x40000000
_HELD_MS: Final = (4.0, 8.0)  # how much longer than the others a packet is under way that is to be overtaken


def digest(packet: bytes) -> str:
    """What an IPv4 packet is known by: its bytes, of which the IP id and the timestamps make each transmission another.

    What a router changes, the TTL and with it the checksum of the header, is left out.
    """
    return hashlib.blake2b(packet[:8] + packet[9:10] + packet[12:], digest_size=8).hexdigest()


def carries_data(packet: bytes) -> bool:
    """Whether an IPv4 packet is a TCP segment with payload; only those are lost or held: each loss can be seen."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
        return False
    head = (packet[0] & 15) * 4
    return len(packet) > head + (packet[head + 12] >> 4) * 4


def open_device(netns: str) -> int:
    """Make the device in a namespace and return its descriptor, which works from anywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open("rb") as home, Path(f"/run/netns/{netns}").open("rb") as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)
    return device


def forward(
    devices: tuple[int, int], seed: int, delay_s: float, loss: float, reorder: float
) -> list[tuple[int, str, str]]:
    """Forward between the devices until SIGTERM; returns way, digest and fate of each packet."""
    generator = random.Random(seed)
    taken: list[tuple[int, str, str]] = []
    under_way: list[tuple[float, int, int, bytes]] = []
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    while running:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.2
        ready, _, _ = select.select(devices, [], [], wait)
        now = time.monotonic()
        for device in ready:
            way = devices.index(device)
            for _ in range(64):
                try:
                    packet = os.read(device, 65_536)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue  # what IPv6 says to a device that has just come up
                fate, due = "passed", now + delay_s
                if carries_data(packet):
                    chance = generator.random()
                    if chance < loss:
                        fate = "dropped"
                    elif chance < loss + reorder:
                        fate = "held"
                        due += generator.uniform(*_HELD_MS) / 1000
                taken.append((way, digest(packet), fate))
                if fate != "dropped":
                    heapq.heappush(under_way, (due, len(taken), way, packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, way, packet = heapq.heappop(under_way)
            os.write(devices[1 - way], packet)
    return taken


def main(arguments: list[str]) -> None:
    """Run as the module's docstring says."""
    log, seed, delay_ms, loss, reorder, first, second = arguments
    # One processor, so that the kernel's queues per processor cannot change the order that is written down.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    devices = (open_device(first), open_device(second))
    print("ready", flush=True)
    done = forward(devices, int(seed), float(delay_ms) / 1000, float(loss), float(reorder))
    Path(log).write_text(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1:])
