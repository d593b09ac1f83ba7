"""Tokens, hosts, ways on, notes, who is online, and the daemon's values: pure functions and small states."""

from __future__ import annotations

import copy
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from tests.webui.fake_daemon import FakeDaemon
from webui.messages import Request
from webui.portal.model import ContractError, read_client, read_config, read_login_reply
from webui.portal.notes import NoteLimiter
from webui.portal.online import OnlineClients
from webui.portal.redirect import MAX_ORIGINAL_URL, host_and_target, original_url, split_port, to_portal, way_on
from webui.portal.tokens import LIFETIME_S, make_token, read_token

SECRET = bytes(range(16))
MAC = MacAddress.parse("02:00:5e:10:00:2a")
OTHER = MacAddress.parse("02:00:5e:10:00:2b")
IP = "10.41.0.20"


def test_a_token_is_good_for_its_form_address_zone_and_time() -> None:
    """And for nothing else; it says whose it is."""
    token = make_token(SECRET, "login", "guests", IP, MAC, 1000.0)

    def read(
        text: str = token,
        secret: bytes = SECRET,
        purpose: str = "login",
        zone: str = "guests",
        ip: str = IP,
        now: float = 1000.0,
    ) -> MacAddress | None:
        return read_token(text, secret, purpose, zone, ip, now)

    assert read() == MAC
    assert read(now=999.0 + LIFETIME_S) == MAC
    assert read(now=1000.0 + LIFETIME_S) is None
    assert read(purpose="logout") is None
    assert read(zone="staff") is None
    assert read(ip="10.41.0.21") is None
    assert read(secret=bytes(16)) is None
    end, mac, digest = token.split(".")
    assert read(f"{int(end, 16) + 5:x}.{mac}.{digest}") is None
    assert read(f"{end}.{OTHER.hex()}.{digest}") is None
    assert read(f"{end}.{mac.upper()}.{digest}") is None
    assert read(token + "\n") is None


@given(st.binary(min_size=16, max_size=200), st.text(st.characters(exclude_characters="\0"), max_size=20))
def test_a_tokens_proof_is_the_hmac_of_the_standard(secret: bytes, purpose: str) -> None:
    """HMAC-SHA256 (RFC 2104) as the library makes it, for keys of any length."""
    head, _, digest = make_token(secret, purpose, "guests", IP, MAC, 1000.0).rpartition(".")
    text = "\0".join((purpose, "guests", IP, head)).encode()
    assert hmac.digest(secret, text, "sha256").hex().startswith(digest)
    assert len(digest) == 32


def test_a_token_of_before_a_reboot_is_not_good_for_longer() -> None:
    """The monotonic clock began again; a token that ends far in the future is not ours."""
    token = make_token(SECRET, "login", "guests", IP, MAC, 1e6)
    assert read_token(token, SECRET, "login", "guests", IP, 5.0) is None


@given(st.text(max_size=80))
def test_no_text_is_a_token(text: str) -> None:
    """Nor does any text raise."""
    assert read_token(text, SECRET, "login", "guests", IP, 1000.0) is None


@pytest.mark.parametrize(
    ("host", "target", "expected"),
    [
        ("example.com", "/a?b", ("example.com", "/a?b")),
        ("EXAMPLE.com:8080", "/", ("example.com:8080", "/")),
        ("ours", "http://theirs/x", ("theirs", "/x")),
        ("ours", "HTTP://Theirs:81?x", ("theirs:81", "/?x")),
        ("ours", "https://theirs", ("theirs", "/")),
        ("ours", "*", ("ours", "/")),
    ],
)
def test_the_host_of_a_request(host: str, target: str, expected: tuple[str, str]) -> None:
    """The absolute form decides over the Host field (RFC 9112 §3.2.2)."""
    assert host_and_target(Request("GET", target, 1, {"host": host}, "")) == expected


def test_ports_of_hosts() -> None:
    """No port is 80; what is no number is none of ours."""
    assert split_port("a") == ("a", 80)
    assert split_port("a:3990") == ("a", 3990)
    assert (
        split_port("a:")[1]
        == split_port("a:x")[1]
        == split_port("a:999999")[1]
        == split_port("a:b:1")[1]
        == split_port("a:4\xb9")[1]
        == -1
    )


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "[fe80::1]", "é.example", "-", "a:port", "a" * 300])
def test_an_address_with_a_host_that_is_none_is_not_carried(host: str) -> None:
    """The redirect then goes to the portal alone."""
    assert original_url(host, "/x") == ""
    assert dict(to_portal("http://10.41.0.1:3990", "").headers)["Location"] == "http://10.41.0.1:3990/"


