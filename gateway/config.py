"""The configuration: one tree of frozen dataclasses, every default, unit and range written once, here.

`config_loader.load` reads the UCI file into this tree. Nothing else in the project reads the file, the environment or
argv for settings; functions take the smallest subtree that they need. An option's description, unit and range live in
its field's metadata, from which the loader checks it, and the commented example and `config show` are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from typing import Any, ClassVar, Final, NamedTuple

from gateway.addresses import Ipv4Range, MacAddress
from gateway.session.model import LoginMethod
from gateway.values import value_class

SCHEMA_VERSION: Final = 1


class Endpoint(NamedTuple):
    """An IP address and a port."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


class Secret(str):
    """A shared secret: a string that never prints itself."""

    __slots__ = ()
    hidden_in_logs: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "Secret(…)"

    def reveal(self) -> str:
        """The secret itself, for the one place that needs it."""
        return str.__str__(self)

    def __format__(self, spec: str) -> str:
        return "…"


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    name: str = "",
    aliases: tuple[str, ...] = (),
    minimum_length: int = 0,
    required: bool = False,
    example: str = "",
) -> Any:
    """Describe one option: its default, what it does, its unit and what is accepted.

    `name` is the UCI name where it differs from the field's; `aliases` are the predecessor's names. Any, because
    dataclasses.field itself returns whatever its caller declares.
    """
    metadata = {
        "doc": doc,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": choices,
        "name": name,
        "aliases": aliases,
        "minimum_length": minimum_length,
        "required": required,
        "example": example,
    }
    if isinstance(default, Callable):  # type: ignore[arg-type]
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@value_class
class General:
    """`config postern`: what concerns the whole gateway."""

    enabled: bool = option(True, "Start the gateway; 0 makes posternd exit at once without an error.")
    schema: int = option(SCHEMA_VERSION, "Version of this file's format.", low=1)
    nas_identifier: str = option(
        "postern", "NAS-Identifier sent to RADIUS servers.", aliases=("radiusnasid",), minimum_length=1
    )
    state_dir: str = option(
        "/var/lib/postern", "Where sessions, leases, accounts and queued accounting are kept.", minimum_length=1
    )
    run_dir: str = option("/run/postern", "Where the control socket is made.", minimum_length=1)
    group: str = option("postern", "Group that may look through the control socket; the socket belongs to it.")
    admin_group: str = option("postern-admin", "Group that may change things through the control socket.")
    portal_user: str = option("postern-portal", "User of the guests' portal, which may call the portal's methods only.")
    admin_user: str = option(
        "postern-admin-web",
        "User of the administration's web interface, which calls on behalf of who has logged in there.",
    )
    admin_web_group: str = option("postern-admin-web", "Group of the same meaning.")
    event_loop: str = option(
        "auto", "Event loop; auto takes uvloop where it is installed.", choices=("auto", "uvloop", "asyncio")
    )
    log_level: str = option("info", "How much is logged.", choices=("debug", "info", "warning", "error"))
    log_format: str = option("text", "Form of a log line.", choices=("text", "json"))
    timeline_events: int = option(20000, "Client events kept in memory for `postern events`.", low=100, high=1_000_000)


@value_class
class Network:
    """`config network`: the way to the Internet and what of the system's networking is ours to set."""

    uplinks: tuple[str, ...] = option(
        (),
        "Interfaces that lead to the Internet; guests reach nothing else.",
        name="uplink",
        required=True,
        example="eth0",
    )
    masquerade: bool = option(True, "Hide guests behind the uplink's address (NAT).")
    forwarding: bool = option(True, "Switch on the kernel's forwarding sysctls.")
    set_addresses: bool = option(True, "Put each zone's address on its interface.")
    rule_priority: int = option(
        100,
        "Priority of the routing rules that keep the gate shut without our table where a filter cannot.",
        low=1,
        high=32000,
    )
    table: str = option("postern", "Name of our nftables table.")


