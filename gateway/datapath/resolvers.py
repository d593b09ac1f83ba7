"""Addresses of well-known public resolvers that speak DNS over HTTPS or QUIC.

Before login a client that reaches one of them resolves names past us and may never meet the portal, so they stay closed
even when a walled garden's prefix would open them. The list holds services that browsers and systems offer by name in
their settings; it is a nicety and no fence: everything outside the garden is closed before login anyway.
"""

from __future__ import annotations

from typing import Final

KNOWN_DOH4: Final = (
    "1.0.0.1",  # Cloudflare
    "1.0.0.2",
    "1.0.0.3",
    "1.1.1.1",
    "1.1.1.2",
    "1.1.1.3",
    "8.8.4.4",  # Google
    "8.8.8.8",
    "9.9.9.9",  # Quad9
    "9.9.9.10",
    "9.9.9.11",
    "45.90.28.0",  # NextDNS
    "45.90.30.0",
    "76.76.2.0",  # Control D
    "76.76.10.0",
    "94.140.14.14",  # AdGuard
    "94.140.15.15",
    "149.112.112.112",  # Quad9
    "185.222.222.222",  # DNS.SB
    "193.110.81.0",  # DNS0
    "208.67.220.220",  # OpenDNS
    "208.67.222.222",
)
KNOWN_DOH6: Final = (
    "2001:4860:4860::8844",  # Google
    "2001:4860:4860::8888",
    "2606:4700:4700::1001",  # Cloudflare
    "2606:4700:4700::1111",
    "2620:119:35::35",  # OpenDNS
    "2620:119:53::53",
    "2620:fe::9",  # Quad9
    "2620:fe::fe",
    "2a07:a8c0::",  # NextDNS
    "2a07:a8c1::",
    "2a10:50c0::ad1:ff",  # AdGuard
    "2a10:50c0::ad2:ff",
)
