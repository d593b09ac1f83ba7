"""What a local user is: the name's rules, what is granted, and how it is shown."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import fields, replace
from typing import Final

from gateway.session.model import Limits
from gateway.values import value_class

MAX_NAME_CHARACTERS: Final = 64
MAX_NAME_OCTETS: Final = 253  # a RADIUS attribute (RFC 2865 §5.1), so that accounting can carry every name
MAX_NOTE_CHARACTERS: Final = 1000
NO_LIMITS: Final = Limits()
_LARGEST: Final = 2**63 - 1  # what SQLite keeps as a whole number


class AccountError(ValueError):
    """What was asked cannot be done with accounts; the text is a sentence for the operator."""


class NameTaken(AccountError):
    """There is a user of that name."""


@value_class
class User:
    """A local user without the password. Times are Unix seconds."""

    name: str
    limits: Limits = NO_LIMITS
    devices: int | None = None  # online at once; None: the zone's rule
    valid_until_unix: float | None = None
    disabled: bool = False
    note: str = ""
    created_unix: float = 0.0

    def as_row(self) -> dict[str, str | int | float | bool | None]:
        """The user as plain values for the control socket; limits that are not set are absent."""
        row: dict[str, str | int | float | bool | None] = {"username": self.name, "created_unix": self.created_unix}
        for name in ("devices", "valid_until_unix"):
            if getattr(self, name) is not None:
                row[name] = getattr(self, name)
        row |= {
            item.name: getattr(self.limits, item.name)
            for item in fields(Limits)
            if getattr(self.limits, item.name) is not None
        }
        if self.disabled:
            row["disabled"] = True
        if self.note:
            row["note"] = self.note
        return row

    def granted(self) -> Limits:
        """The limits of a session: those of the user, which end with the account at the latest."""
        ends = [end for end in (self.limits.terminate_unix, self.valid_until_unix) if end is not None]
        return replace(self.limits, terminate_unix=min(ends)) if ends else self.limits


def name_key(name: str) -> str:
    """What two spellings of the same name have in common: case and width do not count (RFC 8265 §3.3)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_name(name: str) -> None:
    """Raises AccountError with a sentence when this cannot be a user's name."""
    if not name or name != name.strip():
        raise AccountError("A user name is not empty and neither begins nor ends with a blank.")
    if len(name) > MAX_NAME_CHARACTERS:
        raise AccountError(f"The user name has {len(name)} characters; at most {MAX_NAME_CHARACTERS} are accepted.")
    for character in name:
        if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
            raise AccountError(f"The user name holds the invisible character U+{ord(character):04X}; leave it out.")
    if max(len(name.encode()), len(name_key(name).encode())) > MAX_NAME_OCTETS:
        raise AccountError(f"The user name is longer than {MAX_NAME_OCTETS} octets of UTF-8.")


def check_user(user: User) -> None:
    """Raises AccountError for values that make no sense or cannot be kept."""
    check_name(user.name)
    numbers = {"devices": user.devices, "valid_until_unix": user.valid_until_unix}
    numbers |= {item.name: getattr(user.limits, item.name) for item in fields(Limits) if item.name != "role"}
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and 1 <= value <= _LARGEST):
            raise AccountError(f"{name} is {value}; it must be a number from 1, or be left out for no limit.")
    if len(user.note) > MAX_NOTE_CHARACTERS:
        raise AccountError(f"The note has {len(user.note)} characters; at most {MAX_NOTE_CHARACTERS} are accepted.")
    for name, text in (("note", user.note), ("role", user.limits.role or "")):
        if any(unicodedata.category(character) == "Cs" for character in text):
            raise AccountError(f"The {name} holds half of a character (a lone surrogate).")
