"""What is fed to the gate's parsers and cores: each story takes a seeded generator, feeds some hundreds of inputs, and
raises when anything but the refusal that the parser promises comes of one. Returns how many inputs it fed.

Inputs are real messages, damaged; a core gets them in the middle of a conversation, with time going on. What must hold
then is checked at the end of the story, or on the way.
"""

from __future__ import annotations

import random
from dataclasses import replace

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Dhcp, Endpoint
from gateway.config_example import example
from gateway.config_loader import ConfigError, load
from gateway.control import protocol
from gateway.control.protocol import FrameBuffer, FrameError
from gateway.dhcp import v4_codec
from gateway.dhcp.frames import build_arp_probe, build_datagram, read_arp, read_datagram
from gateway.dhcp.leases import LeaseState
from gateway.dhcp.v4_codec import MessageType
from gateway.dhcp.v4_events import AddressSeen, PacketReceived, PacketUnreadable
from gateway.dhcp.v4_server import DhcpServer
from gateway.dns import message as dns
from gateway.journal import encode, replay
from gateway.radius import packets as radius
from gateway.radius.dynauth import ChangeSessions, DisconnectSessions, OrderDone, RequestReceived, SessionsMissing
from gateway.radius.messages import DatagramReceived, DecideLogin, LoginSubmitted, RecordSubmitted, Transmit
from gateway.radius.requests import AccountingBody
from gateway.uci import UciSyntaxError, parse, render
from tests.fuzz.analysis import damaged
from tests.gateway.dhcp.conversation import ZONE, ip, phone
from tests.gateway.dns.messages import opt, query, response
from tests.gateway.dns.test_resolver import test_hostile_clients_and_resolvers_break_nothing as resolver_story
from tests.gateway.radius.build import UNIX, answer, config, exchange, login, record, sent, server
from tests.gateway.radius.test_dynauth import SERVER, core, request
from tests.webui.test_parsing import outcome
from webui.messages import RequestError
from webui.parsing import PARSERS, BodyReader, announces_body, parse_head

INPUTS = 300  # of one story
RESOLVER_INPUTS = 3000  # steps of the story that the resolver's own tests tell

_POOL = Ipv4Range.parse("10.41.0.10-10.41.0.13")
_FIRST = int(_POOL.first)
_DHCP = DhcpServer(ZONE, Dhcp())
_DHCP_OCTETS = [
    v4_codec.encode(phone(_DHCP, number).message(kind, ciaddr=ciaddr, requested_address=_FIRST, server_id=chosen))
    for number in range(6)
    for kind in MessageType
    for ciaddr in (0, _FIRST)
    for chosen in (ip("10.41.0.1"), 0)
]
_DNS_OCTETS = [
    query("login.postern.lan", 1),
    query("www.example.net", 28, additional=(opt(4096, dnssec_ok=True, options=b"\0\x0a\0\x08cookie!!"),)),
    response(query("www.example.net")),
    response(query("a." * 100 + "example"), truncated=True),
]
_FRAMES = [
    protocol.request_frame(7, "client.lookup", {"ip": "10.41.0.20"}),
    protocol.request_frame("x" * 64, "client.login", {"username": "ä\u2028", "password": 'p"\\', "nested": [[[{}]]]}),
    protocol.request_frame(None, "portal.note", {"text": "a" * 500, "at": -1.5e300}),
    protocol.cancel_frame(7),
]
_HEADS = [
    b"GET /generate_204?a=b HTTP/1.1\r\nHost: www.gstatic.com\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
    b"POST /login HTTP/1.1\r\nHost: 10.41.0.1:3990\r\nContent-Length: 11\r\nConnection: close\r\n\r\n",
    b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET http://example.com/x HTTP/1.0\r\nX-Empty:\r\nX-High: \xff\xfe\r\n\r\n",
]
_BODY = b"5;name=value\r\nhello\r\n1A\r\n" + b"z" * 26 + b"\r\n0\r\nTrailer: x\r\n\r\n"
_ATTRIBUTES = [
    radius.attribute(18, b"Welcome"),
    radius.integer_attribute(27, 3600),
    radius.integer_attribute(28, 600),
    radius.integer_attribute(85, 60),
    radius.attribute(25, bytes(40)),
    radius.attribute(44, b"67a1b2c3-0000002a"),
    radius.attribute(1, "alice\u00e4".encode()),
    radius.attribute(8, bytes(4)),
    radius.attribute(97, b"\0\x40\x20\x01\x0d\xb8"),
    radius.vendor_attribute(14122, 9, b"2026-08-30T22:00:00+02:00"),
    radius.vendor_attribute(14122, 4, b"http://example.com/"),
    radius.vendor_attribute(14122, 7, (2_000_000).to_bytes(4, "big")),
    radius.vendor_attribute(14988, 8, b"2M/10M 4M/20M"),
    radius.vendor_attribute(14988, 17, (1 << 20).to_bytes(4, "big")),
]


