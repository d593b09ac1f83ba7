"""What our requests say, attribute by attribute."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from gateway.addresses import MacAddress
from gateway.config import Radius
from gateway.radius.attributes import MAX_CLASS_OCTETS
from gateway.radius.packets import MAX_OCTETS, Code, Packet, Type, decode, decode_dynamic_request
from gateway.radius.requests import (
    AccessBody,
    AccountingBody,
    Body,
    RequestWriter,
    StatusBody,
    as_chap,
    credentials_refused,
)
from gateway.session.machine import MAX_IPV6_ADDRESSES
from gateway.session.model import AccountingStatus, ChapCredentials, Credentials, PapCredentials
from tests.gateway.radius.build import (
    ADDRESS,
    GATEWAY_MAC,
    SECRET,
    UNIX,
    EvenRandom,
    config,
    login,
    record,
    server,
)

SOURCE = IPv4Address("198.51.100.7")


def writer(radius: Radius | None = None, mac: MacAddress | None = GATEWAY_MAC) -> RequestWriter:
    made = RequestWriter(config(radius=radius), EvenRandom(1), lambda _zone: mac)
    made.set_source("one", SOURCE)
    return made


def written(body: Body, radius: Radius | None = None) -> Packet:
    return decode(writer(radius).write(server(), body, 9).data)


def access(credentials: Credentials | None = None, unix: float | None = UNIX) -> AccessBody:
    action = login(5, credentials)
    return AccessBody(action, action.credentials, unix)


def test_an_access_request_says_who_where_and_when() -> None:
    """Every mandatory attribute is in it, the signature first."""
    data = writer().write(server(), access(), 9).data
    packet = decode(data)
    assert data[20] == Type.MESSAGE_AUTHENTICATOR
    assert packet.texts("User-Name") == ("alice",)
    assert packet.ipv4("NAS-IP-Address") == (SOURCE,)
    assert packet.texts("NAS-Identifier") == ("postern",)
    assert packet.integer("NAS-Port") == 7
    assert packet.integer("NAS-Port-Type") == 19
    assert packet.integer("Service-Type") == 1
    assert packet.texts("NAS-Port-Id") == ("br-guest",)
    assert packet.ipv4("Framed-IP-Address") == (ADDRESS,)
    assert packet.texts("Called-Station-Id") == ("02-00-5E-00-00-01:Cafe",)
    assert packet.texts("Calling-Station-Id") == ("02-00-5E-10-00-2A",)
    assert packet.texts("Acct-Session-Id") == ("67a1b2c3-00000005",)
    assert packet.integer("Event-Timestamp") == UNIX
    assert packet.octets("Chargeable-User-Identity") == (b"\0",)
    assert b"wonderland" not in data


def test_an_unset_clock_leaves_the_timestamp_out() -> None:
    """Without a wall clock there is no Event-Timestamp."""
    assert not written(access(unix=None)).has("Event-Timestamp")


def test_chap_credentials_are_passed_on() -> None:
    """A CHAP response travels as identifier and response, with its challenge."""
    packet = written(access(ChapCredentials("alice", 3, b"r" * 16, b"c" * 16)))
    assert packet.octets("CHAP-Password") == (b"\x03" + b"r" * 16,)
    assert packet.octets("CHAP-Challenge") == (b"c" * 16,)
    assert not packet.has("User-Password")


def test_clear_passwords_can_become_chap() -> None:
    """With option protocol chap a challenge of our own is answered, so that the password does not travel."""
    made = as_chap(PapCredentials("alice", "wonderland"), EvenRandom(3))
    assert made.response == hashlib.md5(bytes((made.ident,)) + b"wonderland" + made.challenge).digest()


@pytest.mark.parametrize(
    "credentials",
    [
        PapCredentials("", "x"),
        PapCredentials("x" * 254, "x"),
        PapCredentials("a\0b", "x"),
        PapCredentials("alice", "x" * 129),
        PapCredentials("alice", "x\0"),
        ChapCredentials("alice", 1, b"short", b"c" * 16),
        ChapCredentials("alice", 1, b"r" * 16, b""),
    ],
)
def test_credentials_that_do_not_fit_are_refused(credentials: Credentials) -> None:
    """What cannot be put into a packet is said in a sentence and never sent."""
    assert credentials_refused(credentials)


def test_credentials_that_fit_are_not_refused() -> None:
    """Names of 253 and passwords of 128 octets, in any script, can be sent."""
    assert credentials_refused(PapCredentials("x" * 253, "é" * 64)) == ""
    packet = written(access(PapCredentials("Zoë", "x" * 128)))
    assert packet.texts("User-Name") == ("Zoë",)
    assert len(packet.octets("User-Password")[0]) == 128


def test_a_start_has_no_counters() -> None:
    """A Start names the session, the user and what is to be echoed, and counts nothing."""
    packet = written(AccountingBody(record(1), UNIX, None))
    assert packet.integer("Acct-Status-Type") == 1
    assert packet.texts("Acct-Session-Id") == ("67a1b2c3-0000002a",)
    assert packet.texts("User-Name") == ("alice",)
    assert packet.octets("Class") == (b"gold", b"two")
    assert packet.integer("Acct-Authentic") == 1
    assert packet.integer("Event-Timestamp") == UNIX
    assert not packet.has("Acct-Input-Octets")
    assert not packet.has("Acct-Delay-Time")
    assert not packet.has("Acct-Terminate-Cause")


def test_a_stop_counts_in_gigawords_from_the_servers_view() -> None:
    """Input is what the client sent; the high words are always there, and the cause is the session's."""
    stop = record(2, AccountingStatus.STOP, upload_bytes=(3 << 32) + 5, download_bytes=6)
    packet = written(AccountingBody(stop, UNIX, 17))
    assert (packet.integer("Acct-Input-Octets"), packet.integer("Acct-Input-Gigawords")) == (5, 3)
    assert (packet.integer("Acct-Output-Octets"), packet.integer("Acct-Output-Gigawords")) == (6, 0)
    assert (packet.integer("Acct-Input-Packets"), packet.integer("Acct-Output-Packets")) == (10, 20)
    assert packet.integer("Acct-Session-Time") == 60
    assert packet.integer("Acct-Terminate-Cause") == 1
    assert packet.integer("Acct-Delay-Time") == 17


