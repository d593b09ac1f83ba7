"""Changes to the configuration's text: what was asked for is changed, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config_change import (
    MARK,
    AddSection,
    ChangeError,
    RemoveSection,
    SetOption,
    apply,
    cuts_off,
    difference,
    masked,
    read_changes,
    sentences,
    unmasked,
)
from gateway.config_example import example
from gateway.config_loader import load
from gateway.session.model import LoginMethod

TEXT = """\
# The hotel's gateway. Ask Anna before you change anything.
config postern
	option nas_identifier 'hotel'   # as the provider has it

config network
	list uplink 'eth0'
	#list uplink 'wwan0'

config zone 'guest'
	option interface 'br-guest'
	# Nights are long.
	# option lease_time '3600'
	list method 'click'
	list method "password"

#config garden 'example'
#	option zone ''

config radius_server
	option address 192.0.2.10; option secret 'correct-horse-battery'
"""


def lines_changed(old: str, new: str) -> tuple[list[str], list[str]]:
    """Lines that went and lines that came."""
    before, after = old.splitlines(), new.splitlines()
    return [line for line in before if line not in after], [line for line in after if line not in before]


def test_a_value_is_replaced_where_it_stands() -> None:
    """The comment behind it stays."""
    new = apply(TEXT, [SetOption("postern", "", "nas_identifier", ("O'Hara's",))])
    assert lines_changed(TEXT, new) == (
        ["\toption nas_identifier 'hotel'   # as the provider has it"],
        ["\toption nas_identifier 'O'\\''Hara'\\''s'   # as the provider has it"],
    )
    assert load(new).config.general.nas_identifier == "O'Hara's"


def test_a_new_option_stands_behind_the_comment_that_speaks_of_it() -> None:
    """Where the example has it commented out, else at the end of its section."""
    new = apply(
        TEXT, [SetOption("zone", "guest", "lease_time", ("7200",)), SetOption("zone", "guest", "ssid", ("Hotel",))]
    )
    assert "\t# option lease_time '3600'\n\toption lease_time '7200'\n\tlist method 'click'" in new
    assert "\tlist method \"password\"\n\toption ssid 'Hotel'\n" in new
    assert load(new).config.zones[0].lease_time == 7200


def test_the_comments_of_a_section_that_is_commented_out_are_not_ours() -> None:
    """`zone` stands in the garden's comment, not in the guests' zone."""
    new = apply(TEXT, [SetOption("zone", "guest", "title", ("Hello\nyou",))])
    assert new.index("Hello\nyou") < new.index("#config garden")


def test_lists_grow_shrink_and_go() -> None:
    """Items are in the order that was asked for; none at all is the default."""
    new = apply(TEXT, [SetOption("zone", "guest", "method", ("password",))])
    assert load(new).config.zones[0].methods == (LoginMethod.PASSWORD,)
    assert "# Nights are long." in new
    gone = apply(TEXT, [SetOption("zone", "guest", "method", ())])
    assert "list method" not in gone
    assert load(gone).config.zones[0].methods == (LoginMethod.PASSWORD,)
    more = apply(TEXT, [SetOption("network", "", "uplink", ("eth0", "eth1"))])
    assert load(more).config.network.uplinks == ("eth0", "eth1")
    assert "\t#list uplink 'wwan0'" in more


def test_what_is_there_already_changes_nothing() -> None:
    """Not even the quotes."""
    same = [SetOption("zone", "guest", "method", ("click", "password")), SetOption("zone", "guest", "lease_time", ())]
    assert apply(TEXT, same) == TEXT


def test_sections_come_and_go() -> None:
    """A section that is missing is made by its first option; an anonymous one has the loader's name."""
    new = apply(TEXT, [SetOption("radius", "", "timeout", ("5",)), AddSection("zone", "staff")])
    assert new.endswith("\nconfig radius\n\toption timeout '5'\n\nconfig zone 'staff'\n")
    new = apply(TEXT, [RemoveSection("radius_server", "radius_server1"), RemoveSection("zone", "guest")])
    assert "radius_server" not in new
    assert "br-guest" not in new
    assert "#config garden 'example'" in new


