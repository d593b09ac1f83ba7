"""Routing and filtering around the gate: guards, sysctls, and who else uses marks or carries packets past us. Pure.

Our marks are numbers from 1 to 0x10002 on guests' packets (`datapath.ruleset`). Who reads bits of marks in routing
rules sends some guests elsewhere; who writes marks on guest interfaces changes who a packet belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.config import Config
from gateway.datapath.program import name_of
from gateway.datapath.ruleset import LAST_CLIENT_NUMBER, MARK_HELD
from gateway.doctor.interfaces import Link
from gateway.doctor.rows import Row, fail, ok, skipped, warn
from gateway.values import value_class

PROHIBIT: Final = 8  # FR_ACT_PROHIBIT
WHOLE_MARK: Final = 0xFFFFFFFF
_SEEN: Final = 5  # names that a sentence lists


@value_class
class Rule:
    """A routing rule."""

    version: int  # 4 or 6
    priority: int
    interface: str  # packets that come in there; empty: from anywhere
    mark: int
    mask: int | None  # None: the rule looks at no mark
    action: int
    table: int
    is_inverted: bool = False

    def is_guard(self, interface: str, priority: int) -> bool:
        """Whether this is our rule that stops unmarked packets of an interface."""
        return (
            self.action == PROHIBIT
            and self.interface == interface
            and self.priority == priority
            and self.mark == 0
            and self.mask == WHOLE_MARK
        )

    def __str__(self) -> str:
        where = f" iif {self.interface}" if self.interface else ""
        negated = "not " if self.is_inverted else ""
        return f"{self.priority}: {negated}fwmark {self.mark:#x}/{self.mask or 0:#x}{where} lookup {self.table}"


@value_class
class Foreign:
    """What of others' rulesets concerns us."""

    offloading: Mapping[str, tuple[str, ...]]  # flowtables: "table inet fw4, flowtable ft" -> devices
    marking: tuple[str, ...]  # chains that set packet marks: "table inet other, chain mark_all"


def judge_guards(config: Config, rules: Sequence[Rule], links: Sequence[Link], sealed: Mapping[int, str]) -> Row:
    """What keeps the gate shut without our table; `sealed` are the names of our filters by the interface's index."""
    priority = config.network.rule_priority
    check = "routing guard"
    if not config.zones:
        return skipped(check, "There is no zone to guard.")
    guests = {zone.interface for zone in config.zones}
    slow, missing = [], []
    for name in (link.name for link in links if link.name in guests and sealed.get(link.index) != name_of(link.name)):
        versions = {rule.version for rule in rules if rule.is_guard(name, priority)}
        slow += [name] if versions == {4, 6} else []
        missing += [f"{name} (IPv{version})" for version in (4, 6) if version not in versions]
    if missing:
        return fail(
            check,
            f"Nothing keeps the gate shut while our table is not loaded for {', '.join(missing)}: there is neither our "
            "filter at the interface nor our routing rule.",
            "Put it back with postern config reload; look for what removes filters (tc qdisc del) and routing rules "
            "(ip rule flush, mwan3).",
        )
    if slow:
        return ok(
            check,
            f"Without our table nothing of a guest's is forwarded. For {', '.join(slow)} routing rules see to that, "
            "which slow all forwarding down; postern status says why it is not a filter at the interface.",
        )
    return ok(check, "Without our table nothing of a guest's is forwarded.")


def judge_mark_users(config: Config, rules: Sequence[Rule], foreign: Foreign | None) -> Row:
    """Others who read or write packet marks."""
    check = "marks"
    guests = {zone.interface for zone in config.zones}
    readers = [
        str(rule)
        for rule in rules
        if rule.mask
        and (not rule.interface or rule.interface in guests)
        and not any(rule.is_guard(name, config.network.rule_priority) for name in guests)
        and (rule.is_inverted or meets_our_marks(rule.mark, rule.mask))
    ]
    writers = [] if foreign is None else list(foreign.marking)
    if readers:
        return warn(
            check,
            f"Other routing rules look at marks that guests' packets carry: {_listed(readers)}. Some guests may be "
            "routed elsewhere.",
            "Give that service (mwan3, a VPN, policy routing) marks above 0x1ffff, such as mwan3's mmx_mask "
            "0x3f000000, or keep its rules off the guest interfaces.",
        )
    if writers:
        return warn(
            check,
            f"Others set packet marks: {_listed(writers)}. On guests' packets that would take their permission away.",
            "Keep that service (mwan3, QoS, a VPN) off the guest interfaces, which belong to Postern alone.",
        )
    return ok(check, "Nobody else routes by marks that are ours, or sets marks.")


def meets_our_marks(mark: int, mask: int) -> bool:
    """Whether a rule `fwmark mark/mask` is met by the mark of any guest's packet."""
    if mark & ~mask:
        return False  # it is met by nothing
    own_bits = mask & 0x1FFFF
    if mark & ~0x1FFFF:
        return False  # bits that ours never have
    if own_bits == 0:
        return True  # met by every mark without those bits: all of ours
    return any(
        candidate & mask == mark for candidate in (*range(1, LAST_CLIENT_NUMBER + 1), *range(0x10000, MARK_HELD + 1))
    )


