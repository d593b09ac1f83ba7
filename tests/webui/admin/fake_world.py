"""A gateway in memory behind `FakeAdmin`: guests, vouchers, users, configuration, enough for every page."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.control.client import ControlError
from webui.admin.daemon import JsonValue, Params

NOW = 1_767_225_600  # 2026-01-01
HOSTILE = "<b>\"'&x"


@dataclass
class World:
    """The rows of everything; tests change them as they like. Any, as the rows are JSON objects."""

    clients: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def populate(self, clients: int) -> None:
        """Fill the tables with what a hotel might have."""
        rng = random.Random(1)
        self.clients = [client_row(number, rng) for number in range(clients)]

    def answer(self, method: str, params: Params, who: str) -> JsonValue:
        """The answer of a control method."""
        handler: Callable[[Params, str], JsonValue] | None = getattr(self, method.replace(".", "_"), None)
        if handler is None:
            raise ControlError("unknown_method", f"there is no method {method}")
        return handler(params, who)

    def status(self, params: Params, who: str) -> JsonValue:
        online = sum(row["state"] == "online" for row in self.clients)
        zone = {
            "name": "guests",
            "interface": "wlan0",
            "address": "10.1.0.1/16",
            "leases": len(self.clients),
            "pool": 16000,
            "online": online,
            "held": len(self.clients) - online,
        }
        return cast(
            JsonValue,
            {
                "version": "0.1.0",
                "uptime_s": 93784,
                "zones": [zone],
                "sessions": {"online": online, "total": len(self.clients)},
                "radius": [],
                "datapath": {},
                "journal": {"size_bytes": 123456, "records": 1000, "waiting": 0, "lost": 0},
                "warnings": self.warnings,
                "memory_rss_bytes": 47_000_000,
                "clock_set": True,
            },
        )


def client_row(number: int, rng: random.Random) -> dict[str, Any]:
    """One guest."""
    online = rng.random() < 0.8
    mac = f"{'02' if number % 3 else '00'}:00:5e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {
        "zone": "guests",
        "mac": mac,
        "mac_is_random": number % 3 != 0,
        "ip": f"10.1.{number // 250}.{number % 250 + 2}",
        "ipv6": [f"2001:db8::{number:x}"] if number % 4 == 0 else [],
        "hostname": rng.choice(("iPhone", "Pixel-8", "laptop", HOSTILE, "", "a-very-long-hostname-of-a-television")),
        "state": "online" if online else "held",
        "username": rng.choice(("alice", "bob", "room 12", "")) if online else "",
        "method": "password" if online else "",
        "session_id": f"67a1b2c3-{number:08x}" if online else "",
        "client_number": number + 1,
        "since_s": rng.randrange(86400) if online else None,
        "session_start_unix": NOW if online else None,
        "seconds_left": rng.randrange(86400) if online and number % 2 else None,
        "idle_s": rng.randrange(600) if online else None,
        "upload_bytes": rng.randrange(10**9) if online else 0,
        "download_bytes": rng.randrange(10**10) if online else 0,
        "bytes_left": rng.randrange(10**9) if number % 5 == 0 else None,
        "idle_limit_s": 900,
        "rate_up_bps": rng.randrange(2 * 10**6) if online else 0,
        "rate_down_bps": rng.randrange(20 * 10**6) if online else 0,
    }