def dhcp_codec(rng: random.Random) -> int:
    """A message or DecodeError, and a message that was read can be written and read again; frames likewise."""
    frames = [
        build_datagram(bytes(6), 0, b"\xff" * 6, 2**32 - 1, rng.choice(_DHCP_OCTETS)),
        build_arp_probe(bytes(6), 7),
    ]
    for _ in range(INPUTS):
        try:
            message = v4_codec.decode(damaged(rng, rng.choice(_DHCP_OCTETS)))
            assert v4_codec.decode(v4_codec.encode(message)) == message
        except v4_codec.DecodeError:
            pass
        for read in (read_datagram, read_arp):
            try:
                read(damaged(rng, rng.choice(frames)))
            except v4_codec.DecodeError:
                pass
    return 3 * INPUTS


def dhcp_server(rng: random.Random) -> int:
    """Damaged conversations with a tiny pool: every lease lies in it, and pool, table and offers agree."""
    tried = DhcpServer(
        replace(ZONE, pool=_POOL, relays=(_POOL.first,) if rng.random() < 0.3 else ()),
        Dhcp(probe=rng.random() < 0.5, client_rate=1000, client_burst=1000),
    )
    now = 0.0
    for _ in range(INPUTS):
        now += rng.choice((0.001, 0.1, 1.0, 10.0, 1000.0)) * rng.random()
        octets = rng.choice(_DHCP_OCTETS)
        data = damaged(rng, octets) if rng.random() < 0.6 else octets
        mac = data[28:34] if len(data) >= 34 and rng.random() < 0.9 else rng.randbytes(6)
        if rng.random() < 0.1:
            tried.receive(AddressSeen(_FIRST + rng.randrange(4), mac), now)
            continue
        try:
            tried.receive(PacketReceived(v4_codec.decode(data), mac), now)
        except v4_codec.DecodeError as err:
            tried.receive(PacketUnreadable(mac, str(err)), now)
        due = tried.deadline()
        if due is not None and rng.random() < 0.3:
            now = max(now, due)
            tried.tick(now)
    rows = tried.listing()
    assert all(row.address in _POOL for row in rows), rows
    assert len({row.mac for row in rows if row.mac}) == sum(row.mac is not None for row in rows)
    counts = tried.counts()
    taken = counts.bound + counts.offered + counts.former + counts.quarantined
    assert counts.pool_size - counts.free == taken, counts
    assert len([row for row in rows if row.state == LeaseState.BOUND.value]) == counts.bound
    while (due := tried.deadline()) is not None:
        tried.tick(due)
    assert tried.counts().bound == tried.counts().offered == tried.probing == 0
    return INPUTS


def dns_message(rng: random.Random) -> int:
    """Names, questions, EDNS records and our own answers: values or DecodeError, and an answer that can be read."""
    for _ in range(INPUTS):
        data = damaged(rng, rng.choice(_DNS_OCTETS))
        try:
            question = dns.read_question(data)
            again = dns.read_question(dns.encode_response(data, question, dns.Rcode.NOERROR))
            assert again == question
            dns.read_edns(data, question.end)
            dns.decode_name(data, rng.randrange(len(data)))
        except dns.DecodeError:
            pass
        try:
            dns.parse_name(data.decode("latin-1"))
        except dns.DecodeError:
            pass
    return 2 * INPUTS