def test_the_clients_view_turns_all_counters_and_says_so() -> None:
    """With accounting_view client octets, packets and gigawords change places, and Acct-View-Point is 2."""
    stop = record(2, AccountingStatus.STOP, upload_bytes=(3 << 32) + 5, download_bytes=6)
    packet = written(AccountingBody(stop, UNIX, None), Radius(accounting_view="client"))
    assert (packet.integer("Acct-Output-Octets"), packet.integer("Acct-Output-Gigawords")) == (5, 3)
    assert packet.integer("Acct-Input-Packets") == 20
    assert packet.integer("ChilliSpot-Acct-View-Point") == 2


def test_on_and_off_speak_for_the_gateway() -> None:
    """Accounting-On names no user and no client."""
    packet = written(AccountingBody(record(1, AccountingStatus.ON), UNIX, None))
    assert packet.integer("Acct-Status-Type") == 7
    assert packet.texts("NAS-Identifier") == ("postern",)
    assert packet.texts("Called-Station-Id") == ("02-00-5E-00-00-01",)
    assert not packet.has("User-Name")
    assert not packet.has("Calling-Station-Id")


def test_accounting_requests_verify() -> None:
    """The content of an accounting request is signed twice over, as that of a dynamic request would be."""
    made = writer().write(server(), AccountingBody(record(1), UNIX, None), 9)
    head = made.data[:4]
    assert hashlib.md5(head + bytes(16) + made.data[20:] + SECRET).digest() == made.authenticator == made.data[4:20]
    disguised = b"\x28" + made.data[1:4] + bytes(16) + made.data[20:]
    disguised = disguised[:4] + hashlib.md5(disguised + SECRET).digest() + disguised[20:]
    with pytest.raises(Exception, match="Message-Authenticator is wrong"):
        decode_dynamic_request(disguised, SECRET, require_message_authenticator=True)


