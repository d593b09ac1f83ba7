"""Sorting and paging of long tables, which the daemon does; links keep what was searched."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from gateway.values import value_class
from webui.admin.fields import Fields
from webui.admin.site import Page
from webui.messages import Response

SIZES: Final = (25, 50, 100, 250)
_DEFAULT_SIZE: Final = 50


@value_class
class Column:
    """One column: its heading, and the daemon's name to sort by; empty for one that cannot be sorted."""

    label: str
    sort: str = ""
    kind: str = ""  # class of its cells


@value_class
class Listing:
    """What part of a table is looked at."""

    path: str
    kept: tuple[tuple[str, str], ...]  # the other fields of the query
    sort: str
    descending: bool
    number: int  # of the page, from 1
    size: int

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size

    def link(self, **changes: object) -> str:
        """The address of this table with something else chosen."""
        values: dict[str, object] = {
            **dict(self.kept),
            "sort": self.sort,
            "down": "1" if self.descending else "",
            "page": self.number,
            "size": self.size,
            **changes,
        }
        if values["page"] == 1:
            del values["page"]
        if values["size"] == _DEFAULT_SIZE:
            del values["size"]
        query = urlencode({name: value for name, value in values.items() if value not in ("", None)})
        return self.path + (f"?{query}" if query else "")

    def sorted_by(self, column: Column) -> str:
        """The address with this column sorted, the other way round when it is already."""
        descending = self.sort == column.sort and not self.descending
        return self.link(sort=column.sort, down="1" if descending else "", page=1)

    def arrow(self, column: Column) -> str:
        """How a column is sorted, in the words of `aria-sort`."""
        if not column.sort or column.sort != self.sort:
            return "none"
        return "descending" if self.descending else "ascending"

    def last(self, total: int) -> int:
        """The number of the last page."""
        return max(1, -(-total // self.size))


def read_listing(path: str, query: Fields, columns: tuple[Column, ...], default: str, *kept: str) -> Listing:
    """What a query asks for; anything odd means the default. `kept` are further fields that links carry on."""
    sorts = [column.sort for column in columns if column.sort]
    sort = query.text("sort")
    size = query.number("size", _DEFAULT_SIZE)
    return Listing(
        path,
        tuple((name, query.text(name, longest=200)) for name in kept),
        sort if sort in sorts else default,
        query.flag("down"),
        query.number("page", 1, low=1, high=1_000_000),
        size if size in SIZES else _DEFAULT_SIZE,
    )


async def searched(page: Page, name: str, title: str, noun: str, columns: tuple[Column, ...], default: str) -> Response:
    """The page of a table that is searched, sorted and cut by the daemon's method NAME.list.

    `default` is what it is sorted by when nobody says; empty for the order that the daemon takes by itself.
    """
    shown = read_listing(f"/{name}", page.query, columns, default, "search")
    search = dict(shown.kept)["search"]
    answer = await page.call(
        f"{name}.list",
        search=search or None,
        sort=shown.sort or None,
        descending=shown.descending,
        offset=shown.offset,
        limit=shown.size,
    )
    return page.render(
        name,
        title=title,
        rows=answer["rows"],
        total=answer["total"],
        search=search,
        listing=shown,
        columns=columns,
        noun=noun,
    )
