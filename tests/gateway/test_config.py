"""The configuration: what is accepted, and every sentence that says what is not."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import Config, Endpoint, Secret
from gateway.config_example import example
from gateway.config_loader import (
    REPEATED,
    SINGLE,
    ConfigError,
    check,
    check_interfaces,
    load,
    option_fields,
    option_name,
)
from gateway.control.views import option_rows
from gateway.session.model import LoginMethod

SMALLEST = """
config network
	list uplink eth0
config zone guest
	option interface br-guest
"""


def problems(text: str) -> list[str]:
    """All sentences about a text that does not load."""
    with pytest.raises(ConfigError) as caught:
        load(text, "postern")
    return [str(problem) for problem in caught.value.problems]


def test_a_small_file_has_all_defaults() -> None:
    """An uplink and a zone are enough."""
    config = load(SMALLEST).config
    assert config.network.uplinks == ("eth0",)
    (zone,) = config.zones
    assert (zone.name, zone.interface, zone.address) == ("guest", "br-guest", IPv4Interface("10.41.0.1/24"))
    assert config.radius == Config().radius


def test_every_kind_of_value_is_read() -> None:
    """Lists, ranges, prefixes, endpoints, MACs, secrets, choices and switches."""
    config = load(
        SMALLEST
        + """
	option pool '10.41.0.10-10.41.0.20'
	list method click
	list method password
	list allow_mac 02-00-5E-10-00-2A
	option isolate off
	option session_timeout ''
config dns
	list upstream '9.9.9.9'
	list upstream '[2620:fe::fe]:5353'
config radius_server main
	option address 2001:db8::1
	option secret 'a b c d e f'
config garden pay
	list network 203.0.113.0/24
	list network 2001:db8:1::/48
	list port 443
config reservation printer
	option zone guest
	option mac 02:00:5e:10:00:2b
	option address 10.41.0.200
