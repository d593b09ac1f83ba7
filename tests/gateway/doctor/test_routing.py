"""Guards, sysctls, marks and offload, judged from listings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, Zone
from gateway.datapath.program import name_of
from gateway.doctor import routing
from gateway.doctor.interfaces import Link
from gateway.doctor.routing import Foreign, Rule, meets_our_marks, read_foreign
from gateway.doctor.rows import State

CONFIG = Config(zones=(Zone(name="guest", interface="br-guest"),))
GUARDS = [Rule(version, 100, "br-guest", 0, routing.WHOLE_MARK, routing.PROHIBIT, 0) for version in (4, 6)]
NOTHING = Foreign({}, ())
LINKS = [Link(3, "br-guest", 0, True, True, ()), Link(4, "lan1", 3, True, True, ()), Link(5, "lan2", 0, True, True, ())]


def test_a_guard_of_each_family_is_demanded() -> None:
    """One that is missing is named; a rule that looks like it for another interface does not count."""
    row = routing.judge_guards(CONFIG, GUARDS, LINKS, {})
    assert row.state is State.OK
    assert "slow" in row.text
    row = routing.judge_guards(CONFIG, [GUARDS[0], replace(GUARDS[1], interface="br-other")], LINKS, {})
    assert row.state is State.FAIL
    assert "br-guest (IPv6)" in row.text
    assert "br-guest (IPv4)" not in row.text


def test_a_seal_needs_no_rules_and_is_the_interfaces_own() -> None:
    """A filter of another version, or on another interface, is none; an interface that is not there needs none."""
    sealed = routing.judge_guards(CONFIG, [], LINKS, {3: name_of("br-guest")})
    assert (sealed.state, "slow" in sealed.text) == (State.OK, False)
    for other in ({}, {3: "postern 0000000000000000"}, {4: name_of("br-guest")}):
        assert routing.judge_guards(CONFIG, [], LINKS, other).state is State.FAIL
    assert routing.judge_guards(CONFIG, [], [], {}).state is State.OK
    assert routing.judge_guards(Config(), [], LINKS, {}).state is State.SKIPPED


@pytest.mark.parametrize(
    ("mark", "mask", "ours"),
    [
        (0x100, 0x3F00, True),  # mwan3 as it comes: a client's number may have these bits
        (0x3F000000, 0x3F000000, False),  # mwan3 out of our way
        (0x80000, 0xFF0000, False),  # Tailscale
        (0xCA6C, 0xFFFFFFFF, True),  # WireGuard's own port as mark is a client's number
        (0x10001, 0xFFFFFFFF, True),
        (0x10003, 0xFFFFFFFF, False),
        (0x4000, 0x4000, True),
        (0x1, 0x2, False),  # met by nothing
        (0, 0xFF000000, True),  # met by whatever has no high bits
    ],
)
def test_which_marks_of_others_are_ours(mark: int, mask: int, ours: bool) -> None:
    """A rule is in our way when some guest's packet would meet it."""
    assert meets_our_marks(mark, mask) is ours
    row = routing.judge_mark_users(CONFIG, [*GUARDS, Rule(4, 1000, "", mark, mask, 1, 100)], NOTHING)
    assert (row.state is State.WARN) is ours


def test_rules_for_other_interfaces_and_without_marks_are_no_matter() -> None:
    """Only what guests' packets meet counts; an inverted rule is met by nearly all."""
    rule = Rule(4, 1000, "eth9", 0x100, 0xFF00, 1, 100)
    plain = Rule(4, 32766, "", 0, None, 1, 254)
    assert routing.judge_mark_users(CONFIG, [rule, plain], None).state is State.OK
    inverted = replace(rule, interface="", mark=0x80000, mask=0xFF0000, is_inverted=True)
    assert "not fwmark" in routing.judge_mark_users(CONFIG, [inverted], None).text


def listing(*items: dict[str, object]) -> str:
    """As nft prints it."""
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *items]})


def test_offload_over_a_bridge_port_of_guests_fails() -> None:
    """The flowtable is named; one over other ports is left alone, and no listing means no verdict."""
    table = {"family": "inet", "table": "fw4", "name": "ft"}
    touching = read_foreign(listing({"flowtable": {**table, "dev": ["lan1", "wan0"]}}), "postern")
    row = routing.judge_offload(CONFIG, LINKS, touching)
    assert row.state is State.FAIL
    assert "table inet fw4, flowtable ft" in row.text
    apart = read_foreign(listing({"flowtable": {**table, "dev": "lan2"}}), "postern")
    assert routing.judge_offload(CONFIG, LINKS, apart).state is State.OK
    assert routing.judge_offload(CONFIG, LINKS, None).state is State.SKIPPED


def test_chains_that_set_marks_are_named_but_not_ours() -> None:
    """mwan3 is known by its chains, others by what their rules do; reading a mark is harmless."""
    sets = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
    reads = {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 7}}
    found = read_foreign(
        listing(
            {"chain": {"family": "ip", "table": "mangle", "name": "mwan3_hook"}},
            {"rule": {"family": "inet", "table": "qos", "chain": "tag", "expr": [reads, sets]}},
            {"rule": {"family": "inet", "table": "look", "chain": "only", "expr": [reads]}},
            {"rule": {"family": "inet", "table": "postern", "chain": "held_guest", "expr": [sets]}},
        ),
        "postern",
    )
    assert found.marking == ("table ip mangle (mwan3)", "table inet qos, chain tag")
    assert routing.judge_mark_users(CONFIG, GUARDS, found).state is State.WARN


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda deep: (
            st.lists(deep)
            | st.dictionaries(
                st.sampled_from(
                    ["nftables", "rule", "chain", "flowtable", "expr", "mangle", "key", "meta", "dev", "family"]
                ),
                deep,
            )
        ),
    )
)
def test_no_listing_breaks_the_reader(document: object) -> None:
    """Whatever JSON a tool prints, it is read or refused."""
    try:
        read_foreign(json.dumps(document), "postern")
    except ValueError:
        pass


def test_sysctls_that_differ_are_named_and_absent_ones_are_not() -> None:
    """What a system lacks needs no setting; forwarding that is left to the operator is not judged."""
    wanted = [("bridge/bridge-nf-call-iptables", "0"), ("ipv4/ip_forward", "1")]
    present: dict[str, str | None] = {"bridge/bridge-nf-call-iptables": None, "ipv4/ip_forward": "0"}
    forwarding, rest = routing.judge_sysctls(wanted, present)
    assert (forwarding.state, rest.state) == (State.FAIL, State.OK)
    assert "net.ipv4.ip_forward is 0, not 1" in forwarding.text
    assert routing.judge_sysctls(wanted[:1], {})[0].state is State.SKIPPED


def test_a_table_that_was_lost_is_told_for_a_day() -> None:
    """What is wrong now fails; what was put back warns, and after a day no more."""
    assert routing.judge_table("postern", ["it is gone"], None, 0).state is State.FAIL
    row = routing.judge_table("postern", [], 7200, 2)
    assert row.state is State.WARN
    assert "2 h ago (2 times" in row.text
    assert routing.judge_table("postern", [], 90_000, 2).state is State.OK
