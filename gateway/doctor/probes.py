"""Questions over the network, each bounded in time: our resolver and others, the portal, DHCP, RADIUS, the admin pages.

Blocking, for threads. Several answers are waited for at once where there may be many; what does not come in time is
told as such, and only what makes a question impossible raises OSError.
"""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from gateway.addresses import MacAddress
from gateway.config import Config, Endpoint, RadiusServer, Zone
from gateway.dhcp.frames import ETH_P_IP, KernelFilter
from gateway.dhcp.v4_codec import DecodeError as DhcpDecodeError
from gateway.dns.message import DecodeError as DnsDecodeError
from gateway.doctor import dhcp_servers
from gateway.doctor.certificate import Served, read_validity
from gateway.doctor.dhcp_servers import OFFER_FILTER, Offer, read_offer, write_discover
from gateway.doctor.login_pages import PROBES, Answer, Probe
from gateway.doctor.names import ASKED_UPSTREAM, Reply, names_to_ask, read_reply, write_query
from gateway.doctor.radius_servers import Asked, Outcome

DNS_WAIT_S: Final = 2.5
DNS_REPEAT_S: Final = 1.0
PORTAL_WAIT_S: Final = 1.0
PORTAL_LIMIT_S: Final = 3.0  # for all probes of all zones
OFFER_WAIT_S: Final = 4.0  # dnsmasq, in most home routers, pings an address for three seconds before it offers it
RADIUS_WAIT_S: Final = 2.5
RADIUS_REPEAT_S: Final = 1.0
TLS_WAIT_S: Final = 2.0
NFT_WAIT_S: Final = 3.0
_DNS_PORT: Final = 53
_MOST_BYTES: Final = 65536
_SO_ATTACH_FILTER: Final = 26
_MAX_OFFERS: Final = 64
# A wrong answer is no end: whoever forges one must not be able to hide the right one.
_SETTLED: Final = (Outcome.SIGNED, Outcome.UNSIGNED, Outcome.REFUSED)


# -- DNS --------------------------------------------------------------------------------------------------------------


