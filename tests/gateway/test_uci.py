"""UCI syntax: what is read, and that what is written is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uci import Section, UciSyntaxError, Value, parse, quote, render

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_sections_options_and_lists_keep_their_lines() -> None:
    """The place of each value is known, for messages."""
    (section,) = parse(
        "# a comment\nconfig zone 'guest'\n\n\toption interface 'br0' # why\n"
        "\tlist method click\n\tlist method password\n"
    )
    assert (section.type, section.name, section.line) == ("zone", "guest", 2)
    assert section.options == {"interface": Value("br0", 4)}
    assert section.lists == {"method": [Value("click", 5), Value("password", 6)]}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("bare", "bare"),
        ("'single \\ quoted'", "single \\ quoted"),
        ('"double \\"quoted\\""', 'double "quoted"'),
        ("it\\'s", "it's"),
        ("'it'\\''s'", "it's"),
        ("'joined '\"pieces\"", "joined pieces"),
        ("''", ""),
        ("a#b", "a#b"),
        ("'two\nlines'", "two\nlines"),
    ],
)
def test_values_are_quoted_as_a_shell_would(written: str, value: str) -> None:
    """Bare, single, double, escaped and joined."""
    (section,) = parse(f"config a\n\toption x {written}\n\toption y 1\n")
    assert section.options["x"].text == value
    assert section.options["y"].text == "1"


def test_a_line_behind_a_value_of_two_lines_has_its_own_number() -> None:
    """Lines within quotes count."""
    with pytest.raises(UciSyntaxError) as caught:
        parse("config a\n\toption x 'one\ntwo'\nwrong\n")
    assert [problem.line for problem in caught.value.problems] == [4]


def test_a_semicolon_ends_a_statement() -> None:
    """Several statements may share a line, as for uci itself."""
    (section,) = parse("config a; option x 1; option y 2")
    assert sorted(section.options) == ["x", "y"]


@given(
    st.lists(
        st.builds(
            lambda kind, name, options, lists: (kind, name, options, lists),
            NAMES,
            NAMES | st.just(""),
            st.dictionaries(NAMES, TEXTS, max_size=3),
            st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3), max_size=2),
        ),
        max_size=4,
    )
)
def test_what_is_rendered_is_parsed_to_the_same(
    rows: list[tuple[str, str, dict[str, str], dict[str, list[str]]]],
) -> None:
    """Any text survives quoting."""
    sections = [
        Section(
            kind,
            name,
            0,
            {key: Value(text, 0) for key, text in options.items()},
            {key: [Value(text, 0) for text in texts] for key, texts in lists.items()},
        )
        for kind, name, options, lists in rows
    ]
    again = parse(render(sections))
    shape = [
        (
            s.type,
            s.name,
            {k: v.text for k, v in s.options.items()},
            {k: [v.text for v in vs] for k, vs in s.lists.items()},
        )
        for s in again
    ]
    assert shape == rows


@given(TEXTS)
def test_a_quoted_text_is_one_word(text: str) -> None:
    """Quoting protects blanks, quotes, comments and line ends."""
    (section,) = parse(f"config a\n\toption x {quote(text)}\n")
    assert section.options["x"].text == text
