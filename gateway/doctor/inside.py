"""The whole examination of a running gateway: what its rooms know, and what `checks` finds out around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from gateway.config_loader import check, interfaces
from gateway.control.protocol import JsonValue
from gateway.doctor import checks, dhcp_servers, probes, routing
from gateway.doctor.examination import Ask, Look, examine
from gateway.doctor.radius_servers import Past, judge_queue, judge_server
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.sources import rows as objects

if TYPE_CHECKING:
    from gateway.daemon import Gateway


async def examine_gateway(gateway: Gateway) -> list[Row]:
    """Every row about a running gateway, within about five seconds and without holding up its loop."""
    return [ok("posternd", "It runs and answers."), *await examine(_checks(gateway))]


def _checks(gateway: Gateway) -> list[Look | Ask]:
    config = gateway.config
    pools = {name: server.counts() for name, server in gateway.dhcp.servers.items()}
    upstreams = tuple(dict.fromkeys(upstream.endpoint for upstream in gateway.dns.status().upstreams))
    return [
        Look("configuration", lambda: [_configuration(gateway)]),
        *checks.of_networking(config),
        Ask("packet filter", lambda: _packet_filter(gateway)),
        Ask("DHCP", lambda: _dhcp(gateway)),
        *checks.of_neighbourhood(config, running=True),
        *checks.of_names(config, running=True, upstreams=upstreams),
        *checks.of_pages(config),
        Ask("portal process", lambda: _portal(gateway)),
        *_radius(gateway),
        *checks.of_box(config, gateway.path, [counts.pool_size for counts in pools.values()]),
        Ask("journal", lambda: _journal(gateway)),
        Ask("warnings", lambda: _warnings(gateway)),
    ]


def _configuration(gateway: Gateway) -> Row:
    """The file as it is now."""
    path = gateway.path
    problems = [str(problem) for problem in check(path.read_text(encoding="utf-8"), str(path), interfaces())]
    if problems:
        remedy = "Mend it in the file or on the pages; postern config check names every problem."
        return fail("configuration", " ".join(f"{problem}." for problem in problems[:3]), remedy)
    return ok("configuration", f"{path} has no problem.")


async def _packet_filter(gateway: Gateway) -> Sequence[Row]:
    problems = await gateway.datapath.check_table()
    numbers = gateway.datapath.statistics
    ago_s = None if numbers.lost_at is None else gateway.now() - numbers.lost_at
    return [routing.judge_table(gateway.config.network.table, problems, ago_s, numbers.tables_lost)]


async def _dhcp(gateway: Gateway) -> Sequence[Row]:
    config = gateway.config
    found = dhcp_servers.judge_listening(config.zones, gateway.dhcp.listening)
    for zone in config.zones:
        counts = gateway.dhcp.servers[zone.name].counts()
        found.append(dhcp_servers.judge_pool(zone, counts.bound, counts.pool_size))
    return found


async def _portal(gateway: Gateway) -> Sequence[Row]:
    if gateway.methods.portal.connected:
        return [ok("portal process", "It is connected to posternd.")]
    return [
        fail(
            "portal process",
            "The portal is not connected to posternd: it lets nobody log in.",
            "Start it: systemctl restart postern-portal (OpenWrt: service postern restart), and read its log.",
        )
    ]


def _radius(gateway: Gateway) -> list[Look | Ask]:
    config = gateway.config
    servers = config.radius.servers
    if not servers:
        return [Ask("RADIUS", _no_radius)]
    status = gateway.radius.status()
    past = _past(cast(JsonValue, status["servers"]))
    queue = cast("Mapping[str, object]", status["accounting_queue"])

    def ask() -> Sequence[Row]:
        asked = probes.ask_radius(servers, config.general.nas_identifier)
        return [judge_server(one, past.get((one.server.name, one.purpose))) for one in asked]

    return [
        Look("RADIUS", ask),
        Look("accounting queue", lambda: [judge_queue(servers, queue, config.radius.accounting_queue)]),
    ]


async def _no_radius() -> Sequence[Row]:
    return [skipped("RADIUS", "No RADIUS server is configured.")]


def _past(told: JsonValue) -> dict[tuple[str, str], Past]:
    found = {}
    for row in objects(told):
        age = row.get("last_answer_age_s")
        found[str(row.get("server")), str(row.get("purpose"))] = Past(
            str(row.get("breaker")), str(row.get("reason") or ""), age if isinstance(age, int | float) else None
        )
    return found


async def _journal(gateway: Gateway) -> Sequence[Row]:
    journal = gateway.journal
    if journal.trouble:
        text = f"{journal.trouble[:1].upper()}{journal.trouble[1:]}."
        return [fail("journal", text, "Free space on the disk of state_dir, and see that posternd may write there.")]
    if journal.lost_records:
        text = f"{journal.lost_records} records were lost; those sessions would not survive a restart as they are."
        return [warn("journal", text, "Free space on the disk of state_dir.")]
    return [ok("journal", "What must survive a restart is written down.")]


async def _warnings(gateway: Gateway) -> Sequence[Row]:
    """What the rooms themselves complain of."""
    found = [sentence.rstrip(".") for sentence in gateway.warnings()]
    if not found:
        return [ok("warnings", "posternd itself complains of nothing.")]
    text = f"posternd itself says: {'. '.join(found[:6])}."
    return [warn("warnings", text, "Each says by itself what to do; postern status lists all of them.")]