def test_ipv6_addresses_are_told() -> None:
    """Every address that the client used is in its records, and an IPv6 source is NAS-IPv6-Address."""
    addresses = (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
    made = writer()
    made.set_source("one", IPv6Address("2001:db8::99"))
    packet = decode(
        made.write(server(), AccountingBody(replace(record(1), ipv6_addresses=addresses), None, None), 9).data
    )
    assert packet.ipv6("Framed-IPv6-Address") == addresses
    assert packet.ipv6("NAS-IPv6-Address") == (IPv6Address("2001:db8::99"),)
    assert made.nas_addresses() == {IPv6Address("2001:db8::99")}


def test_the_fullest_record_fits_into_a_packet() -> None:
    """As much of Class as a grant keeps, the longest names and all addresses of a client are 4096 octets at most."""
    fullest = replace(
        record(1, AccountingStatus.STOP),
        username="x" * 253,
        class_values=(bytes(248),) * (MAX_CLASS_OCTETS // 250),
        chargeable_user_identity=bytes(253),
        ipv6_addresses=tuple(IPv6Address("2001:db8::") + number for number in range(MAX_IPV6_ADDRESSES)),
    )
    settings = config(radius=Radius(accounting_view="client"))
    zone = replace(settings.zones[0], ssid="s" * 253)
    general = replace(settings.general, nas_identifier="n" * 253)
    made = RequestWriter(replace(settings, zones=(zone,), general=general), EvenRandom(1), lambda _zone: GATEWAY_MAC)
    made.set_source("one", IPv6Address("2001:db8::99"))
    data = made.write(server(), AccountingBody(fullest, UNIX, 17), 9).data
    assert len(data) <= MAX_OCTETS
    assert len(decode(data).octets("Class")) == 10


def test_status_server_is_signed_and_names_no_user() -> None:
    """Status-Server carries the signature and who we are (RFC 5997 §3)."""
    made = writer().write(server(), StatusBody(), 9)
    packet = decode(made.data)
    assert (made.code, packet.code) == (Code.STATUS_SERVER, Code.STATUS_SERVER)
    assert made.data[20] == Type.MESSAGE_AUTHENTICATOR
    assert set(packet.names()) == {"Message-Authenticator", "NAS-Identifier", "NAS-IP-Address"}


def test_options_of_the_nas_are_honoured() -> None:
    """Configured address, port type and service are sent, and the SSID can be left out."""
    radius = Radius(nas_ip=IPv4Address("203.0.113.9"), nas_port_type=15, service_type=2, called_station_ssid=False)
    packet = written(access(), radius)
    assert packet.ipv4("NAS-IP-Address") == (IPv4Address("203.0.113.9"),)
    assert packet.integer("NAS-Port-Type") == 15
    assert packet.integer("Service-Type") == 2
    assert packet.texts("Called-Station-Id") == ("02-00-5E-00-00-01",)


def test_a_new_source_address_is_told() -> None:
    """What is encoded once per server is encoded anew when our address changes."""
    made = writer()
    made.write(server(), access(), 1)
    made.set_source("one", IPv4Address("198.51.100.8"))
    assert decode(made.write(server(), access(), 2).data).ipv4("NAS-IP-Address") == (IPv4Address("198.51.100.8"),)


def test_authenticators_differ() -> None:
    """Two requests for the same login never share an authenticator."""
    made = writer()
    assert made.write(server(), access(), 1).authenticator != made.write(server(), access(), 1).authenticator
