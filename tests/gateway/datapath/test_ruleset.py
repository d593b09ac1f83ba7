"""The rendered ruleset: golden files, what nft says to them, and names that must not get into it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from gateway.addresses import MacAddress
from gateway.config import Config, Garden, Network, Zone
from gateway.config_loader import load
from gateway.datapath.ruleset import (
    MARK_ALLOWED,
    MARK_GARDEN,
    MARK_HELD,
    client_set_size,
    render,
    sealed_mark,
    version_of,
)
from gateway.datapath.table import LoadedSet, replacing

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "ruleset"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
CONFIG = Config(network=Network(uplinks=("eth0",)), zones=(Zone(name="guest", interface="br-guest"),))


@pytest.mark.parametrize("case", CASES)
def test_ruleset_is_as_reviewed(case: str, rewrite_golden: bool) -> None:
    """Every case renders to the reviewed text."""
    folder = GOLDEN / case
    text = render(load((folder / "config.uci").read_text()).config)
    if rewrite_golden:
        (folder / "expected.nft").write_text(text)
    assert text == (folder / "expected.nft").read_text()


@pytest.mark.root
@pytest.mark.parametrize("case", CASES)
def test_nft_accepts_what_was_reviewed(case: str) -> None:
    """The kernel's own tool accepts each golden file, also in place of itself."""
    netns = f"ruleset-{os.getpid()}-{case}"
    text = (GOLDEN / case / "expected.nft").read_text()
    table = re.search(r"table inet (\w+)", text)
    assert table is not None
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        nft = ["ip", "netns", "exec", netns, "nft"]
        for script in (text, f"flush table inet {table[1]}\n{text}"):
            for options in (["-c"], []):
                done = subprocess.run(
                    [*nft, *options, "-f", "-"], input=script, text=True, capture_output=True, check=False
                )
                assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)


@pytest.mark.parametrize("case", CASES)
def test_every_rule_has_its_reason(case: str) -> None:
    """Each rule is one line that says why, in no more than the 128 octets that the kernel keeps."""
    inside_chain = False
    for line in (GOLDEN / case / "expected.nft").read_text().splitlines():
        if line.startswith("\tchain "):
            inside_chain = True
        elif line == "\t}":
            inside_chain = False
        elif inside_chain and not line.strip().startswith("type "):
            reason = re.search(r'comment "([^"]+)"$', line)
            assert reason is not None, line
            assert len(reason[1].encode()) < 128


def test_equal_configurations_give_equal_text() -> None:
    """The version in the text depends on what is rendered, and on nothing else."""
    assert render(CONFIG) == render(CONFIG)
    other = replace(CONFIG, zones=(replace(CONFIG.zones[0], block_macs=(MacAddress(b"\2\0\0\0\0\1"),)),))
    assert version_of(render(other)) != version_of(render(CONFIG))
    assert version_of(render(replace(CONFIG, dhcp=replace(CONFIG.dhcp, probe=False)))) == version_of(render(CONFIG))


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, zones=(Zone(name='x" { } ', interface="br-guest"),)),
        replace(CONFIG, zones=(Zone(name="guest", interface='br"; flush ruleset;'),)),
        replace(CONFIG, network=Network(uplinks=("eth0\n",))),
        replace(CONFIG, network=Network(uplinks=("eth0",), table="a b")),
        replace(CONFIG, zones=(Zone(name="", interface="br-guest"),)),
    ],
)
def test_names_that_would_change_the_meaning_are_refused(config: Config) -> None:
    """Names go into the text only when they are names; anything else is an error before nft sees it."""
    with pytest.raises(ValueError, match="name"):
        render(config)


def test_interfaces_whose_seals_could_not_be_told_apart_are_refused() -> None:
    """A mark follows from the checksum of a name; two names with the same are an error, not a way into another zone."""
    seen: dict[int, str] = {}
    one = other = ""
    for number in range(100_000):
        name = f"br-{number * 2654435761 % 2**32:08x}"
        if (one := seen.setdefault(sealed_mark(name), name)) != name:
            other = name
            break
    assert other, "among so many names two share a checksum of 24 bits"
    config = replace(CONFIG, zones=(Zone(name="a", interface=one), Zone(name="b", interface=other)))
    with pytest.raises(ValueError, match="rename one of them"):
        render(config)


def test_web_beyond_plain_http_is_never_redirected() -> None:
    """No rule translates the destination of anything but port 80 and DNS."""
    for case in CASES:
        for line in (GOLDEN / case / "expected.nft").read_text().splitlines():
            if " redirect" in line or "dnat to" in line:
                assert "tcp dport 80 " in line or "th dport 53 " in line


def test_reserved_marks_are_no_client_numbers() -> None:
    """The marks of garden, allowed and held traffic lie beyond 16 bits and differ."""
    marks = {MARK_GARDEN, MARK_ALLOWED, MARK_HELD}
    assert len(marks) == 3
    assert min(marks) > 0xFFFF


def test_garden_elements_never_overlap() -> None:
    """Prefixes inside others and neighbours are merged per protocol and port: interval sets refuse overlaps."""
    networks = tuple(IPv4Network(text) for text in ("198.51.100.0/24", "198.51.100.4/30", "198.51.101.0/24"))
    text = render(replace(CONFIG, gardens=(Garden(name="g", networks=networks, ports=(443,)),)))
    assert re.findall(r"(\S+) \. tcp \. 443", text) == ["198.51.100.0/23"]


def test_room_for_clients_grows_in_powers_of_two() -> None:
    """A small change of the session limit keeps the sets as they are."""
    assert client_set_size(10_000) == client_set_size(11_000) == 16384
    assert client_set_size(60_000) >= 60_002
    assert client_set_size(1) == 512


def test_replacement_keeps_client_sets_and_removes_what_is_no_longer_there() -> None:
    """In-place replacement flushes rules and configured sets, deletes stale ones, and touches no client's element."""
    text = render(CONFIG)
    loaded = [
        LoadedSet("up", False),
        LoadedSet("auth4_guest", True),
        LoadedSet("auth4_gone", True),
        LoadedSet("allow_guest", False),
        LoadedSet("bind4_gone", False),
    ]
    script = replacing("postern", text, {"base_input": 1, "from_gone": 2, "loaded_0123456789abcdef": 0}, loaded)
    assert script.removesuffix(text).splitlines() == [
        "flush table inet postern",
        "delete chain inet postern from_gone",
        "delete chain inet postern loaded_0123456789abcdef",
        "flush set inet postern allow_guest",
        "delete map inet postern auth4_gone",
        "delete set inet postern bind4_gone",
    ]
