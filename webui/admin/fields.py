"""What a query or a form says, read with bounds. Every function raises FieldError with a sentence for its author."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

MAX_FIELDS: Final = 2000
FORM_TYPE: Final = "application/x-www-form-urlencoded"


class FieldError(Exception):
    """A field that is missing or wrong; the message is shown beside the form."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class Fields:
    """The fields of a query or form, in their order; repeated ones are kept."""

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        self._values: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
        except ValueError:
            raise FieldError("", f"more than {MAX_FIELDS} fields") from None
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.replace("\r\n", "\n"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> object:
        return iter(self._values)

    @property
    def names(self) -> list[str]:
        """The names that occur, in their order."""
        return list(self._values)

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return self._values.get(name, [])

    def text(self, name: str, default: str = "", *, longest: int = 1000) -> str:
        """The first value of a field without blanks around it."""
        value = self._values.get(name, [default])[0].strip()
        if len(value) > longest:
            raise FieldError(name, f"{name} is longer than {longest} characters")
        return value

    def raw(self, name: str, *, longest: int = 1000) -> str:
        """The first value of a field exactly as it was typed, for passwords and whole files."""
        value = self._values.get(name, [""])[0]
        if len(value) > longest:
            raise FieldError(name, f"{name} is longer than {longest} characters")
        return value

    def required(self, name: str, label: str, *, longest: int = 1000) -> str:
        """As `text`, but not empty."""
        value = self.text(name, longest=longest)
        if not value:
            raise FieldError(name, f"{label} is missing")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str = "") -> str:
        """One of `choices`; `default` when the field is empty or absent."""
        value = self.text(name) or default
        if value not in choices and value != default:
            raise FieldError(name, f"{name}: choose one of {', '.join(choices)}")
        return value

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = 2**53) -> int | None:
        """A whole number; `default` when the field is empty or absent."""
        value = self.text(name, longest=20)
        if not value:
            return default
        if not value.isascii() or not value.lstrip("-").isdigit() or not low <= int(value) <= high:
            raise FieldError(name, f"{name}: a whole number from {low} to {high} is wanted, not {value!r}")
        return int(value)

    def number(self, name: str, default: int, *, low: int = 0, high: int = 2**53) -> int:
        """As `integer`, with a default that is a number too; for queries, where anything odd means the default."""
        try:
            found = self.integer(name, default, low=low, high=high)
        except FieldError:
            return default
        return default if found is None else found

    def flag(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self.text(name) in ("1", "on", "true", "yes")

    def scaled(self, name: str, units: dict[str, int], default_unit: str, *, high: int = 2**53) -> int | None:
        """A decimal number with its unit in the field `NAME_unit`, as a whole number of the base unit."""
        value = self.text(name, longest=20).replace(",", ".")
        if not value:
            return None
        unit = self.choice(f"{name}_unit", tuple(units), default_unit)
        try:
            found = round(float(value) * units[unit])
        except (ValueError, OverflowError):
            raise FieldError(name, f"{name}: a number is wanted, not {value!r}") from None
        if not 0 <= found <= high:
            raise FieldError(name, f"{name}: {value} {unit} is out of range")
        return found