def test_a_very_long_address_is_carried_without_its_path() -> None:
    """The redirect stays small."""
    assert original_url("a.example", "/" + "x" * 2000) == "http://a.example/"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=300))
def test_the_redirect_carries_any_target_safely(target: str) -> None:
    """One parameter, no octet that could leave the header or the html attribute."""
    response = to_portal("http://10.41.0.1:3990", original_url("a.example", "/" + target))
    location = dict(response.headers)["Location"]
    assert not set(location) & set("\r\n \"<>'\\^`{|}#&")
    assert isinstance(response.body, bytes)
    assert response.body.count(b'"') == 6  # lang, charset, href


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "data:text/html,x",
        "//a.example/",
        "http:///x",
        "http://user@a.example/",
        "http://a.example\\@b.example/",
        "http://a.example/ x",
        "http://a.example/\n",
        "http://[::1",
        "ftp://a.example/",
        "http://captive.apple.com/hotspot-detect.html",
        "http://www.msftconnecttest.com/redirect",
        "http://connectivity-check.ubuntu.com",
        "http://a.example/" + "x" * MAX_ORIGINAL_URL,
    ],
)
def test_addresses_that_are_no_way_on(url: str) -> None:
    """Scripts, tricks, and the questions of systems."""
    assert way_on(url) == ""


@given(st.text(max_size=60))
def test_any_text_is_a_way_on_or_not(text: str) -> None:
    """No exception, and only http and https."""
    assert way_on(text) == "" or text.startswith(("http://", "https://", "HTTP", "Http", "hTTP"))


def test_notes_are_one_per_client_and_kind_in_five_seconds() -> None:
    """And the table is bounded."""
    notes = NoteLimiter()
    assert [notes.allows("a", "probe", now) for now in (0.0, 1.0, 4.9, 5.0, 6.0)] == [True, False, False, True, False]
    assert notes.allows("a", "page", 1.0)
    assert notes.allows("b", "probe", 1.0)
    for number in range(40_000):
        notes.allows(str(number), "probe", 7.0)
    assert len(notes._noted) <= 16384


def test_online_clients_are_bounded_and_doubted_when_they_come_back_too_often() -> None:
    """Four returns in ten seconds are believed."""
    online = OnlineClients()
    assert not online.bounced("a", 0.0)
    online.set("a", online=True)
    assert [online.bounced("a", now) for now in (0.0, 1.0, 2.0, 3.0, 4.0, 20.0)] == [False] * 4 + [True, False]
    for number in range(70_000):
        online.set(str(number), online=True)
    assert len(online) == 65536
    online.clear()
    assert "5" not in online


def test_the_configuration_of_the_daemon_is_read() -> None:
    """Missing options have the defaults of the configuration."""
    config = read_config(FakeDaemon(3990, uam={"login_timeout": 7}).config())
    assert (config.uam.login_timeout, config.uam.login_attempts, config.uam.rate_limit_enabled) == (7, 5, False)
    (zone,) = config.zones
    assert zone.origin == "http://127.0.0.1:3990"
    assert str(zone.network) == "127.0.0.0/8"


def test_values_of_a_different_version_are_named() -> None:
    """One wrong value at a time, anywhere in the tree: ContractError, never another exception."""
    good: Any = FakeDaemon(3990, uam={"login_timeout": 7}).config()
    for path in (["portal_name"], ["uam"], ["uam", "login_timeout"], ["csrf_secret"], ["zones"]):
        for bad in (5, [1], "zz", {"login_timeout": "x"}):
            tree = copy.deepcopy(good)
            place = tree
            for key in path[:-1]:
                place = place[key]
            if type(place[path[-1]]) is type(bad) and path[-1] not in ("csrf_secret", "uam", "zones"):
                continue  # a good value, as far as types go
            place[path[-1]] = bad
            with pytest.raises(ContractError):
                read_config(tree)
    for key in ("name", "address", "prefix", "port", "methods", "title"):
        tree = copy.deepcopy(good)
        tree["zones"][0][key] = ["none"] if key == "methods" else {}
        with pytest.raises(ContractError):
            read_config(tree)
    clients: tuple[object, ...] = (None, 5, [], {}, {"mac": "x", "state": "held"}, {"mac": str(MAC), "state": "asleep"})
    for value in clients:
        with pytest.raises(ContractError):
            read_client(value)
    replies: tuple[object, ...] = (None, {}, {"result": 5}, {"result": "perhaps"})
    for value in replies:
        with pytest.raises(ContractError):
            read_login_reply(value)