def judge_offload(config: Config, links: Sequence[Link], foreign: Foreign | None) -> Row:
    """Flow offload carries connections past our forward chain."""
    check = "flow offload"
    if foreign is None:
        return skipped(
            check, "What other firewalls do could not be read.", "Run postern doctor as root, with nftables installed."
        )
    zones = {zone.interface for zone in config.zones}
    bridges = {link.index for link in links if link.name in zones}
    ours = zones | {link.name for link in links if link.master in bridges}
    touching = [name for name, devices in foreign.offloading.items() if ours & set(devices)]
    if touching:
        return fail(
            check,
            f"Flow offload covers guest interfaces ({_listed(touching)}): connections pass the gate uncounted and "
            "live on after a session's end.",
            "Switch it off for guests: on OpenWrt uci set firewall.@defaults[0].flow_offloading='0', also "
            "flow_offloading_hw, then uci commit firewall and service firewall restart.",
        )
    return ok(check, "No flow offload touches the guest interfaces.")


def read_foreign(listing: str, own_table: str) -> Foreign:
    """What `nft -j -t list ruleset` says of other tables; raises ValueError when that is not what it should be."""
    document = json.loads(listing)
    items = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError("nft's listing has no list nftables")
    offloading: dict[str, tuple[str, ...]] = {}
    marking: dict[str, None] = {}
    for item in items:
        for kind, body in item.items() if isinstance(item, dict) else ():
            if not isinstance(body, dict) or (body.get("family") == "inet" and body.get("table") == own_table):
                continue
            table = f"table {body.get('family')} {body.get('table')}"
            if kind == "flowtable":
                devices = body.get("dev", [])
                listed = devices if isinstance(devices, list) else [devices]
                offloading[f"{table}, flowtable {body.get('name')}"] = tuple(map(str, listed))
            elif kind == "chain" and str(body.get("name", "")).startswith("mwan3"):
                marking[f"{table} (mwan3)"] = None
            elif kind == "rule" and any(_sets_mark(part) for part in _statements(body)):
                marking[f"{table}, chain {body.get('chain')}"] = None
    return Foreign(offloading, tuple(marking))


def _statements(rule: Mapping[str, Any]) -> Iterator[Any]:
    """Statements of a rule. Any: the values of JSON."""
    found = rule.get("expr", [])
    yield from found if isinstance(found, list) else ()


def _sets_mark(statement: Any) -> bool:
    """Whether a statement writes the packet mark. Any: a value of JSON."""
    mangle = statement.get("mangle") if isinstance(statement, dict) else None
    key = mangle.get("key") if isinstance(mangle, dict) else None
    meta = key.get("meta") if isinstance(key, dict) else None
    return isinstance(meta, dict) and meta.get("key") == "mark"


def judge_sysctls(wanted: Sequence[tuple[str, str]], present: Mapping[str, str | None]) -> list[Row]:
    """Forwarding, bridge filtering and what else of /proc/sys/net is ours; what does not exist needs no setting."""
    rows = []
    forwarding = [(path, value) for path, value in wanted if path in _FORWARDING]
    for check, group, good, why in (
        (
            "forwarding",
            forwarding,
            "The kernel forwards packets.",
            "Guests have no Internet.",
        ),
        (
            "network settings",
            [pair for pair in wanted if pair not in forwarding],
            "Bridge filtering and the settings of guest interfaces are as they should be.",
            "Guests' packets may be judged twice, or guests may change our routes.",
        ),
    ):
        wrong = [
            f"net.{path.replace('/', '.')} is {present[path]}, not {value}"
            for path, value in group
            if present.get(path) not in (None, value)
        ]
        if wrong:
            remedy = (
                "Put it back with postern config reload, and take the other value out of /etc/sysctl.conf, "
                "/etc/sysctl.d or the program that sets it."
            )
            rows.append(fail(check, f"{_listed(wrong)}. {why}", remedy))
        elif group:
            rows.append(ok(check, good))
        else:
            rows.append(skipped(check, "Left to you by option forwarding '0' of section network."))
    return rows


_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def judge_table(name: str, problems: Sequence[str], lost_ago_s: float | None, times_lost: int) -> Row:
    """Our table in the kernel; `problems` are the datapath's sentences."""
    check = "packet filter"
    if problems:
        return fail(
            check,
            f"{_listed(problems)}.",
            "posternd puts the table back within a second by itself; if this stays, look at its log and at what else "
            "loads firewall rules (nft flush ruleset, fw4, firewalld), and restart posternd.",
        )
    if lost_ago_s is not None and lost_ago_s < 86400:
        return warn(
            check,
            f"The table inet {name} was removed or changed by somebody else {_ago(lost_ago_s)} ago ({times_lost} times "
            "since the start) and put back; it is in order now.",
            "Find out what does that: a firewall that is restarted, or nft flush ruleset in a script. Let it touch its "
            "own tables only (nft delete table …).",
        )
    return ok(check, f"The table inet {name} is loaded and as it should be, with every client that is online.")


def _ago(seconds: float) -> str:
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SEEN} more" if len(names) > _SEEN else ""
    return "; ".join(names[:_SEEN]) + more