"""
    ).config
    (zone,) = config.zones
    assert zone.pool == Ipv4Range(IPv4Address("10.41.0.10"), IPv4Address("10.41.0.20"))
    assert zone.methods == (LoginMethod.CLICK, LoginMethod.PASSWORD)
    assert zone.allow_macs == (MacAddress.parse("02:00:5e:10:00:2a"),)
    assert zone.isolate is False
    assert zone.session_timeout is None
    assert config.dns.upstreams == (
        Endpoint(IPv4Address("9.9.9.9"), 53),
        Endpoint(ip_address("2620:fe::fe"), 5353),
    )
    (server,) = config.radius.servers
    assert server.secret.reveal() == "a b c d e f"
    assert config.gardens[0].networks[0] == IPv4Network("203.0.113.0/24")
    assert config.gardens[0].ports == (443,)


def test_a_secret_never_prints_itself() -> None:
    """Not in a repr of the whole tree, not in a format string, not in the rows that an operator sees."""
    loaded = load(
        SMALLEST + "config radius_server main\n\toption address 192.0.2.1\n\toption secret 'hush-hush-hush'\n"
    )
    assert "hush" not in repr(loaded.config)
    assert "hush" not in f"{loaded.config.radius.servers[0].secret}"
    assert "hush" not in str(list(option_rows(loaded, effective=True, filename="postern")))
    assert isinstance(loaded.config.radius.servers[0].secret, Secret)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "config zone guest\n\toption interfce br0\n",
            "postern:2: zone 'guest': 'interfce' is not a known option; did you mean interface?",
        ),
        ("config zon guest\n", "postern:1: 'zon' is not a known section type; did you mean zone?"),
        (
            "config zone a\n\toption lease_time 5\n",
            "postern:2: zone 'a', option lease_time: '5' is too small; give 120 to 604800 s",
        ),
        ("config uam\n\toption port 99999\n", "postern:2: uam, option port: '99999' is too large; give at most 65535"),
        ("config uam\n\toption port ninety\n", "postern:2: uam, option port: 'ninety' is not a whole number"),
        (
            "config uam\n\toption rate_limit nan\n",
            "postern:2: uam, option rate_limit: 'nan' is not a number such as 2.5",
        ),
        ("config postern\n\toption enabled maybe\n", "postern:2: postern, option enabled: 'maybe' is neither 1 nor 0"),
        ("config postern\n\toption log_level inf\n", "is not one of debug, info, warning, error; did you mean info?"),
        (
            "config zone a\n\toption address 10.0.0.1/33\n",
            "'10.0.0.1/33' is not an address with its prefix such as 10.41.0.1/24",
        ),
        ("config zone a\n\tlist block_mac 02:00\n", "'02:00' is not a MAC address such as 02:00:5e:10:00:2a"),
        ("config zone a\n\toption pool 10.0.0.9-10.0.0.1\n", "is not a range such as"),
        ("config dns\n\tlist upstream 9.9.9.9:dns\n", "is not an address and port such as 192.0.2.1:53"),
        ("config garden g\n\tlist network 10.0.0.1/8\n", "is not a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
        (
            "config radius_server r\n\toption secret abc\n",
            "radius_server 'r', option secret: is too short (3 characters); use at least 8",
        ),
        (
            "config radius_server r\n",
            "radius_server 'r', option address: is missing; give a value such as '192.0.2.10'",
        ),
        ("config uam\nconfig uam\n", "postern:2: section uam: stands twice; keep one"),
        ("config postern\n\toption nas_identifier ''\n", "option nas_identifier: '' is empty; give a value"),
        ("config postern\n\toption state_dir ''\n", "option state_dir: '' is empty; give a value"),
        ("config zone a\n\toption interface\n", "postern:2: option takes a name and one value; here is no value"),
        ("config zone a\n\toption interface a b\n", "put a value with blanks in quotes"),
        ("option interface a\n", "postern:1: option stands before the first config line"),
        ("config zone 'a\n", "postern:1: a single quote is opened here and never closed"),
        ("interface a\n", "postern:1: a line begins with config, option or list, not with 'interface'"),
    ],
)
def test_each_mistake_is_a_sentence_with_its_place_and_remedy(text: str, sentence: str) -> None:
    """File, line, section, option, value, and what would be accepted."""
    assert any(sentence in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("config zone a\n\toption interface br0\n", "network, option uplink: is missing"),
        (
            SMALLEST + "config zone b\n\toption interface br-guest\n\toption address 10.9.0.1/24\n",
            "is already that of zone 'guest'",
        ),
        (
            SMALLEST + "config zone b\n\toption interface br1\n\toption address 10.41.0.129/25\n",
            "overlaps zone 'guest' (10.41.0.0/24)",
        ),
        (SMALLEST + "\toption pool 10.42.0.10-10.42.0.20\n", "is not within the zone's prefix 10.41.0.0/24"),
        (SMALLEST + "\tlist relay 10.42.0.5\n", "'10.42.0.5' is not another host's address in the zone's prefix"),
        (SMALLEST + "\tlist relay 10.41.0.1\n", "'10.41.0.1' is not another host's address in the zone's prefix"),
        (SMALLEST + "\toption pool 10.41.0.1-10.41.0.20\n", "holds the gateway's own address 10.41.0.1"),
        (SMALLEST + "\toption pool 10.41.0.200-10.41.0.255\n", "holds the network or broadcast address"),
        (SMALLEST + "\toption address 10.41.0.0/24\n", "is not a host's address; use one such as 10.41.0.1/24"),
        (SMALLEST + "\toption address 10.41.0.1/31\n", "has a prefix that is too long or too short"),
        (SMALLEST + "\toption address 224.0.0.1/24\n", "is not an address that a network can have"),
        (SMALLEST + "\toption address 127.0.0.1/24\n", "is not an address that a network can have"),
        ("config network\n\tlist uplink br0\nconfig zone a\n\toption interface br0\n", "is an uplink as well"),
        (
            SMALLEST + "config garden g\n\toption zone gest\n\tlist network 192.0.2.0/24\n",
            "is not a zone; there are: guest",
        ),
        (
            SMALLEST
            + "config reservation r\n\toption zone guest\n\toption mac 02:00:00:00:00:01\n\toption address 10.9.9.9\n",
            "is not a host's address of zone 'guest' (10.41.0.0/24)",
        ),
        (
            SMALLEST
            + "config reservation r\n\toption zone guest\n\toption mac 02:00:00:00:00:01\n\toption address 10.41.0.1\n",
            "is the gateway's own address",
        ),
        (
            SMALLEST + "config dns\n\toption portal_name 'log in'\n",
            "dns, option portal_name: 'log in' is not a host name",
        ),
        (SMALLEST + "config dns\n\toption portal_name größe.lan\n", "'größe.lan' is not a host name"),
        (SMALLEST + "config dns\n\toption status_name 10.41.0.1\n", "'10.41.0.1' is not a host name"),
        (SMALLEST + "config dns\n\toption status_name status..lan\n", "'status..lan' is not a host name"),
        (SMALLEST + "config dns\n\toption status_name status.lan.\n", "'status.lan.' is not a host name"),
        (SMALLEST + f"config dns\n\toption status_name {'a' * 64}.lan\n", "is not a host name; use letters"),
        (SMALLEST + f"config dns\n\toption status_name {'a.' * 130}lan\n", "is not a host name; use letters"),
        (
            SMALLEST + "config dns\n\toption status_name LOGIN.postern.lan\n",
            "dns, option status_name: 'LOGIN.postern.lan' is the portal_name too",
        ),
        ("config network\n\tlist uplink eth0\n\toption table 'a b'\n", "option table: 'a b' is not a table's name"),
        ("config network\n\tlist uplink eth0\n\toption table 1st\n", "option table: '1st' is not a table's name"),
        ("config network\n\tlist uplink eth0\n\toption table fw4\n", "'fw4' is the table of another firewall"),
        (
            f"config network\n\tlist uplink eth0\nconfig zone {'z' * 33}\n\toption interface br0\n",
            f"postern:3: zone '{'z' * 33}': '{'z' * 33}' is not a zone's name; use a letter",
        ),
        (
            "config network\n\tlist uplink eth0\nconfig zone 1st\n\toption interface br0\n",
            "postern:3: zone '1st': '1st' is not a zone's name",
        ),
        (
            "config network\n\tlist uplink eth0\nconfig zone a\n\toption interface 'br \"0'\n",
            "is not an interface's name; they have at most 15 characters",
        ),
        ("config network\n\tlist uplink a-name-that-is-too-long\n", "option uplink: 'a-name-that-is-too-long' is not"),
        (SMALLEST + "config uam\n\toption port 53\n", "uam, option port: '53' is the port of DNS"),
        (
            SMALLEST + "config metrics\n\toption listen 0.0.0.0:3990\n",
            "metrics, option listen: '0.0.0.0:3990' is the port of the portal in the zones",
        ),
        (SMALLEST + "config metrics\n\toption listen 10.41.0.1:53\n", "'10.41.0.1:53' is the port of DNS in the zones"),
        (SMALLEST + "config admin\n\tlist interface br-guest\n", "'br-guest' is that of guests (zone 'guest')"),
        (SMALLEST + "config admin\n\tlist interface 'a b'\n\tlist interface x/y\n", "'x/y' is not an interface's name"),
        (SMALLEST + "config admin\n\toption certificate /etc/a.pem\n", "option certificate_key: is missing"),
        (
            SMALLEST + "config admin\n\toption port 2112\n",
            "metrics, option listen: '127.0.0.1:2112' is the port of the administration",
        ),
        (
            SMALLEST + "config garden g\n\tlist network 0.0.0.0/0\n",
            "garden 'g', option network: '0.0.0.0/0' is the whole",
        ),
        (
            SMALLEST + "config garden g\n\tlist network 128.0.0.0/1\n\tlist network 0.0.0.0/1\n",
            "is the whole Internet, open to all without login",
        ),
        (SMALLEST + "config garden g\n\tlist network ::/0\n", "is the whole Internet, open to all without login"),
        (SMALLEST + "\tlist allow_mac 02:00:00:00:00:01\n\tlist block_mac 02:00:00:00:00:01\n", "is also in allow_mac"),
    ],
)
def test_sections_that_do_not_fit_together_are_said(text: str, sentence: str) -> None:
    """What no single option can know."""
    assert any(sentence in problem for problem in problems(text)), problems(text)


def test_listeners_that_do_not_meet_may_share_a_port() -> None:
    """Metrics on the loopback take nothing from the portal, nor those that are not served."""
    for text in ("\toption listen 127.0.0.1:3990\n", "\toption enabled 0\n\toption listen 0.0.0.0:3990\n"):
        assert load(SMALLEST + "config metrics\n" + text).config.metrics.listen.port == 3990


def test_all_problems_are_said_at_once_in_the_order_of_the_file() -> None:
    """An operator mends the file in one go."""
    found = problems("config uam\n\toption port x\n\toption rate_limit y\nconfig zne\n")
    assert [line.split(":")[1] for line in found] == ["2", "3", "4"]


def test_sections_that_do_not_fit_are_said_beside_values_that_cannot_be_read() -> None:
    """Checking does not stop at the first kind of problem: overlapping zones beside a mistyped option elsewhere."""
    text = (
        SMALLEST + "config zone b\n\toption interface br1\n\toption address 10.41.0.129/25\n\toption colour red\n"
        "config radius_server r\n\toption address 192.0.2.1\n\toption secret abc\n"
        "config reservation p\n\toption zone nowhere\n\toption mac 02:00:00:00:00:01\n\toption address 10.41.0.9\n"
    )
    found = problems(text)
    wanted = ("overlaps zone 'guest'", "'colour' is not", "is too short", "'nowhere' is not a zone")
    assert [sentence in line for sentence, line in zip(wanted, found, strict=True)] == [True] * 4, found


@pytest.mark.parametrize(
    "text",
    [
        # A default that stands in the place of what could not be read fits nothing, and nobody wrote it.
        SMALLEST + "config zone b\n\toption interface br1\n\toption address 10.41.0.1/33\n",
        SMALLEST + "config admin\n\toption port x\nconfig metrics\n\toption listen 127.0.0.1:8443\n",
        "config network\n\tlist uplink eth0\nconfig zon guest\n\toption interface br0\n"
        "config reservation p\n\toption zone guest\n\toption mac 02:00:00:00:00:01\n\toption address 10.41.0.9\n",
        "config netwrk\n\tlist uplink eth0\nconfig zone guest\n\toption interface br0\n",
    ],
)
def test_what_could_not_be_read_is_held_against_nothing(text: str) -> None:
    """One mistake is said once, without others that would follow from it."""
    assert len(problems(text)) == 1, problems(text)


def test_an_interface_that_is_not_there_is_said_with_those_that_are() -> None:
    """The system is asked only after the file is right."""
    loaded = load(SMALLEST)
    (problem,) = check_interfaces(loaded, ["lo", "eth0", "wlan0"], "postern")
    assert str(problem) == (
        "postern:5: zone 'guest', option interface: 'br-guest' is not an interface of this system "
        "(it has: eth0, wlan0); create it, or name the right one"
    )


def test_a_missing_interface_is_said_together_with_all_else() -> None:
    """Checking does not stop at the first kind of problem."""
    text = "config network\n\tlist uplink wan9\nconfig zone a\n\toption interface br9\n\toption lease_time 5\n"
    found = [str(problem) for problem in check(text, "postern", ["lo"])]
    assert ["wan9" in found[0], "br9" in found[1], "too small" in found[2]] == [True, True, True], found


def test_an_option_of_a_newer_version_is_a_warning_only_at_the_start_of_the_system() -> None:
    """A system that was rolled back starts; a check or a reload says what is not known."""
    text = SMALLEST + "\toption colour blue\nconfig postern\n\toption schema 2\n"
    assert "'colour' is not a known option" in str(load(text, lenient=True).warnings[0])
    assert len(problems(text)) == 1
    with pytest.raises(ConfigError):
        load(SMALLEST + "\toption colour blue\n", lenient=True)


def test_the_predecessors_names_are_understood() -> None:
    """Classic keys are aliases of ours."""
    assert load(SMALLEST + "config radius\n\toption coaport 1700\n").config.radius.coa_port == 1700


def test_the_example_in_the_documentation_is_the_one_that_is_made() -> None:
    """Write it anew with `posternd --example` when an option changes."""
    documented = Path(__file__).resolve().parents[2] / "docs" / "postern.conf.example"
    assert documented.read_text(encoding="utf-8") == example()


def test_the_example_names_every_option_and_loads() -> None:
    """Nothing that can be set is left out, and the file is right as it is."""
    text = example()
    assert load(text).config.zones[0].name == "guest"
    sections: list[tuple[str, type[Any]]] = [(kind, made) for kind, (_, made) in [*SINGLE.items(), *REPEATED.items()]]
    for kind, made in sections:
        assert f"config {kind}" in text
        for item in option_fields(made):
            assert f" {option_name(item)} '" in text, (kind, option_name(item))


def test_the_whole_example_loads_with_every_comment_taken_off() -> None:
    """The defaults that it shows are values that the loader takes."""
    lines = [line[1:] if line.startswith(("#\t", "#config")) else line for line in example().splitlines()]
    text = "\n".join(lines).replace("option zone ''", "option zone guest").replace("'example'", "example")
    kept = [line for line in text.splitlines() if not line.rstrip().endswith("''")]
    loaded = load("\n".join(kept))
    assert len(loaded.config.reservations) == 1
    assert loaded.config.performance == Config().performance


def test_every_option_is_described() -> None:
    """Each field that a section reads has a sentence, and each section's fields are options or made from others."""
    for attribute, made in [*SINGLE.values(), *REPEATED.values()]:
        for item in fields(made):
            if item.name in ("name", "servers"):
                continue
            assert item.metadata["doc"].endswith((".", ")")), (attribute, item.name)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    """Garbage never raises anything else."""
    with contextlib.suppress(ConfigError):
        load(text)
