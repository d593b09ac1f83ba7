"""What the first-boot script makes of a router's configuration, under a stand-in for `uci`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.uci import parse
from openwrt.packages import FEED

SCRIPT = FEED / "postern/files/etc/uci-defaults/90-postern"
STAND_IN = Path(__file__).with_name("uci.py")
State = dict[str, Any]  # Any: JSON


def shipped() -> list[Any]:
    """Our configuration file as the stand-in's sections."""
    text = (FEED / "postern/files/etc/config/postern").read_text(encoding="utf-8")
    return [
        [
            section.type,
            section.name,
            {name: value.text for name, value in section.options.items()}
            | {name: [value.text for value in values] for name, values in section.lists.items()},
        ]
        for section in parse(text)
    ]


@pytest.fixture
def router() -> State:
    """A router as it comes: LAN bridge, WAN port, one radio."""
    return {
        "network": [
            ["device", "", {"name": "br-lan", "type": "bridge", "ports": ["lan1", "lan2"]}],
            ["interface", "lan", {"device": "br-lan", "proto": "static", "ipaddr": "192.168.1.1"}],
            ["interface", "wan", {"device": "eth1", "proto": "dhcp"}],
        ],
        "dhcp": [
            ["dnsmasq", "", {"domainneeded": "1", "domain": "lan"}],
            ["dhcp", "lan", {"interface": "lan", "start": "100"}],
        ],
        "firewall": [
            ["zone", "", {"name": "lan", "network": ["lan"], "input": "ACCEPT"}],
            ["zone", "", {"name": "wan", "network": ["wan"], "input": "REJECT"}],
        ],
        "wireless": [
            ["wifi-device", "radio0", {"band": "5g"}],
            ["wifi-iface", "default_radio0", {"device": "radio0", "network": "lan", "ssid": "Home"}],
        ],
        "postern": shipped(),
    }


def after(tmp_path: Path, state: State, times: int = 1) -> State:
    """The configuration after the script has run, some times."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "uci").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} "$@"\n')
    (tools / "uci").chmod(0o755)
    place = tmp_path / "state.json"
    place.write_text(json.dumps(state))
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "UCI_STATE": str(place)}
    for _ in range(times):
        done = subprocess.run(["dash", str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    result: State = json.loads(place.read_text())
    return result


def options(state: State, package: str, name: str) -> dict[str, Any]:  # Any: a value or a list
    """The options of a named section."""
    [found] = [section[2] for section in state[package] if section[1] == name]
    return dict(found)


def test_guests_get_a_bridge_a_zone_and_an_ssid_that_is_off(tmp_path: Path, router: State) -> None:
    """A network of its own, forwarded to the Internet by the system's firewall, which leaves the rest to our table."""
    state = after(tmp_path, router)
    assert options(state, "network", "br_postern")["name"] == "br-postern"
    assert options(state, "network", "postern") == {"proto": "none", "device": "br-postern"}
    assert options(state, "dhcp", "postern") == {"interface": "postern", "ignore": "1"}
    assert state["dhcp"][0][2]["notinterface"] == ["postern"]
    assert options(state, "firewall", "postern")["input"] == "REJECT"
    assert options(state, "firewall", "postern_wan") == {"src": "postern", "dest": "wan"}
    assert options(state, "wireless", "postern") | {
        "disabled": "1",
        "network": "postern",
        "device": "radio0",
    } == options(state, "wireless", "postern")
    assert state["/commits"] == ["network", "dhcp", "firewall", "wireless", "postern"]


def test_the_bridge_is_the_one_that_the_configuration_names(tmp_path: Path, router: State) -> None:
    """And the uplink and the operator's side are those of this router."""
    router["network"][1][2]["device"] = "eth0"
    state = after(tmp_path, router)
    assert options(state, "postern", "guest")["interface"] == options(state, "network", "br_postern")["name"]
    assert options(state, "postern", "network")["uplink"] == ["eth1"]
    assert options(state, "postern", "admin")["interface"] == ["lo", "eth0"]


def test_a_dial_up_line_is_the_uplink_and_not_its_port(tmp_path: Path, router: State) -> None:
    """Packets to the Internet leave by the tunnel that netifd makes."""
    router["network"][2][2]["proto"] = "pppoe"
    state = after(tmp_path, router)
    assert options(state, "postern", "network")["uplink"] == ["pppoe-wan"]


def test_run_again_nothing_changes(tmp_path: Path, router: State) -> None:
    """An upgrade runs it once more."""
    once = after(tmp_path, router)
    twice = after(tmp_path, router, times=2)
    once.pop("/commits")
    twice.pop("/commits")
    assert once == twice


def test_what_was_there_is_as_it_was(tmp_path: Path, router: State) -> None:
    """The operator is not cut off: no section of the system's is changed, but that dnsmasq leaves our bridge alone."""
    before = copy.deepcopy(router)
    state = after(tmp_path, router)
    for package in ("network", "firewall", "wireless"):
        assert state[package][: len(before[package])] == before[package]
    before["dhcp"][0][2]["notinterface"] = ["postern"]
    assert state["dhcp"][: len(before["dhcp"])] == before["dhcp"]


def test_a_guest_network_of_the_operators_stays_as_it_is(tmp_path: Path, router: State) -> None:
    """Many routers have one already, with the names that guides give it."""
    router["network"].append(["interface", "guest", {"device": "br-guest", "proto": "static", "ipaddr": "10.0.0.1"}])
    router["dhcp"].append(["dhcp", "guest", {"interface": "guest", "start": "10"}])
    router["dhcp"][0][2]["notinterface"] = ["loopback"]
    router["firewall"].append(["zone", "guest", {"name": "guest", "network": ["guest"]}])
    state = after(tmp_path, router)
    for package in ("network", "dhcp", "firewall"):
        assert router[package][-1] in state[package]
    assert state["dhcp"][0][2]["notinterface"] == ["loopback", "postern"]


def test_a_value_that_the_operator_has_set_is_not_overwritten(tmp_path: Path, router: State) -> None:
    """Not the SSID that is on by now, nor ports, nor addresses, nor the uplink."""
    state = after(tmp_path, router)
    changed: dict[tuple[str, str], dict[str, Any]] = {  # Any: a value or a list
        ("wireless", "postern"): {"disabled": "0", "ssid": "Café", "encryption": "owe"},
        ("network", "postern"): {"proto": "static"},
        ("firewall", "postern_portal"): {"dest_port": "80 4000"},
        ("postern", "network"): {"uplink": ["wwan0"]},
        ("postern", "admin"): {"interface": ["lo", "br-office"]},
    }
    for (package, name), values in changed.items():
        next(section for section in state[package] if section[1] == name)[2].update(values)
    again = after(tmp_path, copy.deepcopy(state))
    for (package, name), values in changed.items():
        found = options(again, package, name)
        assert {option: found[option] for option in values} == values


def test_a_router_without_radio_gets_no_ssid(tmp_path: Path, router: State) -> None:
    """It may have no configuration of one at all."""
    del router["wireless"]
    state = after(tmp_path, router)
    assert "wireless" not in state
    assert options(state, "network", "postern")["device"] == "br-postern"


def test_a_router_without_dnsmasq_is_served_as_well(tmp_path: Path, router: State) -> None:
    """Some have odhcpd alone."""
    router["dhcp"] = router["dhcp"][1:]
    state = after(tmp_path, router)
    assert options(state, "dhcp", "postern")["ignore"] == "1"
