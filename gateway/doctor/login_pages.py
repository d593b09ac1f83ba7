"""Whether each operating system's probe is led to the login page. Pure: the questions, and what their answers mean.

The portal is asked at its own listener, from the zone's own address, with the Host of the probe. That address is the
gateway's: DHCP never gives it out, a reservation may not name it, so no session has it and the portal can never take
the question for one of a guest who is online. Strangers' hosts are redirected before the portal asks where a request
comes from, so the answer is that of any guest who has not logged in. That the kernel leads port 80 to the portal is
not part of it: the check of the packet filter compares those rules with the ones that were rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.config import Config, Zone
from gateway.doctor.rows import Row, fail, ok, skipped
from gateway.values import value_class


class Probe(NamedTuple):
    """What a system asks to find out whether it is online."""

    system: str
    host: str
    path: str


PROBES: Final = (
    Probe("Android", "connectivitycheck.gstatic.com", "/generate_204"),
    Probe("Android", "www.google.com", "/gen_204"),
    Probe("Android of Huawei and Xiaomi", "connectivitycheck.platform.hicloud.com", "/generate_204"),
    Probe("Android of Huawei and Xiaomi", "connect.rom.miui.com", "/generate_204"),
    Probe("iPhone, iPad and Mac", "captive.apple.com", "/hotspot-detect.html"),
    Probe("iPhone, iPad and Mac", "www.apple.com", "/library/test/success.html"),
    Probe("Windows", "www.msftconnecttest.com", "/connecttest.txt"),
    Probe("Windows", "www.msftconnecttest.com", "/redirect"),
    Probe("Windows", "www.msftncsi.com", "/ncsi.txt"),
    Probe("Chrome and ChromeOS", "www.gstatic.com", "/generate_204"),
    Probe("Edge", "edge-http.microsoft.com", "/captiveportal/generate_204"),
    Probe("Firefox", "detectportal.firefox.com", "/canonical.html"),
    Probe("Firefox", "detectportal.firefox.com", "/success.txt"),
    Probe("Linux (NetworkManager)", "nmcheck.gnome.org", "/check_network_status.txt"),
    Probe("Linux (NetworkManager)", "connectivity-check.ubuntu.com", "/"),
    Probe("Kindle", "spectrum.s3.amazonaws.com", "/kindle-wifi/wifistub.html"),
    Probe("Fire OS", "fireoscaptiveportal.com", "/generate_204"),
    Probe("Nintendo", "conntest.nintendowifi.net", "/"),
)
_REDIRECTS: Final = (302, 303, 307)  # every mini browser takes these
_FAILURE_OCTETS: Final = 4  # Android takes a body of up to so many for a failure, not for a portal


@value_class
class Answer:
    """What came back: status 0 and `trouble` when nothing did."""

    status: int
    location: str = ""
    cache_control: str = ""
    body_octets: int = 0
    trouble: str = ""


Answers = Mapping[str, Mapping[Probe, Answer]]
"""By zone and probe."""


def judge_pages(config: Config, answers: Answers) -> list[Row]:
    """One row for the portal in each zone, one for each system over all zones."""
    rows = []
    alive: list[Zone] = []
    for zone in config.zones:
        check, where = f"zone {zone.name}: portal", f"{zone.address.ip}:{config.uam.port}"
        found = answers.get(zone.name, {})
        if any(answer.status for answer in found.values()):
            alive.append(zone)
            rows.append(ok(check, f"The portal answers at {where}."))
        else:
            trouble = next((answer.trouble for answer in found.values() if answer.trouble), "it was not asked")
            remedy = (
                "Start it: systemctl restart postern-portal (OpenWrt: service postern restart), and read its log; the "
                "row ports names another program that has the port."
            )
            text = f"The portal does not answer at {where} ({trouble}): guests see no login page."
            rows.append(fail(check, text, remedy))
    for system in dict.fromkeys(probe.system for probe in PROBES):
        rows.append(_judge_system(config, system, alive, answers))
    return rows


def _judge_system(config: Config, system: str, zones: Sequence[Zone], answers: Answers) -> Row:
    check = f"login page: {system}"
    if not zones:
        return skipped(check, "The portal could not be asked.")
    wrong = [
        f"{probe.host}{probe.path} in zone {zone.name} {reason}"
        for zone in zones
        for probe in PROBES
        if probe.system == system and (reason := objection(config, zone, answers[zone.name].get(probe)))
    ]
    if wrong:
        remedy = (
            "See that the program at this port is postern-web (row ports) and of the version of posternd, and restart "
            "it: systemctl restart postern-portal (OpenWrt: service postern restart)."
        )
        return fail(check, f"The login page does not open by itself: {'; '.join(wrong)}.", remedy)
    return ok(check, "Its question for the Internet is led to the login page.")


def objection(config: Config, zone: Zone, answer: Answer | None) -> str:
    """Why a system would not show the login page after this answer; empty when it would."""
    if answer is None or not answer.status:
        return f"is not answered ({answer.trouble if answer else 'it was not asked'})"
    if answer.status not in _REDIRECTS:
        online = " as if the Internet were open" if answer.status in (200, 204) else ""
        return f"is answered with {answer.status}{online}, not redirected"
    try:
        parts = urlsplit(answer.location)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    own = {str(zone.address.ip), config.dns.portal_name.lower(), config.dns.status_name.lower()}
    if host not in own or (port or 80) != config.uam.port:
        return f"is led to {answer.location[:100]!r}, which is not the portal"
    if answer.body_octets <= _FAILURE_OCTETS:
        return "is redirected with an empty page, which Android takes for a failure"
    if "no-store" not in answer.cache_control:
        return "is redirected without Cache-Control: no-store, so that a browser may keep it after login"
    return ""