@value_class
class Performance:
    """`config performance`: bounds of the whole gateway (names of the predecessor)."""

    max_sessions: int = option(10000, "Clients that may be online at once.", low=1, high=60000)
    session_timeout: int = option(14400, "Session time when nothing else says one; 0 for none.", unit="s", low=0)
    idle_timeout: int = option(900, "Idle time when nothing else says one; 0 for none.", unit="s", low=0)
    dhcp_workers: int = option(4, "DHCP requests handled at once (a bound, not threads).", low=1, high=64)
    radius_workers: int = option(8, "Sockets per RADIUS server and purpose at most.", low=1, high=64)
    session_gc_interval: int = option(300, "How often ended leases and retired numbers are swept.", unit="s", low=10)
    stats_flush_interval: int = option(60, "How often all counters are read.", unit="s", low=10)


@value_class
class Sessions:
    """`config sessions`: persistence."""

    persistence_enabled: bool = option(True, "Keep sessions over restarts and power cuts.")
    persistence_file: str = option("sessions.msgpack", "Journal's file name in the state directory.", minimum_length=1)
    save_interval: int = option(300, "How often counters of online sessions are saved.", unit="s", low=5)
    resume_max_age: int = option(
        86400, "Sessions older than this at start are ended instead of resumed.", unit="s", low=60
    )


@value_class
class Dhcp:
    """`config dhcp`: bounds of the DHCP server, for all zones."""

    workers: int = option(8, "Requests handled at once (a bound, not threads).", low=1, high=64)
    buffer_size: int = option(4096, "Largest DHCP message read.", unit="octets", low=576, high=65535)
    read_timeout: int = option(5, "How long an offer is kept for its client.", unit="s", low=1, high=120)
    probe: bool = option(True, "Ask by ARP whether a new address is in use before it is offered.")
    probe_timeout: float = option(0.3, "How long to wait for an answer to that question.", unit="s", low=0.05, high=3)
    decline_quarantine: int = option(
        600, "How long an address that a client declined is not offered.", unit="s", low=10
    )
    client_rate: float = option(4.0, "Messages per second from one client.", low=0.1)
    client_burst: int = option(12, "Messages at once from one client.", low=1)
    new_client_rate: float = option(500.0, "New clients per second and zone; more is a starvation attack.", low=0.1)
    new_client_burst: int = option(1000, "New clients at once and zone.", low=1)


@value_class
class Dns:
    """`config dns`: the resolver for guests."""

    upstreams: tuple[Endpoint, ...] = option(
        (), "Resolvers that are asked; empty: those of etc/resolv.conf.", name="upstream", example="9.9.9.9"
    )
    portal_name: str = option("login.postern.lan", "The portal's own name, answered with the zone's address.")
    status_name: str = option("status.postern.lan", "A name for guests to come back to, answered likewise.")
    client_rate: float = option(20.0, "Queries per second from one client.", low=1)
    client_burst: int = option(100, "Queries at once from one client.", low=1)
    timeout: float = option(4.0, "How long an upstream resolver is waited for.", unit="s", low=0.2, high=30)
    max_pending: int = option(4096, "Queries under way at once.", low=16)
    local_ttl: int = option(30, "Life of our own answers.", unit="s", low=1)


@value_class
class Uam:
    """`config uam`: the portal's HTTP server (names of the predecessor)."""

    port: int = option(3990, "Port of the portal in every zone.", low=1, high=65535)
    rate_limit_enabled: bool = option(True, "Limit HTTP requests per client address.")
    rate_limit: float = option(100.0, "Requests per second from one address.", low=0.1)
    rate_limit_burst: int = option(200, "Requests at once from one address.", low=1)
    rate_limit_cleanup_interval: int = option(600, "How often forgotten addresses are swept.", unit="s", low=10)
    read_timeout: int = option(10, "Longest time to read one request.", unit="s", low=1)
    write_timeout: int = option(10, "Longest time to write one answer.", unit="s", low=1)
    idle_timeout: int = option(120, "Longest time a kept connection may be silent.", unit="s", low=1)
    login_timeout: int = option(20, "Longest time a login may take.", unit="s", low=1, high=120)
    login_attempts: int = option(5, "Wrong passwords from one client before it must wait.", low=1)
    login_backoff: int = option(
        10, "First wait after that; doubled each time up to ten minutes.", unit="s", low=1, high=600
    )
    max_connections: int = option(2048, "Connections at once.", low=16)
    max_connections_per_client: int = option(32, "Connections at once from one address.", low=2)