def dns_resolver(rng: random.Random) -> int:
    """The resolver's own story of hostile clients and servers, with other seeds than its tests have."""
    resolver_story(rng.getrandbits(32))
    return RESOLVER_INPUTS


def _attributes(rng: random.Random) -> bytes:
    return b"".join(
        damaged(rng, part)[:253] if rng.random() < 0.4 else part
        for part in rng.sample(_ATTRIBUTES, rng.randrange(len(_ATTRIBUTES)))
    )


def _with_lengths(data: bytes) -> bytes:
    """The same octets with lengths that fit again, so that what is in the attributes is reached."""
    parts, at = [], 0
    while at + 2 <= len(data):
        size = min(max(2, data[at + 1]), len(data) - at)
        parts.append(bytes((data[at], size)) + data[at + 2 : at + size])
        at += size
    return b"".join(parts)


def radius_answers(rng: random.Random) -> int:
    """Answers signed with the right secret around damaged attributes, or damaged; each login is decided once."""
    client = exchange(config(server("one"), server("two", 20)))
    now, decided, submitted = 0.0, 0, 0
    open_requests: list[Transmit] = []
    for number in range(INPUTS):
        now += rng.random() * 3
        if len(open_requests) < 4:
            if rng.random() < 0.7:
                submitted += 1
                actions = client.receive(LoginSubmitted(login(number), UNIX), now)
            else:
                actions = client.receive(RecordSubmitted(AccountingBody(record(number), UNIX, None)), now)
        elif rng.random() < 0.3:
            actions = client.tick(now)
        else:
            asked = open_requests.pop(rng.randrange(len(open_requests)))
            code = rng.choice((*radius.Code, radius.Code.ACCESS_ACCEPT, radius.Code.ACCESS_ACCEPT))
            data = answer(asked.data, code, _with_lengths(_attributes(rng)), sign=rng.random() < 0.8)
            if rng.random() < 0.3:
                data = damaged(rng, data)
            actions = client.receive(DatagramReceived(asked.server, asked.purpose, asked.socket, data, UNIX), now)
        open_requests += sent(actions)
        decided += sum(isinstance(action, DecideLogin) for action in actions)
    for _ in range(10_000):
        due = client.deadline()
        if due is None or decided == submitted:
            break
        decided += sum(isinstance(action, DecideLogin) for action in client.tick(due))
    assert decided == submitted, (decided, submitted)
    return INPUTS


def radius_requests(rng: random.Random) -> int:
    """Disconnect and CoA from a server that knows the secret and talks nonsense, and damaged ones."""
    authorizer = core()
    for number in range(INPUTS):
        now = number * rng.random()
        code = rng.choice((radius.Code.DISCONNECT_REQUEST, radius.Code.COA_REQUEST))
        data = request(_with_lengths(_attributes(rng)), code=code, ident=rng.randrange(256), sign=rng.random() < 0.8)
        if rng.random() < 0.3:
            data = damaged(rng, data)
        source = SERVER if rng.random() < 0.9 else Endpoint(SERVER.address, 1)
        for action in authorizer.receive(RequestReceived(source, data, UNIX), now):
            if isinstance(action, DisconnectSessions | ChangeSessions) and rng.random() < 0.9:
                done = rng.random() < 0.5
                result = OrderDone(action.request, done) if done else SessionsMissing(action.request)
                authorizer.receive(result, now)
        authorizer.tick(now)
    return INPUTS


