"""The nftables ruleset: a pure function from configuration to text (DESIGN section 5).

What is rendered changes only with the configuration; clients come and go as elements of the sets and maps declared
here (`elements`). The way of a guest's packet:

    base_prerouting ── by interface ──> from_<zone>   a hit in auth4/auth6 sets the client's number as mark: one lookup
                                             │ miss
                                        held_<zone>   blocked, spoofed: dropped; allowed MAC, garden: a mark of its own;
                                                      everything else is *held* and may reach this box only
    base_dstnat      held TCP 80 goes to the portal, held DNS to our resolver; port 443 is never touched
    base_forward     guest -> uplink passes when its connection's number is in `up`, uplink -> guest when in `down`;
                     these two lookups are permission and counter at once, so exactly what passes is counted
    base_input       guests reach DHCP, DNS, the portal and ping on this box, whatever local address they ask
    base_srcnat      guests hide behind the uplink's address

Marks. The whole packet mark of guest traffic is ours (nft cannot set a part of it from a map), and so is the
connection mark. 1..65534 is a client's number. Others use single bits or bytes (mwan3 0x3f00, Tailscale 0xff0000, kube
0x4000, 0x8000): on guest interfaces they do not work together with us, elsewhere we never touch a mark.
Before this table sees a guest's packet, the seal on the interface has given it a mark of 0x01000000 and more and made
it one that the kernel does not forward (`seal`); base_prerouting takes both away. Where there is no seal, a mark of 0
on a guest's packet means that this table is not loaded, and a routing rule refuses it (`base`).

Connections that were redirected before login are not searched and deleted at login: the first packet after login that
still travels on one is answered with a reset (see the input chain), and the client's next connection goes out directly.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from gateway.config import Config, Garden, Zone
from gateway.datapath.resolvers import KNOWN_DOH4, KNOWN_DOH6

LAST_CLIENT_NUMBER: Final = 0xFFFE
MARK_GARDEN: Final = 0x10000  # walled garden and configured resolvers, before login
MARK_ALLOWED: Final = 0x10001  # MACs that pass without login
MARK_HELD: Final = 0x10002  # from a guest, seen by this table, not permitted to leave
RESERVED_MARKS: Final = (MARK_GARDEN, MARK_ALLOWED)  # permanent elements of `up` and `down`
_MARK_SEALED: Final = 0x01000000  # and what tells one interface from another

# Up to so many interfaces are compared one by one: replacing the look-ups of names gained 5 % of small packets. Beyond
# that a map costs the same however many there are.
COMPARED: Final = 2
_DIRECTION: Final = {"pass_up": "from a guest to the Internet", "pass_down": "from the Internet to a guest"}

VERSION_CHAIN: Final = "loaded_"  # the name of this chain tells which ruleset is loaded

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")


@dataclass(slots=True)
class _Text:
    """Lines of a ruleset in the making."""

    lines: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.lines += ["", f"\t# ---- {text}"]

    def note(self, text: str) -> None:
        self.lines.append(f"\t# {text}")

    def set_of(
        self,
        kind: str,
        name: str,
        typeof: str,
        *,
        options: Sequence[str] = (),
        elements: Iterable[str] = (),
        why: str,
    ) -> None:
        """Declare a set or map with what it holds from the start."""
        self.lines += [f"\t{kind} {name} {{", f'\t\tcomment "{why}"', f"\t\ttypeof {typeof}"]
        self.lines += [f"\t\t{line}" for line in options]
        listed = list(elements)
        if listed:
            self.lines.append("\t\telements = {")
            self.lines += [f"\t\t\t{element}," for element in listed]
            self.lines.append("\t\t}")
        self.lines += ["\t}", ""]

    def chain(self, name: str, rules: Iterable[tuple[str, str]], *, hook: str = "") -> None:
        """Declare a chain; each rule comes with the reason for it."""
        self.lines.append(f"\tchain {name} {{")
        if hook:
            self.lines.append(f"\t\t{hook}")
        self.lines += [f'\t\t{rule} comment "{why}"' for rule, why in rules]
        self.lines += ["\t}", ""]


def render(config: Config) -> str:
    """Render the table for this configuration; raises ValueError for names that nftables could not hold.

    The text declares everything and deletes nothing, and equal configurations give equal text.
    """
    for zone in config.zones:
        if not _NAME.fullmatch(zone.name):
            raise ValueError(f"zone name {zone.name!r} is not letters, digits and underscores, 32 at most")
    marks: dict[int, str] = {}
    for zone in config.zones:
        if (other := marks.setdefault(sealed_mark(zone.interface), zone.interface)) != zone.interface:
            raise ValueError(f"the interfaces {other} and {zone.interface} have the same checksum: rename one of them")
    for interface in (*config.network.uplinks, *(zone.interface for zone in config.zones)):
        if not _INTERFACE.fullmatch(interface):
            raise ValueError(f"{interface!r} is not the name of a network interface")
    if not _NAME.fullmatch(config.network.table):
        raise ValueError(f"table name {config.network.table!r} is not letters, digits and underscores, 32 at most")

    text = _Text()
    _client_sets(text, config)
    for zone in config.zones:
        _zone_sets(text, zone, [garden for garden in config.gardens if garden.zone in ("", zone.name)])
    _doh_sets(text)
    for zone in config.zones:
        _zone_chains(text, zone, config.uam.port)
    _shared_chains(text, config)
    _base_chains(text, config)
    body = "\n".join(text.lines).rstrip()
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return (
        f"# Postern's own table; other tables of the firewall are left alone.\n"
        f"table inet {config.network.table} {{\n"
        f"{body}\n\n"
        f"\t# Never entered: its name tells the daemon whether what is loaded is what it would load.\n"
        f"\tchain {VERSION_CHAIN}{version} {{\n\t}}\n"
        f"}}\n"
    )


def version_of(text: str) -> str:
    """The name of the version chain in a rendered ruleset."""
    found = re.search(rf"chain ({VERSION_CHAIN}[0-9a-f]{{16}}) ", text)
    assert found is not None, "every rendered ruleset has a version chain"
    return found.group(1)


def sealed_mark(interface: str) -> int:
    """The mark of packets that came in through the seal on a guest interface.

    It follows from the name alone, so that neither another zone nor the order in which seals and table change can ever
    take one guest network's packets for another's.
    """
    return _MARK_SEALED | zlib.crc32(interface.encode()) & 0xFFFFFF


def client_set_size(max_sessions: int) -> int:
    """Room in `up` and `down`: a power of two, so that a small change of the limit keeps the sets."""
    return 1 << (max_sessions + len(RESERVED_MARKS) + 254).bit_length()


def _client_sets(text: _Text, config: Config) -> None:
    text.heading("Clients that are online; filled by the daemon, one element each")
    # A fixed size and no timeout select the kernel's fastest hash for four octets; the lifetime is on the auth maps,
    # and a counter never vanishes before it was read.
    options = [f"size {client_set_size(config.performance.max_sessions)}", "counter"]
    reserved = [f"{mark:#x}" for mark in RESERVED_MARKS]
    text.set_of(
        "set", "up", "ct mark", options=options, elements=reserved, why="client number: upload permitted, counted"
    )
    text.set_of(
        "set", "down", "ct mark", options=options, elements=reserved, why="client number: download permitted, counted"
    )


def _zone_sets(text: _Text, zone: Zone, gardens: Sequence[Garden]) -> None:
    name = zone.name
    text.heading(f"Zone {name}, interface {zone.interface}")
    text.set_of(
        "map",
        f"auth4_{name}",
        "ether saddr . ip saddr : meta mark",
        options=["flags timeout"],
        why="online clients and their numbers, for the time they have left",
    )
    if zone.ipv6:
        text.set_of(
            "map",
            f"auth6_{name}",
            "ether saddr : meta mark",
            options=["flags timeout"],
            why="the same clients by MAC alone: phones change their IPv6 addresses",
        )
    text.set_of(
        "set",
        f"bind4_{name}",
        "ether saddr . ip saddr",
        why="addresses that DHCP gave to whom; other pairs are spoofed",
    )
    text.set_of(
        "set",
        f"allow_{name}",
        "ether saddr",
        elements=(str(mac) for mac in sorted(set(zone.allow_macs))),
        why="clients that pass without login",
    )
    text.set_of(
        "set",
        f"block_{name}",
        "ether saddr",
        elements=(str(mac) for mac in sorted(set(zone.block_macs))),
        why="clients that get nothing",
    )
    resolvers = [IPv4Network(address) for address in zone.dns_servers]
    ported, whole = _garden_elements(gardens, resolvers, version=4)
    typeof = "meta l4proto . th dport"
    text.set_of(
        "set",
        f"garden4_{name}",
        f"ip daddr . {typeof}",
        options=["flags interval"],
        elements=ported,
        why="open before login: destination, protocol, port",
    )
    text.set_of(
        "set",
        f"garden4_any_{name}",
        "ip daddr",
        options=["flags interval"],
        elements=whole,
        why="open before login with all protocols and ports",
    )
    if zone.ipv6:
        ported, whole = _garden_elements(gardens, [], version=6)
        text.set_of(
            "set",
            f"garden6_{name}",
            f"ip6 daddr . {typeof}",
            options=["flags interval"],
            elements=ported,
            why="open before login: destination, protocol, port",
        )
        text.set_of(
            "set",
            f"garden6_any_{name}",
            "ip6 daddr",
            options=["flags interval"],
            elements=whole,
            why="open before login with all protocols and ports",
        )


def _garden_elements(
    gardens: Sequence[Garden], resolvers: Sequence[IPv4Network], *, version: int
) -> tuple[list[str], list[str]]:
    """Elements with protocol and port, and those without; overlapping prefixes are merged, as interval sets demand."""
    open_to: dict[tuple[str, int], list[IPv4Network | IPv6Network]] = {}
    whole: list[IPv4Network | IPv6Network] = []
    for garden in gardens:
        networks = [network for network in garden.networks if network.version == version]
        if garden.protocol == "any":
            whole += networks
            continue
        for port in garden.ports:
            open_to.setdefault((garden.protocol, port), []).extend(networks)
    for protocol in ("tcp", "udp") if resolvers else ():
        open_to.setdefault((protocol, 53), []).extend(resolvers)
    ported = [
        f"{network} . {protocol} . {port}"
        for (protocol, port), networks in sorted(open_to.items())
        for network in _collapse(networks)
    ]
    return ported, [str(network) for network in _collapse(whole)]


def _collapse(networks: Iterable[IPv4Network | IPv6Network]) -> list[IPv4Network | IPv6Network]:
    version4 = [network for network in networks if isinstance(network, IPv4Network)]
    version6 = [network for network in networks if isinstance(network, IPv6Network)]
    return [*collapse_addresses(version4), *collapse_addresses(version6)]


def _doh_sets(text: _Text) -> None:
    text.heading(
        "Encrypted resolvers, closed before login even inside a garden: their clients would not see the portal"
    )
    text.set_of("set", "doh4", "ip daddr", elements=KNOWN_DOH4, why="well-known DNS over HTTPS and QUIC")
    text.set_of("set", "doh6", "ip6 daddr", elements=KNOWN_DOH6, why="well-known DNS over HTTPS and QUIC")


def _zone_chains(text: _Text, zone: Zone, portal_port: int) -> None:
    name = zone.name
    text.heading(f"Zone {name}: who is this packet from")
    from_rules = [
        (
            # With the family said first, nft does not load the frame's type from the packet, which takes longer.
            f"meta nfproto ipv4 meta mark set ether saddr . ip saddr map @auth4_{name} ct mark set meta mark accept",
            "online: most packets end here",
        )
    ]
    if zone.ipv6:
        from_rules.append(
            (
                f"meta nfproto ipv6 meta mark set ether saddr map @auth6_{name} ct mark set meta mark accept",
                "online, IPv6",
            )
        )
    from_rules.append((f"goto held_{name}", "not online"))
    text.chain(f"from_{name}", from_rules)

    pass_on = "meta mark set {mark:#x} ct mark set {mark:#x} accept"
    to_garden = pass_on.format(mark=MARK_GARDEN)
    to_allowed = pass_on.format(mark=MARK_ALLOWED)
    held = [
        (
            f'iifname != "{zone.interface}" drop',
            "the interface was renamed: no rule below would know where this is from",
        ),
        (f"ether saddr @block_{name} drop", "blocked by the operator: no address, no portal, nothing"),
        (
            f"meta mark set {MARK_HELD:#x}",
            "held: may reach this box, and the routing rule knows that the table is there",
        ),
        ("udp sport 68 udp dport 67 accept", "DHCP comes before any address"),
        (f"meta nfproto ipv4 ether saddr . ip saddr != @bind4_{name} drop", "an address that this MAC was not given"),
        (f"meta nfproto ipv4 ether saddr @allow_{name} {to_allowed}", "passes without login"),
        ("meta l4proto { tcp, udp } th dport 853 accept", "stays held: DNS over TLS would hide the portal"),
        ("ip daddr @doh4 meta l4proto { tcp, udp } th dport 443 accept", "stays held: DNS over HTTPS likewise"),
        (f"ip daddr . meta l4proto . th dport @garden4_{name} {to_garden}", "walled garden"),
        (f"ip daddr @garden4_any_{name} {to_garden}", "walled garden, all ports"),
    ]
    if zone.ipv6:
        held += [
            (f"meta nfproto ipv6 ether saddr @allow_{name} {to_allowed}", "passes without login"),
            ("ip6 daddr @doh6 meta l4proto { tcp, udp } th dport 443 accept", "stays held"),
            (f"ip6 daddr . meta l4proto . th dport @garden6_{name} {to_garden}", "walled garden"),
            (f"ip6 daddr @garden6_any_{name} {to_garden}", "walled garden, all ports"),
        ]
    text.chain(f"held_{name}", held)

    own = zone.address.ip
    text.chain(
        f"input_{name}",
        [
            (
                f"meta mark != {MARK_HELD:#x} ct status dnat tcp dport {portal_port} ct original ip daddr != {own} "
                "reject with tcp reset",
                "redirected before login, still used after it: make the client connect anew",
            ),
            (
                f"meta mark != {MARK_HELD:#x} meta nfproto ipv6 ct status dnat tcp dport {portal_port} "
                "reject with tcp reset",
                "the same by IPv6",
            ),
            ("ct direction reply ct state established,related accept", "answers to what this box asked"),
            ("udp sport 68 udp dport 67 accept", "DHCP"),
            ("meta pkttype { broadcast, multicast } meta nfproto ipv4 drop", "chatter that expects no answer"),
            (
                "icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept",
                "ping, errors",
            ),
            (
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept",
                "neighbour discovery",
            ),
            (
                "icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, "
                "parameter-problem } accept",
                "ping, errors",
            ),
            ("meta pkttype { broadcast, multicast } drop", "chatter by IPv6, router advertisements of guests too"),
            (f"ip daddr {own} meta l4proto {{ tcp, udp }} th dport 53 accept", "our resolver"),
            (f"ip daddr {own} tcp dport {portal_port} accept", "the portal"),
            ("meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 accept", "our resolver"),
            (f"meta nfproto ipv6 tcp dport {portal_port} accept", "the portal"),
            ("goto refuse", "every other listener of this box, on every address of it"),
        ],
    )


def _shared_chains(text: _Text, config: Config) -> None:
    text.heading("For all zones: what passes, and how the rest is told")
    text.chain(
        "pass_up",
        [
            (
                f"meta mark != {MARK_HELD:#x} ct mark @up accept",
                "the sender is online now, and this is permission and counter in one; no connection, no mark",
            ),
            (f"meta mark != {MARK_HELD:#x} ct state invalid drop", "would leave without address translation"),
            ("goto refuse", "not online, or logged out"),
        ],
    )
    text.chain(
        "pass_down",
        [
            ("ct mark @down accept", "an answer to a client that is online, an allowed MAC or the garden"),
            ("goto refuse_from_outside", "nobody asked for it, or who asked is logged out"),
        ],
    )
    text.chain(
        "refuse",
        [
            ("meta l4proto tcp reject with tcp reset", "told at once: a silent drop costs a phone ten seconds"),
            ("reject with icmpx type admin-prohibited", "likewise for UDP and the rest"),
        ],
    )
    text.chain(
        "refuse_from_outside",
        [
            ("ct state established meta l4proto tcp reject with tcp reset", "ends the far side of a closed session"),
            ("drop", "the Internet learns nothing about guests"),
        ],
    )


def _base_chains(text: _Text, config: Config) -> None:
    guests = [zone.interface for zone in config.zones]
    uplinks = list(config.network.uplinks)
    text.heading("Hooks: everything that does not come from or go to a guest passes untouched")
    sealed = _unsealing(text, config.zones)
    text.chain(
        "base_prerouting",
        sealed + _by_interface("from_", config.zones, "each zone by its own maps"),
        hook="type filter hook prerouting priority mangle; policy accept;",
    )
    text.chain(
        "base_dstnat",
        [
            (
                f"meta mark {MARK_HELD:#x} tcp dport 80 redirect to :{config.uam.port}",
                "plain web pages show the portal; 443 never, a wrong certificate is no login page",
            ),
            (f"meta mark {MARK_HELD:#x} meta l4proto {{ tcp, udp }} th dport 53 redirect", "no tunnel through DNS"),
            *(
                (
                    f'iifname "{zone.interface}" ip daddr {zone.address.ip} tcp dport 80 '
                    f"redirect to :{config.uam.port}",
                    "the portal's own names need no port, also after login",
                )
                for zone in config.zones
            ),
        ],
        hook="type nat hook prerouting priority dstnat; policy accept;",
    )
    ways: list[tuple[str, str]] = []
    pairs = [(guest, uplink, "pass_up") for guest in guests for uplink in uplinks]
    pairs += [(uplink, guest, "pass_down") for guest in guests for uplink in uplinks]
    if len(pairs) <= 2 * COMPARED:
        ways += [(f'iifname "{came}" oifname "{goes}" goto {chain}', _DIRECTION[chain]) for came, goes, chain in pairs]
    else:
        listed = ", ".join(f'"{came}" . "{goes}" : goto {chain}' for came, goes, chain in pairs)
        ways.append((f"iifname . oifname vmap {{ {listed} }}", "between guests and the Internet"))
    if guests:
        ways += [
            (f"iifname {_names(guests)} goto refuse", "guests reach no other network: not ours, not each other's"),
            (f"oifname {_names(guests)} goto refuse_from_outside", "and no other network reaches them"),
        ]
    text.chain("base_forward", ways, hook="type filter hook forward priority filter; policy accept;")
    text.chain(
        "base_input",
        _by_interface("input_", config.zones, "what this box offers in each zone"),
        hook="type filter hook input priority filter; policy accept;",
    )
    hidden = (
        [
            (
                f"oifname {_names(uplinks)} ip saddr {{ {', '.join(_prefixes(config.zones))} }} masquerade",
                "guests hide behind the uplink's address",
            )
        ]
        if config.network.masquerade and guests and uplinks
        else []
    )
    text.chain("base_srcnat", hidden, hook="type nat hook postrouting priority srcnat; policy accept;")


def _unsealing(text: _Text, zones: Sequence[Zone]) -> list[tuple[str, str]]:
    """Rules that give sealed packets back what they were, which is what only this table does.

    Seals leave alone what was sent to many, so these rules do not see it, and the kernel forwards none of it.
    """
    why = "meant for this box: the seal is off for this packet"
    if len(zones) <= COMPARED:
        return [
            (f"meta mark {sealed_mark(zone.interface):#x} meta pkttype set host goto from_{zone.name}", why)
            for zone in zones
        ]
    for zone in zones:
        text.chain(f"sealed_{zone.name}", [(f"meta pkttype set host goto from_{zone.name}", why)])
    ways = ", ".join(f"{sealed_mark(zone.interface):#x} : goto sealed_{zone.name}" for zone in zones)
    return [(f"meta mark vmap {{ {ways} }}", "by the seals on guest interfaces")]


def _by_interface(prefix: str, zones: Sequence[Zone], why: str) -> list[tuple[str, str]]:
    if len(zones) <= COMPARED:
        return [(f'iifname "{zone.interface}" goto {prefix}{zone.name}', why) for zone in zones]
    ways = ", ".join(f'"{zone.interface}" : goto {prefix}{zone.name}' for zone in zones)
    return [(f"iifname vmap {{ {ways} }}", why)]


def _names(interfaces: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in interfaces) + " }"


def _prefixes(zones: Sequence[Zone]) -> list[str]:
    return [str(network) for network in collapse_addresses(zone.address.network for zone in zones)]