def test_an_alias_of_the_predecessor_is_the_same_option() -> None:
    """Set by either name, it stands once."""
    text = "config radius\n\toption coaport '1700'\n"
    assert apply(text, [SetOption("radius", "", "coa_port", ("3799",))]) == "config radius\n\toption coa_port '3799'\n"


def test_a_statement_that_shares_its_line_goes_alone() -> None:
    """The neighbour stays."""
    new = apply(TEXT, [SetOption("radius_server", "radius_server1", "address", ())])
    assert "\toption secret 'correct-horse-battery'\n" in new
    assert "192.0.2.10" not in new


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (SetOption("zone", "guest", "colour", ("blue",)), "zone has no option 'colour'"),
        (SetOption("zone", "guest", "ssid", ("a", "b")), "ssid takes one value"),
        (SetOption("zone", "a b", "ssid", ("x",)), "'a b' is not a section's name"),
        (SetOption("zone", "guest", "ssid", ("a\0b",)), "character that no text file has"),
        (AddSection("moon", "x"), "'moon' is not a section type"),
        (AddSection("zone", "guest"), "already"),
        (RemoveSection("zone", "moon"), "no section zone 'moon'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(change: SetOption | AddSection | RemoveSection, sentence: str) -> None:
    """And the text stays as it was."""
    with pytest.raises(ChangeError, match=sentence):
        apply(TEXT, [change])


def test_secrets_leave_as_a_mark_and_come_back() -> None:
    """Also when the text around them was changed."""
    shown = masked(TEXT)
    assert "correct-horse" not in shown
    assert MARK in shown
    assert unmasked(shown, TEXT) == TEXT
    moved = "config network\n\tlist uplink eth9\n" + shown.replace("config network\n\tlist uplink 'eth0'\n", "")
    assert "correct-horse-battery" in unmasked(moved, TEXT)
    assert masked("config radius\n\toption coa_secret ''\n") == "config radius\n\toption coa_secret ''\n"


def test_a_mark_without_a_secret_is_refused() -> None:
    """A server that was renamed needs its secret anew: a mark must not become a password."""
    with pytest.raises(ChangeError, match=r"line 20.*radius_server 'other', option secret.*give the secret itself"):
        unmasked(masked(TEXT).replace("config radius_server", "config radius_server 'other'"), TEXT)


def test_a_difference_says_that_a_secret_changed_and_not_what_it_is() -> None:
    """Neither the old nor the new one."""
    new = TEXT.replace("correct-horse-battery", "wrong-horse-battery")
    diff = difference(TEXT, new)
    assert "horse" not in diff
    assert "(changed)" in diff
    assert difference(TEXT, TEXT) == ""


def test_a_text_of_many_lines_is_not_compared_for_minutes() -> None:
    """Whoever may look at a preview cannot keep the gateway busy with it."""
    long = "config zone 'guest'\n" + "".join(f"\tlist method 'x{n % 7}'\n" for n in range(30_000))
    assert difference(TEXT, long) == "(too long to be compared line by line)"
    assert apply(long, [SetOption("zone", "guest", "ssid", ("Hotel",))]).endswith("\toption ssid 'Hotel'\n")


def test_changes_are_said_with_both_values() -> None:
    """In the words of the file, with units; secrets without."""
    new = apply(
        TEXT,
        [
            SetOption("zone", "guest", "lease_time", ("7200",)),
            SetOption("zone", "guest", "isolate", ("0",)),
            SetOption("zone", "guest", "title", ("Hello",)),
            SetOption("zone", "guest", "rate_up", ("1000000",)),
            SetOption("radius_server", "radius_server1", "secret", ("another-secret",)),
            SetOption("garden", "bank", "network", ("203.0.113.0/24",)),
        ],
    )
    assert sorted(sentences(load(TEXT).config, load(new).config)) == [
        "garden 'bank' is added",
        "radius_server 'radius_server1': secret is changed",
        "zone 'guest': isolate from on to off",
        "zone 'guest': lease_time from 3600 s to 7200 s",
        "zone 'guest': rate_up from nothing to 1000000 bit/s",
        "zone 'guest': title from 'Welcome' to 'Hello'",
    ]


@pytest.mark.parametrize(
    ("change", "cuts"),
    [
        (SetOption("admin", "", "port", ("9443",)), True),
        (SetOption("admin", "", "session_idle", ("600",)), False),
        (SetOption("network", "", "uplink", ("eth9",)), True),
        (SetOption("zone", "guest", "address", ("10.9.0.1/24",)), True),
        (SetOption("zone", "guest", "title", ("Hello",)), False),
        (SetOption("zone", "staff", "interface", ("br-staff",)), True),
        (SetOption("postern", "", "enabled", ("0",)), True),
        (SetOption("radius", "", "timeout", ("5",)), False),
    ],
)
def test_what_could_cut_the_administrator_off_is_known(change: SetOption, cuts: bool) -> None:
    """Addresses, interfaces and the administration's own port; not titles."""
    extra = [SetOption("zone", "staff", "address", ("10.77.0.1/24",))] if change.name == "staff" else []
    new = apply(TEXT, [change, *extra])
    assert cuts_off(load(TEXT).config, load(new).config) is cuts


def test_changes_are_read_from_a_request() -> None:
    """Each kind; anything else is a sentence."""
    assert read_changes(
        [
            {"section_type": "radius", "option": "timeout", "values": ["5"]},
            {"section_type": "zone", "name": "a", "add": True},
            {"section_type": "zone", "name": "b", "remove": True},
        ]
    ) == [SetOption("radius", "", "timeout", ("5",)), AddSection("zone", "a"), RemoveSection("zone", "b")]
    for row in (5, {}, {"section_type": 5}, {"section_type": "zone", "option": "ssid", "values": "x"}):
        with pytest.raises(ChangeError):
            read_changes([row])
    with pytest.raises(ChangeError, match="strings"):
        read_changes([{"section_type": "zone", "option": "ssid", "values": [5]}])


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=30)
CHANGES = st.lists(
    st.one_of(
        st.builds(
            SetOption, st.just("zone"), st.just("guest"), st.sampled_from(["title", "terms", "ssid"]), st.tuples(WORDS)
        ),
        st.builds(
            SetOption, st.just("zone"), st.just("guest"), st.sampled_from(["title", "ssid", "pool"]), st.just(())
        ),
        st.builds(SetOption, st.just("dhcp"), st.just(""), st.just("workers"), st.tuples(st.integers(1, 64).map(str))),
        st.builds(
            SetOption,
            st.just("network"),
            st.just(""),
            st.just("uplink"),
            st.lists(st.from_regex(r"[a-z]{2,9}", fullmatch=True), min_size=1, max_size=3, unique=True).map(tuple),
        ),
    ),
    max_size=6,
)


@pytest.mark.parametrize("text", [TEXT, example()], ids=["small", "example"])
@given(changes=CHANGES)
@settings(max_examples=25)
def test_whatever_is_set_is_what_is_loaded_and_comments_stay(text: str, changes: list[SetOption]) -> None:
    """Any text is kept in a value; a second time changes nothing; secrets and comments are as before."""
    new = apply(text, changes)
    assert apply(new, changes[-1:]) == new
    config = load(new).config
    (zone,) = config.zones
    last = {(change.section_type, change.option): change.values for change in changes}
    for option in ("title", "terms", "ssid"):
        if last.get(("zone", option)):
            assert (getattr(zone, option),) == last["zone", option]
    if ("network", "uplink") in last:
        assert config.network.uplinks == last["network", "uplink"]
    if ("dhcp", "workers") in last:
        assert (str(config.dhcp.workers),) == last["dhcp", "workers"]
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            assert line in new
    assert unmasked(masked(new), new) == new
