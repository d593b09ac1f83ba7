"""The checks that need nothing of the daemon: they run in it, and in the command when it does not run."""

from __future__ import annotations

import pwd
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from gateway.config import Config, Endpoint, Zone
from gateway.datapath.base import wanted_sysctls
from gateway.datapath.seal import seals
from gateway.dns.resolv_conf import parse_resolv_conf
from gateway.doctor import box, dhcp_servers, files, interfaces, kernel, login_pages, names, probes, routing
from gateway.doctor.certificate import judge_administration
from gateway.doctor.examination import Look
from gateway.doctor.rows import Row, skipped
from gateway.doctor.sockets_in_use import judge_ports
from gateway.resources import memory_bytes
from gateway.system.files import may_replace

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_MOST_PLACES: Final = 3


def of_networking(config: Config) -> list[Look]:
    """Interfaces, routes, the kernel's settings, other firewalls."""

    def links_and_routes() -> Sequence[Row]:
        links = kernel.links()
        rows = [interfaces.judge_zone(zone, links) for zone in config.zones] or [names.nothing_to_ask()]
        return rows + interfaces.judge_uplinks(config.network, links, kernel.default_routes())

    def guards() -> Sequence[Row]:
        return [routing.judge_guards(config, kernel.rules(), kernel.links(), seals())]

    def sysctls() -> Sequence[Row]:
        wanted = wanted_sysctls(config)
        return routing.judge_sysctls(wanted, files.sysctls(path for path, _ in wanted))

    def firewalls() -> Sequence[Row]:
        try:
            foreign = routing.read_foreign(probes.list_ruleset(), config.network.table)
        except OSError:
            foreign = None  # no nft, or not permitted: the rows say so
        return [
            routing.judge_mark_users(config, kernel.rules(), foreign),
            routing.judge_offload(config, kernel.links(), foreign),
        ]

    return [
        Look("interfaces", links_and_routes),
        Look("routing guard", guards),
        Look("forwarding", sysctls),
        Look("other firewalls", firewalls),
    ]


def of_neighbourhood(config: Config, *, running: bool) -> list[Look]:
    """Other DHCP servers, and other programs at our ports."""

    def other_servers() -> Sequence[Row]:
        asked = probes.look_for_dhcp_servers(config.zones)
        macs = probes.own_macs(config.zones)
        return [dhcp_servers.judge_segment(zone, asked[zone.name], macs.get(zone.name)) for zone in config.zones]

    def ports() -> Sequence[Row]:
        return judge_ports(config, files.holders_of(config, _uid_of(config.general.portal_user)), running=running)

    return [Look("other DHCP servers", other_servers), Look("ports", ports)]


def of_names(config: Config, *, running: bool, upstreams: Sequence[Endpoint] = ()) -> list[Look]:
    """Our resolver where it runs, and those that it asks."""
    looks = []
    if running:
        for zone in config.zones:

            def ours(zone: Zone = zone) -> Sequence[Row]:
                return names.judge_zone(config, zone, probes.ask_our_resolver(config, zone))

            looks.append(Look(f"zone {zone.name}: DNS before login", ours))

    def others() -> Sequence[Row]:
        return [names.judge_upstreams(probes.ask_resolvers(upstreams or _upstreams(config)))]

    looks.append(Look("resolvers", others))
    return looks


def of_pages(config: Config) -> list[Look]:
    """The portal, and the administration's pages."""

    def portal() -> Sequence[Row]:
        return login_pages.judge_pages(config, probes.ask_portal(config))

    def administration() -> Sequence[Row]:
        places = _places(config) if config.admin.enabled else []
        return [judge_administration(config.admin, probes.look_at_certificate(places), time.time())]

    return [Look("login pages", portal), Look("administration", administration)]


def of_box(config: Config, config_path: Path, pool_sizes: Sequence[int] = ()) -> list[Look]:
    """Clock, disk, memory, bounds of the kernel, and the processes beside the daemon."""
    state_dir, run_dir = Path(config.general.state_dir), Path(config.general.run_dir)

    def tables() -> Sequence[Row]:
        found = files.tables()
        return [box.judge_connections(found), box.judge_neighbours(config, found, pool_sizes)]

    def system() -> Sequence[Row]:
        return [box.judge_system(not may_replace(config_path), probes.answers_at(str(run_dir / "system.sock")))]

    return [
        Look("clock", lambda: [box.judge_clock(files.clock_of(state_dir))]),
        Look("disk", lambda: [box.judge_disk(files.disk_of(state_dir))]),
        Look("memory", lambda: [box.judge_memory(*memory_bytes())]),
        Look("kernel tables", tables),
        Look("analysis worker", lambda: [box.judge_worker(files.worker_of(state_dir))]),
        Look("postern-system", system),
    ]


def not_without_daemon(check: str) -> Row:
    """What only a running daemon knows."""
    return skipped(check, "Only a running posternd knows this.", "Start it: systemctl start posternd.")


def _upstreams(config: Config) -> Sequence[Endpoint]:
    """The resolvers that posternd would ask."""
    if config.dns.upstreams:
        return config.dns.upstreams
    own = {zone.address.ip for zone in config.zones}
    return [
        endpoint
        for endpoint in parse_resolv_conf(RESOLV_CONF.read_text("utf-8", "replace"))
        if endpoint.address not in own
    ]


def _places(config: Config) -> list[Endpoint]:
    """Where the administration's pages should answer."""
    wanted, port = config.admin.interfaces, config.admin.port
    found = [Endpoint(IPv4Address("127.0.0.1"), port)] if "lo" in wanted else []
    for link in kernel.links():
        if link.name in wanted and link.name != "lo":
            found += [Endpoint(address.ip, port) for address in link.addresses]
    return found[:_MOST_PLACES]


def _uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