@value_class
class RadiusServer:
    """`config radius_server`: one RADIUS server."""

    name: str = ""
    address: IPv4Address | IPv6Address = option(
        IPv4Address("0.0.0.0"), "The server's address.", required=True, example="192.0.2.10"
    )
    secret: Secret = option(
        Secret(""), "Secret shared with the server.", minimum_length=8, required=True, example="correct-horse-battery"
    )
    auth_port: int = option(1812, "Port for authentication; 0: not asked.", low=0, high=65535)
    acct_port: int = option(1813, "Port for accounting; 0: not told.", low=0, high=65535)
    priority: int = option(10, "Servers with a lower number are asked first.", low=0, high=1000)
    require_message_authenticator: str = option(
        "auto",
        "Demand Message-Authenticator in answers: require, off, or auto (from the first answer that has it).",
        choices=("require", "auto", "off"),
    )
    status_server: bool = option(True, "Ask a server that stopped answering with Status-Server (RFC 5997).")
    source_address: IPv4Address | IPv6Address | None = option(
        None, "Address that requests come from; empty: the kernel chooses."
    )


@value_class
class Radius:
    """`config radius`: what holds for all RADIUS servers (names of the predecessor)."""

    servers: tuple[RadiusServer, ...] = ()
    timeout: float = option(3.0, "Wait for one answer.", unit="s", low=0.1, high=30)
    retries: int = option(2, "Repetitions of an Access-Request per server.", low=0, high=10)
    circuit_breaker_max_requests: int = option(100, "Requests let through while a server is tried again.", low=1)
    circuit_breaker_timeout: float = option(30.0, "How long a server that failed is left alone.", unit="s", low=1)
    circuit_breaker_failure_threshold: int = option(5, "Failures in a row after which a server is left alone.", low=1)
    protocol: str = option("pap", "How clear passwords travel to the server.", choices=("pap", "chap"))
    nas_ip: IPv4Address | IPv6Address | None = option(
        None, "NAS-IP-Address; empty: the source address of requests.", aliases=("nasip",)
    )
    nas_port_type: int = option(
        19, "NAS-Port-Type: 19 Wi-Fi, 15 Ethernet.", aliases=("radiusnasporttype",), choices=("19", "15")
    )
    service_type: int = option(1, "Service-Type of logins: 1 Login, 2 Framed.", choices=("1", "2"))
    called_station_ssid: bool = option(True, "Add the zone's SSID to Called-Station-Id.")
    interim_interval: int = option(
        300,
        "Seconds between interim records when the server names none; 0 for none.",
        unit="s",
        low=0,
        aliases=("definteriminterval",),
    )
    accounting_view: str = option(
        "nas", "Whose view octets are counted from: nas (RFC 2866) or client.", choices=("nas", "client")
    )
    accounting_queue: int = option(10000, "Accounting records kept while no server answers.", low=100, high=1_000_000)
    accounting_interim: bool = option(True, "Send interim records; 0: Start and Stop only.")
    quota_cause: int = option(
        5, "Acct-Terminate-Cause when a quota is used up: 5 Session-Timeout, 10 NAS-Request.", choices=("5", "10")
    )
    max_in_flight: int = option(4096, "Requests under way at once, all servers.", low=16)
    coa_enabled: bool = option(True, "Accept Disconnect-Request and CoA-Request (RFC 5176).")
    coa_port: int = option(3799, "UDP port for them.", low=1, high=65535, aliases=("coaport",))
    coa_clients: tuple[IPv4Network | IPv6Network, ...] = option(
        (), "Where they may come from; empty: the RADIUS servers.", name="coa_client"
    )
    coa_secret: Secret = option(
        Secret(""), "Their secret; empty: that of the RADIUS server with the sender's address.", minimum_length=8
    )
    coa_require_message_authenticator: bool = option(False, "Demand Message-Authenticator in them.")
    coa_require_event_timestamp: bool = option(False, "Demand Event-Timestamp in them.")
    coa_window: int = option(300, "How far Event-Timestamp may be from our clock.", unit="s", low=10)


