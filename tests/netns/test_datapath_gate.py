"""What passes the gate and what does not, with real packets: before login, while online, after logout."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

import pytest

from gateway.config import Garden
from gateway.session.events import TrafficRefused
from tests.netns.gate import Gate, ask_udp, connect, key_of, listen, narrower, open_lab, open_tcp
from tests.netns.harness import RESOLVER4, RESOLVER6, UPLINK4, UPLINK6, WEB4, WEB6, Lab, wait_for

pytestmark = pytest.mark.root

PORTAL = 3990
REQUEST = b"GET /generate_204 HTTP/1.1\r\nHost: connectivitycheck.example\r\n\r\n"
PORTAL_ANSWER = b"HTTP/1.1 302 Found\r\nLocation: http://10.41.0.1:3990/\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def served() -> Iterator[tuple[Lab, Gate]]:
    """A laboratory whose gateway has a portal, a resolver and listeners that are nobody's business."""
    with open_lab("gate", guests=2) as (lab, gate), contextlib.ExitStack() as stack:
        listen(lab, stack, lab.gateway, PORTAL, answer=PORTAL_ANSWER)
        listen(lab, stack, lab.gateway, 53, answer=b"from our resolver")
        listen(lab, stack, lab.gateway, 22, answer=b"SSH")
        listen(lab, stack, lab.gateway, 8443, answer=b"administration")
        yield lab, gate


@pytest.mark.parametrize("target", [WEB4, WEB6])
@pytest.mark.parametrize("port", [443, 853, 8080, 2222])
def test_tcp_before_login_is_reset_at_once(served: tuple[Lab, Gate], target: object, port: int) -> None:
    """A client that is not logged in gets a reset for TCP by IPv4 and IPv6, and no silence that would cost seconds."""
    lab, _gate = served
    began = time.monotonic()
    assert connect(lab, lab.guest.netns, target, port) == "reset"
    assert time.monotonic() - began < 1


def test_many_attempts_before_login_are_all_reset(served: tuple[Lab, Gate]) -> None:
    """Refusals are not rationed: the thirtieth connection is reset like the first."""
    lab, _gate = served
    assert {connect(lab, lab.guest.netns, WEB4, 443) for _ in range(30)} == {"reset"}


@pytest.mark.parametrize("target", [WEB4, WEB6])
def test_udp_before_login_is_refused(served: tuple[Lab, Gate], target: object) -> None:
    """QUIC and other UDP before login get an ICMP refusal."""
    lab, _gate = served
    assert ask_udp(lab, lab.guest.netns, target, 443, b"quic") == "refused"
    assert ask_udp(lab, lab.guest.netns, target, 853, b"doq") == "refused"


@pytest.mark.parametrize("target", [WEB4, WEB6])
def test_ping_before_login_reaches_nothing(served: tuple[Lab, Gate], target: object) -> None:
    """Echo requests do not pass either."""
    lab, _gate = served
    assert lab.run(lab.guest.netns, ["ping", "-c1", "-W1", str(target)], check=False).returncode != 0


@pytest.mark.parametrize("target", [RESOLVER4, RESOLVER6])
def test_foreign_resolvers_before_login_are_ours(served: tuple[Lab, Gate], target: object) -> None:
    """A question to any resolver is answered by ours, by UDP and TCP, so nothing can be tunnelled through it."""
    lab, _gate = served
    netns = lab.guest.netns
    assert ask_udp(lab, netns, target, 53, b"\0" * 12 + b"\0\0\1\0\1") == b"from our resolver"
    with open_tcp(lab, netns, target, 53) as sock:
        sock.sendall(b"?")
        assert sock.recv(100) == b"from our resolver"


@pytest.mark.parametrize("target", [WEB4, WEB6])
def test_plain_web_before_login_is_the_portal(served: tuple[Lab, Gate], target: object) -> None:
    """TCP 80 of any address answers with the portal's redirect."""
    lab, _gate = served
    with open_tcp(lab, lab.guest.netns, target, 80) as sock:
        sock.sendall(REQUEST)
        assert sock.recv(1000) == PORTAL_ANSWER


def test_login_opens_everything_for_that_client_only(served: tuple[Lab, Gate]) -> None:
    """After login both families, all ports and foreign resolvers pass; the neighbour stays outside."""
    lab, gate = served
    gate.login(lab.guest)
    inside, outside = lab.guest.netns, lab.guests[1].netns
    for target in (WEB4, WEB6):
        assert connect(lab, inside, target, 443) == "open"
        assert connect(lab, inside, target, 80) == "open"
        assert ask_udp(lab, inside, target, 7, b"hello") == b"hello"
        assert connect(lab, outside, target, 443) == "reset"
    assert ask_udp(lab, inside, RESOLVER4, 53, b"\0" * 12 + b"\0\0\x10\0\1") != b"from our resolver"
    assert lab.run(inside, ["ping", "-c1", "-W1", str(WEB4)], check=False).returncode == 0


