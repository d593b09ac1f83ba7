"""Small parts of the administration: words, fields, tables for spreadsheets, charts, QR codes, configuration forms."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webui.admin.fake_world import SCHEMA
from webui.admin import charts, words
from webui.admin.config import changes_of, diff_lines
from webui.admin.csv_export import attachment, cell, table
from webui.admin.dashboard import hourly, per_second
from webui.admin.fields import FieldError, Fields
from webui.admin.limits import FIELDS, read_limits
from webui.admin.paging import Column, read_listing
from webui.admin.qr import qr_svg
from webui.admin.service import ListenError, Place, read_place
from webui.admin.site import read_cookies
from webui.messages import Request


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (1800, "30 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86400, "1 d"),
        (180_000, "2 d 2 h"),
    ],
)
def test_lengths_of_time_are_said_in_two_units(seconds: int | None, text: str) -> None:
    """The second is left out when it is nothing."""
    assert words.duration(seconds) == text


def test_options_are_named_in_words() -> None:
    """With abbreviations as people write them."""
    assert words.option_label("lease_time") == "Lease time"
    assert words.option_label("radius_secret") == "RADIUS secret"
    assert words.option_label("ssid") == "SSID"


def test_sizes_and_rates_are_short() -> None:
    """Three digits or so, in units of a thousand."""
    assert words.size(0) == "0 B"
    assert words.size(999_999) == "1.0 MB"
    assert words.size(1_536_000) == "1.5 MB"
    assert words.rate(2_500_000) == "2.5 Mbit/s"
    assert words.rate(None) == "–"


def test_a_time_that_no_calendar_has_is_a_dash() -> None:
    """The daemon may say anything."""
    assert words.moment(1e18, UTC) == "–"
    assert words.zone_of("../../etc/passwd") is UTC


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "|x", "%x"])
def test_no_cell_of_a_table_is_a_formula(text: str) -> None:
    """A guest may call a phone =HYPERLINK(…)."""
    assert cell(text) == f"'{text}"


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(), st.text()), min_size=2, max_size=2)))
def test_a_table_has_as_many_rows_and_cells_as_it_was_given(rows: list[list[object]]) -> None:
    """Whatever is in them; and no cell that was a text begins like a formula."""
    text = table(("a", "b"), rows)
    found = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert len(found) == len(rows) + 1
    for given_row, row in zip(rows, found[1:], strict=True):
        assert len(row) == 2
        for value, got in zip(given_row, row, strict=True):
            assert not isinstance(value, str) or not got.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_the_name_of_a_file_to_save_cannot_end_its_header() -> None:
    """Batches and users have names of their own."""
    response = attachment(b"", 'a"\r\nX: y/../é.csv', "text/csv")
    assert dict(response.headers)["Content-Disposition"] == 'attachment; filename="a---X--y-..--.csv"'


def test_fields_say_what_is_wrong_with_them() -> None:
    """Numbers with units, choices, whole numbers, lengths."""
    fields = Fields("a=1,5&a_unit=GB&b=x&c=&d=99999999999999999999999&e=5&e_unit=miles&f=%ff")
    assert fields.scaled("a", {"MB": 10**6, "GB": 10**9}, "MB") == 1_500_000_000
    assert fields.scaled("c", {"MB": 10**6}, "MB") is None
    assert fields.text("f") == "\ufffd"
    assert fields.integer("c", 7) == 7
    for read in (
        lambda: fields.integer("b"),
        lambda: fields.integer("d"),
        lambda: fields.scaled("e", {"km": 1000}, "km"),
        lambda: fields.scaled("b", {"MB": 1}, "MB"),
        lambda: fields.required("c", "The thing"),
        lambda: fields.text("d", longest=5),
        lambda: Fields("&".join("a=b" for _ in range(3000))),
    ):
        with pytest.raises(FieldError):
            read()
    for bad in ("nan", "inf", "-1", "1e400"):
        with pytest.raises(FieldError):
            Fields(f"a={bad}").scaled("a", {"MB": 10**6}, "MB")


def test_limits_come_back_from_their_form_as_they_were() -> None:
    """Shown in the largest unit that fits, read again as the same number."""
    limits = {"session_time_s": 5400, "total_bytes": 1_500_000_000, "download_bps": 512_000, "upload_bps": 64}
    pairs = []
    for field in FIELDS:
        value, unit = field.shown(limits)
        pairs.append(f"{field.name}={value}&{field.name}_unit={unit.replace('/', '%2F')}")
    assert read_limits(Fields("&".join(pairs))) == {field.name: limits.get(field.name, 0) for field in FIELDS}


def test_links_of_a_table_keep_what_was_searched_and_survive_nonsense() -> None:
    """An odd page, size or column means the default."""
    columns = (Column("A", "a"), Column("B", "b"), Column("C"))
    listing = read_listing("/x", Fields("search=a%26b&sort=b&down=1&page=3&size=100"), columns, "a", "search")
    assert listing.offset == 200
    assert listing.link(page=4) == "/x?search=a%26b&sort=b&down=1&page=4&size=100"
    assert listing.sorted_by(columns[1]) == "/x?search=a%26b&sort=b&size=100"
    assert listing.arrow(columns[1]) == "descending"
    odd = read_listing("/x", Fields("sort=z&page=-1&size=1e9"), columns, "a", "search")
    assert (odd.sort, odd.number, odd.size) == ("a", 1, 50)
    assert odd.last(0) == 1
    assert odd.last(101) == 3


def test_a_qr_code_is_one_path_with_a_quiet_zone() -> None:
    """Nothing of the text or label becomes markup; a text that is too long is refused."""
    svg = qr_svg("http://login.postern.lan/?code=<script>", 'of <b>"x"')
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert svg.count("<path") == 2
    side = int(svg.partition('viewBox="0 0 ')[2].partition(" ")[0])
    xs = [int(x) for x in re.findall(r"M(\d+) ", svg.partition('d="M4')[2])]
    assert min(xs) >= 4
    assert max(xs) < side - 4
    with pytest.raises(ValueError, match="not readable"):
        qr_svg("x" * 501, "")


def test_charts_have_gaps_where_nothing_is_known() -> None:
    """A gap lifts the pen; an empty series draws axes alone; averages stand for many points."""
    svg = charts.lines((("down", [1.0, None, 3.0]),), 0.0, 60.0, UTC, str, "a <label>", "x")
    assert svg.count("M", svg.index('class="down"')) == 2
    assert "a &lt;label&gt;" in svg
    assert 'class="down"' not in charts.lines((("down", []),), 0.0, 60.0, UTC, str, "", "x")
    at_the_end = charts.lines((("down", [1.0] * 121),), 0.0, 60.0, UTC, str, "", "x")
    assert f'x="{charts.WIDTH}.0" y="{charts.HEIGHT - 6}" text-anchor="end">02:00<' in at_the_end
    assert charts.thin([1.0, 3.0, None, None], 2) == [2.0, None]
    assert ">0.5<" in charts.lines((("down", [1.0]),), 0.0, 60.0, UTC, str, "", "x")
    assert ">0.5<" not in charts.lines((("down", [1.0]),), 0.0, 60.0, UTC, str, "", "x", least=2.0)
    assert [charts.nice_top(value) for value in (0, 0.3, 1, 3, 70, 101)] == [1.0, 0.5, 1, 5, 100, 200]
    assert hourly([1.0] * 90, 60) == [30.0, 60.0]
    assert hourly([None] * 60, 60) == [None]
    assert per_second([75.0, None], 60) == [10.0, None]


def test_a_form_of_options_changes_what_is_different_only() -> None:
    """Lists by line; an empty field is the default; a secret's mark leaves it as it is."""
    zone = SCHEMA[1]
    values = {
        "ssid": {"value": "Cafe", "source": "postern:3"},
        "method": {"value": "click password", "source": "postern:4"},
        "lease_time": {"value": "3600", "source": "default"},
        "radius_secret": {"value": "…", "source": "postern:5"},
    }
    same = Fields("o.ssid=Cafe&o.method=click%0D%0Apassword&o.lease_time=&o.radius_secret=%E2%80%A6")
    assert changes_of(same, zone, "guests", values) == []
    other = Fields("o.ssid=&o.method=voucher&o.lease_time=60&o.radius_secret=fresh")
    assert [(change["option"], change["values"]) for change in changes_of(other, zone, "guests", values)] == [  # type: ignore[call-overload,index]
        ("ssid", []),
        ("lease_time", ["60"]),
        ("method", ["voucher"]),
        ("radius_secret", ["fresh"]),
    ]


def test_lines_of_a_difference_are_told_apart() -> None:
    """Heads of files are not removed lines."""
    kinds = [kind for kind, _ in diff_lines("--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z")]
    assert kinds == ["hunk", "hunk", "hunk", "del", "add", "same"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8443", Place("127.0.0.1", 8443)),
        ("[::1]:9000", Place("::1", 9000)),
        ("::1", Place("::1", 8443)),
        ("192.0.2.1", Place("192.0.2.1", 8443)),
        ("lan:443", Place("", 443, "lan")),
        ("br-lan.5", Place("", 8443, "br-lan.5")),
    ],
)
def test_places_to_listen_are_read(text: str, place: Place) -> None:
    """An address or an interface, with or without a port."""
    assert read_place(text) == place


@pytest.mark.parametrize("text", ["", ":8443", "lan:0", "lan:99999", "lan:x", "an-interface-of-too-many-letters:1"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(ListenError, match="--listen"):
        read_place(text)


def test_the_first_of_two_cookies_of_a_name_counts() -> None:
    """As browsers send the one with the longer path first."""
    request = Request("GET", "/", 1, {"cookie": "a=1; b=2; a=3, c=4; d"}, "")
    assert read_cookies(request) == {"a": "1", "b": "2", "c": "4"}
