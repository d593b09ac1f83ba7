"""Parts of long tables: searched, sorted and cut where the rows are, so that little is sent."""

from __future__ import annotations

import json
from typing import cast

import pytest

from gateway.control.listing import Row, part_of
from gateway.control.protocol import ControlError, Params

ROWS: list[Row] = [
    {"username": f"user{number:05}", "note": "Reception" if number % 100 == 0 else None, "devices": number % 7 or None}
    for number in range(10_000)
]
FIELDS = ("username", "note")
SORTS = ("username", "devices")


def part(**params: object) -> tuple[int, list[Row]]:
    """Total and rows of an answer."""
    answer = cast(dict[str, object], part_of(ROWS, cast(Params, params), FIELDS, SORTS))
    return cast(int, answer["total"]), cast(list[Row], answer["rows"])


def test_a_page_of_ten_thousand_rows_sends_a_page() -> None:
    """Not what it was cut from: fifty rows are some kilobytes, all of them a megabyte."""
    total, rows = part(limit=50, offset=100)
    assert (total, len(rows), rows[0]["username"]) == (10_000, 50, "user00100")
    assert len(json.dumps(rows)) < 5_000
    assert len(json.dumps(part()[1])) > 500_000


def test_what_is_searched_is_counted_whole_and_sent_in_part() -> None:
    """Without case, in every field that is searched and in no other."""
    total, rows = part(search="RECEPT", limit=10)
    assert (total, len(rows)) == (100, 10)
    assert part(search="user0999")[0] == 10
    assert part(search="6")[0] == sum("6" in str(row["username"]) for row in ROWS)


def test_rows_are_sorted_and_what_is_not_known_comes_last() -> None:
    """Either way round."""
    first = part(sort="devices", limit=1)[1]
    last = part(sort="devices", descending=True, limit=1)[1]
    assert (first[0]["devices"], last[0]["devices"]) == (1, 6)
    for descending in (False, True):
        assert part(sort="devices", descending=descending, offset=9_999)[1][0]["devices"] is None
    assert part(sort="username", descending=True, limit=1)[1][0]["username"] == "user09999"
    assert part(offset=20_000, limit=5) == (10_000, [])


@pytest.mark.parametrize(
    "params", [{"sort": "password"}, {"limit": 0}, {"limit": 10_000}, {"offset": -1}, {"search": 5}, {"descending": 1}]
)
def test_what_makes_no_sense_is_refused(params: dict[str, object]) -> None:
    """In a sentence."""
    with pytest.raises(ControlError):
        part(**params)