def ask_our_resolver(config: Config, zone: Zone) -> dict[str, Reply | None]:
    """What our own resolver says in a zone, asked from the zone's own address."""
    names = names_to_ask(config)
    replies: dict[str, Reply | None] = dict.fromkeys(names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((str(zone.address.ip), 0))
        asking.connect((str(zone.address.ip), _DNS_PORT))
        first = secrets.randbelow(60000)
        ids = {first + number: name for number, name in enumerate(names)}
        begun = time.monotonic()

        def send() -> None:
            for query_id, name in ids.items():
                if replies[name] is None:
                    asking.send(write_query(name, query_id))

        def read() -> bool:
            try:
                query_id, reply = read_reply(asking.recv(_MOST_BYTES))
            except DnsDecodeError:
                return False  # not an answer: waited on
            if (name := ids.get(query_id)) is not None:
                replies[name] = Reply(reply.code, reply.addresses, time.monotonic() - begun)
            return None not in replies.values()

        try:
            _converse([asking], DNS_WAIT_S, DNS_REPEAT_S, send, lambda _: read())
        except ConnectionRefusedError:
            pass  # nobody listens there: no reply is the answer
    return replies


def ask_resolvers(endpoints: Iterable[Endpoint]) -> dict[Endpoint, Reply | None]:
    """What other resolvers say to the question that phones ask first."""
    replies: dict[Endpoint, Reply | None] = dict.fromkeys(endpoints)
    sockets: dict[socket.socket, Endpoint] = {}
    query_id = secrets.randbelow(65536)
    try:
        for endpoint in replies:
            family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
            asking = socket.socket(family, socket.SOCK_DGRAM)
            try:
                asking.connect((str(endpoint.address), endpoint.port))
            except OSError:
                asking.close()  # no way there: no reply
                continue
            sockets[asking] = endpoint
        begun = time.monotonic()

        def send() -> None:
            for asking, endpoint in sockets.items():
                if replies[endpoint] is None:
                    _send(asking, write_query(ASKED_UPSTREAM, query_id))

        def read(asking: socket.socket) -> bool:
            try:
                found, reply = read_reply(asking.recv(_MOST_BYTES))
            except (DnsDecodeError, ConnectionRefusedError):
                return False
            if found == query_id:
                replies[sockets[asking]] = Reply(reply.code, reply.addresses, time.monotonic() - begun)
            return all(replies[endpoint] is not None for endpoint in sockets.values())

        _converse(list(sockets), DNS_WAIT_S, DNS_REPEAT_S, send, read)
    finally:
        for asking in sockets:
            asking.close()
    return replies


def _send(asking: socket.socket, data: bytes) -> None:
    """Send; what the network refused before is reported at the next call and says nothing about this one."""
    try:
        asking.send(data)
    except OSError:
        return


def _converse(
    sockets: Sequence[socket.socket],
    wait_s: float,
    repeat_s: float,
    send: Callable[[], None],
    read: Callable[[socket.socket], bool],
) -> None:
    """Send, and read until `read` says that all is there or the time is over; repeat the sending once in a while."""
    end = time.monotonic() + wait_s
    next_send = 0.0
    while sockets and (now := time.monotonic()) < end:
        if now >= next_send:
            send()
            next_send = now + repeat_s
        ready, _, _ = select.select(sockets, [], [], max(0.0, min(end, next_send) - now))
        for each in ready:
            if read(each):
                return


# -- the portal -------------------------------------------------------------------------------------------------------


def ask_portal(config: Config) -> dict[str, dict[Probe, Answer]]:
    """The portal's answer to each system's probe, in each zone."""
    end = time.monotonic() + PORTAL_LIMIT_S
    found: dict[str, dict[Probe, Answer]] = {}
    for zone in config.zones:
        answers = found[zone.name] = {}
        silent = False
        for probe in PROBES:
            if silent or time.monotonic() > end:
                continue  # one that hangs is not waited for eighteen times
            answers[probe] = answer = _ask_page(zone, config.uam.port, probe)
            silent = not answer.status
    return found


def _ask_page(zone: Zone, port: int, probe: Probe) -> Answer:
    host = str(zone.address.ip)
    request = f"GET {probe.path} HTTP/1.1\r\nHost: {probe.host}\r\nConnection: close\r\n\r\n"
    data = b""
    end = time.monotonic() + PORTAL_WAIT_S
    try:
        with socket.create_connection((host, port), PORTAL_WAIT_S, source_address=(host, 0)) as asking:
            asking.sendall(request.encode("ascii"))
            while len(data) < _MOST_BYTES:
                asking.settimeout(max(0.001, end - time.monotonic()))  # for the whole, however it comes in drops
                piece = asking.recv(_MOST_BYTES)
                if not piece:
                    break
                data += piece
    except TimeoutError:
        return Answer(0, trouble="it does not answer in time")
    except OSError as err:
        return Answer(0, trouble=err.strerror or str(err))
    return read_answer(data)


def read_answer(data: bytes) -> Answer:
    """What matters of an HTTP answer; status 0 when it is none."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        return Answer(0, trouble="what answers does not speak HTTP")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return Answer(int(words[1]), fields.get("location", ""), fields.get("cache-control", ""), len(body))


# -- DHCP -------------------------------------------------------------------------------------------------------------


def look_for_dhcp_servers(zones: Sequence[Zone]) -> dict[str, dhcp_servers.Asked]:
    """Ask for an address on every guest network as a client with a made-up MAC; whoever offers one is told by zone."""
    found: dict[str, dhcp_servers.Asked] = {}
    asking: dict[socket.socket, tuple[Zone, bytes, int]] = {}
    offers: dict[str, dict[tuple[IPv4Address, MacAddress], Offer]] = {}
    try:
        for zone in zones:
            xid = secrets.randbits(32)
            # Locally administered, and no group's.
            mac = MacAddress(bytes((secrets.randbelow(64) << 2 | 2,)) + secrets.token_bytes(5))
            try:
                sock = _packet_socket(zone.interface)
            except PermissionError:
                found[zone.name] = dhcp_servers.Asked(trouble="not permitted without the capability NET_RAW")
                continue
            except OSError as err:
                found[zone.name] = dhcp_servers.Asked(trouble=err.strerror or str(err))
                continue
            asking[sock] = (zone, write_discover(mac, xid), xid)
            offers[zone.name] = {}

        def send() -> None:
            for sock, (zone, frame, _xid) in asking.items():
                try:
                    sock.send(frame)
                except OSError as err:
                    found[zone.name] = dhcp_servers.Asked(trouble=err.strerror or str(err))

        def read(sock: socket.socket) -> bool:
            zone, _frame, xid = asking[sock]
            try:
                offer = read_offer(sock.recv(4096), xid)
            except (OSError, DhcpDecodeError):
                return False
            if offer is not None and len(offers[zone.name]) < _MAX_OFFERS:
                offers[zone.name][offer.server, offer.server_mac] = offer
            return False  # there may be more than one

        _converse(list(asking), OFFER_WAIT_S, OFFER_WAIT_S / 2, send, read)
    finally:
        for sock in asking:
            sock.close()
    return {name: dhcp_servers.Asked(tuple(each.values())) for name, each in offers.items()} | found


def _packet_socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        kernel_filter = KernelFilter(OFFER_FILTER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, kernel_filter.argument)
        sock.bind((interface, ETH_P_IP))
    except OSError:
        sock.close()
        raise
    return sock


# -- RADIUS -----------------------------------------------------------------------------------------------------------


def ask_radius(servers: Sequence[RadiusServer], nas_identifier: str) -> list[Asked]:
    """Ask every server for every purpose with Status-Server (RFC 5997), where it is configured to be asked so."""
    from gateway.radius.packets import (  # its library is large, and many a box asks no server
        SIGNATURE_SLOT,
        Code,
        DecodeError,
        Type,
        attribute,
        decode_answer,
        encode_request,
    )

    results: dict[tuple[str, str], Asked] = {}
    asking: dict[socket.socket, tuple[RadiusServer, str, bytes, bytes, int]] = {}
    begun = time.monotonic()
    try:
        for server in servers:
            for purpose, port in (("auth", server.auth_port), ("acct", server.acct_port)):
                if not port:
                    continue
                place = (server.name, purpose)
                results[place] = Asked(server, purpose, Outcome.NOT_ASKED)
                if not server.status_server:
                    continue
                results[place] = Asked(server, purpose, Outcome.SILENCE)
                sock = socket.socket(
                    socket.AF_INET6 if server.address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
                )
                identifier = secrets.randbelow(256)
                name = attribute(Type.NAS_IDENTIFIER, nas_identifier.encode()[:253])
                data, authenticator = encode_request(
                    Code.STATUS_SERVER,
                    identifier,
                    server.secret.reveal().encode(),
                    SIGNATURE_SLOT + name,
                    secrets.token_bytes(16),
                )
                try:
                    if server.source_address is not None:
                        sock.bind((str(server.source_address), 0))
                    sock.connect((str(server.address), port))
                except OSError as err:
                    sock.close()
                    results[place] = Asked(server, purpose, Outcome.REFUSED, detail=f"{err.strerror}.")
                    continue
                asking[sock] = (server, purpose, data, authenticator, identifier)

        def send() -> None:
            for sock, (server, purpose, data, _authenticator, _identifier) in asking.items():
                if results[server.name, purpose].outcome not in _SETTLED:
                    _send(sock, data)

        def read(sock: socket.socket) -> bool:
            server, purpose, _data, authenticator, identifier = asking[sock]
            outcome, detail = Outcome.SIGNED, ""
            try:
                answer = decode_answer(
                    sock.recv(_MOST_BYTES),
                    Code.STATUS_SERVER,
                    identifier,
                    authenticator,
                    server.secret.reveal().encode(),
                    require_message_authenticator=False,
                )
                if not answer.has("Message-Authenticator"):
                    outcome = Outcome.UNSIGNED
            except DecodeError as err:
                outcome, detail = Outcome.WRONG, f"{err}."
            except OSError as err:
                outcome, detail = Outcome.REFUSED, f"{err.strerror}."
            if results[server.name, purpose].outcome not in _SETTLED:
                took_s = time.monotonic() - begun
                results[server.name, purpose] = Asked(server, purpose, outcome, took_s, detail)
            return all(results[one[0].name, one[1]].outcome in _SETTLED for one in asking.values())

        _converse(list(asking), RADIUS_WAIT_S, RADIUS_REPEAT_S, send, read)
    finally:
        for sock in asking:
            sock.close()
    return list(results.values())


# -- the administration and other programs ----------------------------------------------------------------------------


def look_at_certificate(places: Sequence[Endpoint]) -> Served:
    """The certificate that the administration's listener shows at the first of these places that answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # made on the device; only its dates are looked at
    trouble = "its interface has no address"
    for place in places:
        try:
            with (
                socket.create_connection((str(place.address), place.port), TLS_WAIT_S / max(1, len(places))) as plain,
                context.wrap_socket(plain) as secured,
            ):
                shown = secured.getpeercert(binary_form=True)
        except OSError as err:
            trouble = err.strerror or str(err)
            continue
        if shown is not None:
            return Served(str(place), read_validity(shown))
    return Served(" ".join(map(str, places)) or "its port", trouble=trouble)


def list_ruleset() -> str:
    """All rules of the kernel without the elements of sets, as JSON; raises OSError when nft does not tell."""
    done = subprocess.run(
        ("nft", "-j", "-t", "list", "ruleset"),
        capture_output=True,
        text=True,
        timeout=NFT_WAIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"},
    )
    if done.returncode:
        raise OSError(0, done.stderr.strip()[:200] or f"nft ended with {done.returncode}")
    return done.stdout


def own_macs(zones: Sequence[Zone]) -> Mapping[str, MacAddress]:
    """The MAC of our interface in each zone that has one."""
    found = {}
    for zone in zones:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as looking:
            try:
                looking.bind((zone.interface, 0))
            except OSError:
                continue  # the row of the interface says so
            mac = bytes(looking.getsockname()[4])
        if len(mac) == 6:
            found[zone.name] = MacAddress(mac)
    return found


def answers_at(path: str) -> str:
    """Whether somebody listens at a socket of this machine; empty when so, else why not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(path)
        except OSError as err:
            return err.strerror or str(err)
    return ""
