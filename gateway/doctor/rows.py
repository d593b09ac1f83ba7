"""A row of the doctor's answer: which check, how it stands, what was found, how to mend it."""

from __future__ import annotations

from enum import StrEnum

from gateway.values import value_class


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"  # it works, and will not for long, or not for all
    FAIL = "fail"  # guests or the operator miss something
    SKIPPED = "skipped"  # there is nothing to look at, or it could not be looked at


@value_class
class Row:
    """The outcome of one check; `text` and `remedy` are sentences."""

    check: str
    state: State
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """As `doctor.run` answers."""
        return {"check": self.check, "state": self.state.value, "text": self.text, "remedy": self.remedy}


def ok(check: str, text: str) -> Row:
    """It is as it should be."""
    return Row(check, State.OK, text)


def warn(check: str, text: str, remedy: str) -> Row:
    """It needs looking after."""
    return Row(check, State.WARN, text, remedy)


def fail(check: str, text: str, remedy: str) -> Row:
    """It is broken."""
    return Row(check, State.FAIL, text, remedy)


def skipped(check: str, text: str, remedy: str = "") -> Row:
    """It was not looked at."""
    return Row(check, State.SKIPPED, text, remedy)
