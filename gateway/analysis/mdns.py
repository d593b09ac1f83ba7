"""SSDP: what a device says of itself by multicast (mDNS and LLMNR are read by `dns`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.analysis.state import State

_METHODS: Final = (b"NOTIFY * ", b"M-SEARCH ", b"HTTP/1.1 ")
_MAX_DEVICES: Final = 1_024
_MAX_SERVICES: Final = 16


def ssdp(st: State, buf: bytes, at: int, end: int, key: bytes) -> bool:
    """Note the server and service type of an announcement; returns whether it was SSDP."""
    if buf[at : at + 9] not in _METHODS:
        return False
    _count(st, buf[at : min(end, at + 1024)])
    source = key[:4] if len(key) < 36 else key[:16]
    device = st.devices.get(source)
    if device is None:
        if len(st.devices) >= _MAX_DEVICES:
            return True
        device = st.devices[source] = (set(), set())
    names, services = device
    for line in buf[at : min(end, at + 1024)].split(b"\r\n")[1:24]:
        field, _, value = line.partition(b":")
        text = value.strip().decode("utf-8", "replace")[:120]
        if field.upper() == b"SERVER" and len(names) < _MAX_SERVICES:
            names.add(text)
        elif field.upper() == b"NT" and len(services) < _MAX_SERVICES:
            services.add(text)
    return True


def _count(st: State, message: bytes) -> None:
    """SSDP is HTTP in datagrams: its methods and hosts count with those of HTTP."""
    http = st.http
    method = message.partition(b" ")[0].decode("ascii", "replace")
    if method.startswith("HTTP"):
        return
    http.methods[method] = http.methods.get(method, 0) + 1
    for line in message.split(b"\r\n")[1:24]:
        if line[:5].upper() == b"HOST:":
            host = line[5:].strip().decode("utf-8", "replace")[:253]
            if len(http.hosts) < st.settings.tables.names or host in http.hosts:
                http.hosts[host] = http.hosts.get(host, 0) + 1
            return