@pytest.mark.parametrize("target", [WEB4, WEB6])
def test_kept_connection_does_not_stay_with_the_portal(served: tuple[Lab, Gate], target: object) -> None:
    """A keep-alive connection that was redirected before login is reset when used after it; a new one goes out."""
    lab, gate = served
    with open_tcp(lab, lab.guest.netns, target, 80) as kept:
        kept.sendall(REQUEST)
        assert kept.recv(1000) == PORTAL_ANSWER
        gate.login(lab.guest)
        with pytest.raises(ConnectionResetError):
            exchange(kept, REQUEST)
    with open_tcp(lab, lab.guest.netns, target, 80) as fresh:
        fresh.sendall(REQUEST)
        assert b"204" in fresh.recv(1000)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send, and wait for what comes back."""
    sock.sendall(data)
    return sock.recv(1000)


def drink(sock: socket.socket) -> None:
    """Receive to the end."""
    while sock.recv(1 << 20):
        pass


def test_portal_by_its_own_address_survives_login(served: tuple[Lab, Gate]) -> None:
    """The connection that carries the login itself, even on port 80 of the portal's name, gets its answer."""
    lab, gate = served
    for port in (80, PORTAL):
        with open_tcp(lab, lab.guest.netns, "10.41.0.1", port) as login:
            login.sendall(REQUEST)
            assert login.recv(1000) == PORTAL_ANSWER
            gate.login(lab.guest)
            login.sendall(REQUEST)
            assert login.recv(1000) == PORTAL_ANSWER
        gate.logout(lab.guest)


@pytest.mark.parametrize("target", [WEB4, WEB6])
def test_established_connection_is_dead_after_logout(served: tuple[Lab, Gate], target: object) -> None:
    """Logout ends a running connection at both ends with a reset."""
    lab, gate = served
    gate.login(lab.guest)
    with open_tcp(lab, lab.guest.netns, target, 7) as sock:
        sock.sendall(b"before")
        assert sock.recv(100) == b"before"
        gate.logout(lab.guest)
        with pytest.raises(ConnectionResetError):
            exchange(sock, b"after")


def test_download_is_dead_after_logout(served: tuple[Lab, Gate]) -> None:
    """A download that is running ends, and the server learns it too."""
    lab, gate = served
    gate.login(lab.guest)
    with open_tcp(lab, lab.guest.netns, WEB4, 19) as sock:
        assert sock.recv(1 << 16)
        gate.logout(lab.guest)
        # Whose packet came first is told by a reset; a guest that only listens may be told nothing.
        with pytest.raises((ConnectionResetError, TimeoutError)):
            drink(sock)
    listing = ["ss", "-Htn", "state", "established", "sport", "=", ":19"]
    assert wait_for(lambda: lab.run(lab.internet, listing).stdout == "")  # by its next retransmission


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("target", ["10.41.0.1", str(UPLINK4), "2001:db8:41::1", str(UPLINK6)])
def test_listeners_of_the_gateway_are_closed_to_guests(served: tuple[Lab, Gate], target: str, online: bool) -> None:
    """SSH and administration are reset on every address of the gateway, before and after login."""
    lab, gate = served
    if online:
        gate.login(lab.guest)
    for port in (22, 8443):
        assert connect(lab, lab.guest.netns, target, port) == "reset"
        assert ask_udp(lab, lab.guest.netns, target, port, b"x") == "refused"


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("target", ["10.41.0.1", "2001:db8:41::1"])
def test_what_the_gateway_offers_is_open(served: tuple[Lab, Gate], target: str, online: bool) -> None:
    """DNS, the portal and ping answer on the gateway's address in the zone, before and after login."""
    lab, gate = served
    if online:
        gate.login(lab.guest)
    netns = lab.guest.netns
    assert ask_udp(lab, netns, target, 53, b"?") == b"from our resolver"
    assert connect(lab, netns, target, 53) == "open"
    assert connect(lab, netns, target, PORTAL) == "open"
    assert lab.run(netns, ["ping", "-c1", "-W1", target], check=False).returncode == 0


def test_dhcp_needs_no_address(served: tuple[Lab, Gate]) -> None:
    """A request from 0.0.0.0 port 68 reaches port 67 of the gateway, from a guest that has no address yet."""
    lab, _gate = served
    with contextlib.ExitStack() as stack:
        listen(lab, stack, lab.gateway, 67, answer=b"offer")
        sender = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1);"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0');"
            "s.bind(('', 68)); s.sendto(b'discover', ('255.255.255.255', 67))"
        )
        before = _packets(lab, "udp dport 67")
        lab.run(lab.guest.netns, ["ip", "address", "flush", "dev", "eth0"])
        lab.python(lab.guest.netns, sender)
        assert _packets(lab, "udp dport 67") == before + 1