@value_class
class GardenRule:
    """One destination that guests reach before login: a prefix, and ports (empty: all of the protocol)."""

    network: IPv4Network | IPv6Network
    protocol: str = "tcp"
    ports: tuple[int, ...] = (80, 443)


@value_class
class Garden:
    """`config garden`: destinations open before login, for one zone or (zone empty) for all."""

    name: str = ""
    zone: str = option("", "The zone it belongs to; empty: every zone.")
    networks: tuple[IPv4Network | IPv6Network, ...] = option(
        (), "Prefixes that are open.", name="network", required=True, example="203.0.113.0/24"
    )
    protocol: str = option(
        "tcp", "What is open: tcp, udp, or any (all protocols and ports).", choices=("tcp", "udp", "any")
    )
    ports: tuple[int, ...] = option((80, 443), "Ports that are open; no meaning with protocol any.", name="port")


@value_class
class Reservation:
    """`config reservation`: an address kept for one client."""

    name: str = ""
    zone: str = option("", "The zone it holds in.", required=True, example="guest")
    mac: MacAddress = option(MacAddress(bytes(6)), "The client's MAC.", required=True, example="02:00:5e:10:00:2a")
    address: IPv4Address = option(
        IPv4Address("0.0.0.0"), "Its address, within the zone's prefix.", required=True, example="10.41.0.20"
    )
    hostname: str = option("", "Host name told to the client.")


@value_class
class Zone:
    """`config zone`: one guest network with its prefix, portal, policy and pool."""

    name: str = ""
    interface: str = option("", "Bridge, VLAN or Wi-Fi interface of the guests.", required=True, example="br-guest")
    address: IPv4Interface = option(IPv4Interface("10.41.0.1/24"), "The gateway's address and prefix in this zone.")
    pool: Ipv4Range | None = option(
        None,
        "Addresses given out; empty: the whole prefix after the gateway's address.",
        example="10.41.0.10-10.41.0.250",
    )
    lease_time: int = option(3600, "Life of a lease.", unit="s", low=120, high=604800)
    domain: str = option("postern.lan", "Domain name told to clients.")
    dns_servers: tuple[IPv4Address, ...] = option(
        (), "Resolvers told to clients and open before login; empty: ours.", name="dns"
    )
    ntp_servers: tuple[IPv4Address, ...] = option((), "NTP servers told to clients.", name="ntp")
    relays: tuple[IPv4Address, ...] = option(
        (),
        "DHCP relays (giaddr) that may ask for clients, on trust; never given out. Empty: only clients themselves.",
        name="relay",
        example="10.41.0.5",
    )
    methods: tuple[LoginMethod, ...] = option(
        (LoginMethod.PASSWORD,), "Ways to log in, in the order shown: click, password, voucher.", name="method"
    )
    auth: tuple[str, ...] = option(
        ("local", "radius"), "Who is asked about passwords, in this order: local, radius.", choices=("local", "radius")
    )
    isolate: bool = option(True, "Keep guests from reaching each other.")
    ipv6: bool = option(True, "Let IPv6 of authenticated clients through.")
    ssid: str = option("", "Network name, for RADIUS and pages.")
    title: str = option("Welcome", "Heading of the login page.")
    terms: str = option("", "Terms of use shown with the login; guests must accept them for click-through.")
    session_timeout: int | None = option(
        None, "Session time of this zone when the login names none; 0 for none.", unit="s", low=0
    )
    idle_timeout: int | None = option(None, "Idle time likewise; 0 for none.", unit="s", low=0)
    quota_total: int | None = option(
        None, "Octets up and down together when the login names none.", unit="octets", low=1
    )
    rate_up: int | None = option(None, "Upload rate when the login names none.", unit="bit/s", low=8000)
    rate_down: int | None = option(None, "Download rate likewise.", unit="bit/s", low=8000)
    remember: int = option(
        0,
        "How long a device comes back without the page after a login there; 0: never. It is known by its MAC address; "
        "RADIUS is not asked again.",
        unit="h",
        low=0,
        high=8760,
    )
    sessions_per_user: int = option(0, "Devices of one user that may be online at once; 0 for no limit.", low=0)
    link_rate: int = option(
        1_000_000_000, "Fastest a guest can be; decides how often quotas are looked at.", unit="bit/s", low=1_000_000
    )
    allow_macs: tuple[MacAddress, ...] = option((), "Clients that pass without login.", name="allow_mac")
    block_macs: tuple[MacAddress, ...] = option((), "Clients that get nothing.", name="block_mac")
    redirect_url: str = option("", "Page offered after login; empty: the one the guest asked for.")