def control_frames(rng: random.Random) -> int:
    """Streams of damaged frames in any pieces: requests or FrameError, and never more held than a frame may have."""
    fed = 0
    while fed < INPUTS:
        frames = FrameBuffer(protocol.MAX_REQUEST_BYTES)
        stream = b"".join(rng.choice(_FRAMES) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.7:
            stream = damaged(rng, stream)
        lost = False
        while stream and not lost:
            size = rng.randrange(1, 200)
            frames.feed(stream[:size])
            stream = stream[size:]
            try:
                while (body := frames.take()) is not None:
                    fed += 1
                    _parse_request(body)
                    _parse_request(damaged(rng, body))
            except FrameError as err:
                _demand(err.fatal, err)
                lost = True
        fed += 1
        assert len(frames) <= protocol.MAX_REQUEST_BYTES + protocol.HEADER_BYTES + 200
    return fed


def _demand(condition: bool, found: object) -> None:
    """An assertion about an exception that was rightly raised."""
    assert condition, found


def _parse_request(body: bytes) -> None:
    try:
        found = protocol.parse_request(body)
    except FrameError as err:
        _demand(not err.fatal, err)
        protocol.encode({"id": None, "error": {"code": err.code, "message": err.message}})
    else:
        protocol.encode({"params": found.params})


def http_requests(rng: random.Random) -> int:
    """Both parsers make the same of the same damaged head; bodies come whole, or are refused."""
    for _ in range(INPUTS):
        data = damaged(rng, rng.choice(_HEADS))
        first, *others = {repr(outcome(data, parser)) for parser in sorted(PARSERS)}
        assert not others, (data, first, others)
        try:
            head = parse_head(data, "192.0.2.1", PARSERS["h11"])
            if not announces_body(head):
                continue
            body = BodyReader(head, 10_000)
            buffer, rest = bytearray(), damaged(rng, _BODY) * rng.randrange(1, 4)
            while rest and not body.complete:
                size = rng.randrange(1, 30)
                buffer += rest[:size]
                rest = rest[size:]
                body.feed(buffer)
            assert body.size <= 10_000
            body.take()
        except RequestError as err:
            _demand(400 <= err.status < 600, err)
    return INPUTS


def configuration(rng: random.Random) -> int:
    """Damaged files: a tree, or problems with their place; what is read can be written and read again."""
    original = example().replace("#\t", "\t").encode()
    lines = original.splitlines(keepends=True)
    inputs = INPUTS // 10  # each is a whole file
    for _ in range(inputs):
        picked = b"".join(line for line in lines if rng.random() < 0.8)
        text = damaged(rng, picked).decode("utf-8", "replace")
        try:
            sections = parse(text)
            assert render(parse(render(sections))) == render(sections)
        except UciSyntaxError as err:
            _demand(bool(err.problems), text)
        try:
            load(text, lenient=rng.random() < 0.2)
        except ConfigError as err:
            _demand(bool(err.problems) and all(str(each).startswith("postern") for each in err.problems), err)
    return inputs


def journal(rng: random.Random) -> int:
    """A damaged file is played up to the damage; what is before it is whole and plays the same again."""
    rows = [
        [
            (rng.choice(("session", "lease", "acct")), rng.choice((number, "key", ("guest", rng.randbytes(6)))), value)
            for value in (None, {"at": rng.random(), "mac": rng.randbytes(6)}, rng.randrange(9))
        ]
        for number in range(20)
    ]
    data = b"".join(encode("00000001", number, UNIX, changes) for number, changes in enumerate(rows, 1))
    for _ in range(INPUTS):
        broken = damaged(rng, data)
        if not broken:
            continue
        played, offset = replay(broken)
        assert 0 <= offset <= len(broken)
        assert bool(played.notes) == (offset < len(broken))
        if offset:
            again, end = replay(broken[:offset])
            assert (again.state, again.sequence, end) == (played.state, played.sequence, offset)
    return INPUTS


def mac_addresses(rng: random.Random) -> int:
    """Every spelling of a MAC, damaged: an address that prints itself readably, or ValueError."""
    for _ in range(INPUTS):
        text = damaged(
            rng, rng.choice((b"02:00:5e:10:00:2a", b"02-00-5E-10-00-2A", b"0200.5e10.002a", b"02005e10002a"))
        )
        try:
            mac = MacAddress.parse(text.decode("latin-1"))
        except ValueError:
            continue
        assert MacAddress.parse(str(mac)) == mac
    return INPUTS