def _packets(lab: Lab, match: str) -> int:
    """Count packets that get past our input chain, by a table of the test's own behind it."""
    listed = lab.run(lab.gateway, ["nft", "list", "table", "inet", "count"], check=False)
    if listed.returncode:
        script = f"table inet count {{ chain c {{ type filter hook input priority 300; {match} counter; }}\n}}\n"
        lab.run(lab.gateway, ["nft", "-f", "-"], stdin=script)
        return 0
    return int(listed.stdout.split("packets ")[1].split()[0])


def test_garden_opens_its_ports_before_login() -> None:
    """A garden opens its destinations on its ports, in both families, and nothing beside them."""
    gardens = (
        Garden(
            name="web", networks=(IPv4Network("203.0.113.80/32"), IPv6Network("2001:db8:113::80/128")), ports=(443,)
        ),
        Garden(name="all", networks=(IPv4Network("203.0.113.128/25"),), protocol="any"),
        Garden(name="echo", networks=(IPv4Network("203.0.113.80/32"),), protocol="udp", ports=(7,)),
    )
    with open_lab("garden", gardens=gardens) as (lab, gate):
        netns = lab.guest.netns
        assert connect(lab, netns, WEB4, 443) == "open"
        assert connect(lab, netns, WEB6, 443) == "open"
        assert connect(lab, netns, WEB4, 8080) == "reset"
        assert connect(lab, netns, "203.0.113.81", 443) == "reset"
        assert connect(lab, netns, "203.0.113.200", 80) == "open"
        assert connect(lab, netns, "203.0.113.200", 2222) == "open"
        assert connect(lab, netns, "203.0.113.200", 853) == "reset"
        assert ask_udp(lab, netns, WEB4, 7, b"echo") == b"echo"
        assert lab.run(netns, ["ping", "-c1", "-W1", "203.0.113.200"], check=False).returncode == 0
        assert connect(lab, netns, str(UPLINK4), 22) == "reset"
        assert gate.check() == []


def test_garden_traffic_is_nobodys_traffic() -> None:
    """What goes to the garden before login is in no client's counters after it."""
    gardens = (Garden(name="echo", networks=(IPv4Network("203.0.113.80/32"),), protocol="udp", ports=(7,)),)
    with open_lab("gardencount", gardens=gardens) as (lab, gate):
        assert ask_udp(lab, lab.guest.netns, WEB4, 7, b"echo") == b"echo"
        gate.login(lab.guest)
        assert gate.counters(lab.guest).upload_packets == 0


def test_configured_resolver_is_open_before_login() -> None:
    """A resolver that the zone tells its clients answers itself; others still do not."""
    with open_lab("resolver", dns_servers=(RESOLVER4,)) as (lab, _gate):
        question = b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\x10\0\1"
        answer = ask_udp(lab, lab.guest.netns, RESOLVER4, 53, question)
        assert isinstance(answer, bytes)
        assert answer.endswith(str(RESOLVER4).encode())
        assert connect(lab, lab.guest.netns, RESOLVER4, 53) == "open"
        assert connect(lab, lab.guest.netns, RESOLVER4, 853) == "reset"
        assert ask_udp(lab, lab.guest.netns, WEB4, 53, question) == "refused"


def test_known_doh_stays_closed_inside_a_garden() -> None:
    """A garden prefix that covers a well-known DNS-over-HTTPS address does not open that address's port 443."""
    gardens = (Garden(name="cloud", networks=(IPv4Network("1.1.1.0/24"),), ports=(80, 443)),)
    with open_lab("doh", gardens=gardens) as (lab, _gate):
        lab.run(lab.internet, ["ip", "route", "add", "local", "1.1.1.0/24", "dev", "lo"])
        assert connect(lab, lab.guest.netns, "1.1.1.1", 443) == "reset"
        assert connect(lab, lab.guest.netns, "1.1.1.77", 443) == "open"


def test_allowed_mac_passes_and_blocked_mac_gets_nothing() -> None:
    """An allowed MAC needs no login; a blocked one has neither Internet nor portal, nor can it be logged in."""
    with open_lab("lists", guests=3, start=False) as (lab, gate):
        allowed, blocked, other = lab.guests
        gate.close()
        config = narrower(gate.config, allow_macs=(allowed.mac,), block_macs=(blocked.mac,))
        second = Gate(lab, config).start()
        try:
            for guest in lab.guests:
                second.bind(guest)
            for target in (WEB4, WEB6):
                assert connect(lab, allowed.netns, target, 443) == "open"
                assert connect(lab, other.netns, target, 443) == "reset"
                assert connect(lab, blocked.netns, target, 443, timeout_s=0.5) == "silence"
            with contextlib.ExitStack() as stack:
                listen(lab, stack, lab.gateway, PORTAL)
                assert connect(lab, other.netns, "10.41.0.1", PORTAL) == "open"
                assert connect(lab, blocked.netns, "10.41.0.1", PORTAL, timeout_s=0.5) == "silence"
            second.login(blocked, 7)
            assert [event.key for event in second.events if isinstance(event, TrafficRefused)] == [key_of(blocked)]
            assert connect(lab, blocked.netns, WEB4, 443, timeout_s=0.5) == "silence"
        finally:
            second.close()