@value_class
class Accounts:
    """`config accounts`: the embedded users."""

    database: str = option("accounts.sqlite", "File of users in the state directory.", minimum_length=1)
    hash_time: float = option(0.1, "Time that hashing one password may take on this box.", unit="s", low=0.01, high=2)
    hash_queue: int = option(64, "Passwords waiting to be checked at most.", low=1, high=10000)


@value_class
class Admin:
    """`config admin`: administrators and their web interface."""

    enabled: bool = option(True, "Serve the administration's pages.")
    port: int = option(8443, "Port of the administration's pages (HTTPS).", low=1, high=65535)
    interfaces: tuple[str, ...] = option(
        ("lo",),
        "Interfaces that the pages are served on; never those of guests. lo is this machine itself.",
        name="interface",
    )
    certificate: str = option(
        "",
        "File with a certificate and its chain (PEM) that postern-admin-web may read; empty: one made on this device.",
    )
    certificate_key: str = option("", "File with the key of that certificate (PEM).")
    session_idle: int = option(1800, "A login is over after this long without a request.", unit="s", low=60, high=86400)
    session_lifetime: int = option(
        43200, "A login is over after this long in any case.", unit="s", low=300, high=604800
    )
    login_attempts: int = option(5, "Wrong passwords from one place before it must wait.", low=1, high=100)
    login_backoff: int = option(
        10, "First wait after that; doubled each time up to ten minutes.", unit="s", low=1, high=600
    )
    audit_entries: int = option(5000, "Entries kept of who changed what.", low=100, high=100_000)
    confirm_time: int = option(
        60,
        "A change that could cut you off is taken back unless confirmed within this time.",
        unit="s",
        low=10,
        high=600,
    )
    config_history: int = option(30, "Past configurations kept.", low=1, high=200)


@value_class
class Metrics:
    """`config metrics`: Prometheus."""

    enabled: bool = option(True, "Serve metrics.")
    listen: Endpoint = option(Endpoint(IPv4Address("127.0.0.1"), 2112), "Where they are served, at /metrics.")


@value_class
class Config:
    """The whole tree."""

    general: General = General()
    network: Network = Network()
    performance: Performance = Performance()
    sessions: Sessions = Sessions()
    dhcp: Dhcp = Dhcp()
    dns: Dns = Dns()
    uam: Uam = Uam()
    radius: Radius = Radius()
    accounts: Accounts = Accounts()
    admin: Admin = Admin()
    metrics: Metrics = Metrics()
    zones: tuple[Zone, ...] = ()
    gardens: tuple[Garden, ...] = ()
    reservations: tuple[Reservation, ...] = ()
