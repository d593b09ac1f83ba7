"""What the web's benchmark prints: rows of one table, each with its floor where it has one, reached or missed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row; without a floor it is there to be read."""

    what: str
    measured: str
    floor: str = ""
    reached: bool = True

    def line(self, width: int) -> str:
        """The row as text."""
        verdict = "" if not self.floor else "reached" if self.reached else "MISSED"
        return f"{self.what:<{width}}  {self.measured:<54}  {self.floor:<22}  {verdict}".rstrip()


def most(what: str, value: float, limit: float, unit: str, shown: str = "", digits: int = 1) -> Row:
    """A row whose value must stay below `limit`; `shown` is printed instead of the value where more is to be said."""
    return Row(what, shown or f"{value:.{digits}f} {unit}", f"< {limit:g} {unit}", value < limit)


def least(what: str, value: float, floor: float, unit: str, shown: str = "") -> Row:
    """A row whose value must reach `floor`."""
    return Row(what, shown or f"{value:,.0f} {unit}", f">= {floor:,.0f} {unit}", value >= floor)


def tell(rows: Sequence[Row]) -> None:
    """Show rows on standard error as they come: a run takes minutes."""
    for row in rows:
        print(f"    {row.line(0)}", file=sys.stderr)


def table(rows: Sequence[Row]) -> str:
    """All rows, in columns."""
    width = max((len(row.what) for row in rows), default=0)
    return "\n".join(row.line(width) for row in rows)
