"""Why a capture was not analysed: the named refusals that the command line and the web pages share."""

from __future__ import annotations

from typing import Final, TypedDict

# The name of a refusal -> the process exit status of `postern analyze` (65 is EX_DATAERR of sysexits.h).
EXIT_STATUS: Final[dict[str, int]] = {
    "not-a-capture": 65,
    "unsupported-linktype": 65,
    "empty": 65,
    "too-large": 65,
    "gzip-bomb": 65,
    "gzip-corrupt": 65,
    "cancelled": 1,
}


class RefusalDict(TypedDict):
    """The JSON form of a refusal."""

    error: str
    message: str
    detail: str
    offset: int
    hint: str


class AnalysisRefused(Exception):
    """The capture cannot be analysed; `error` is a key of EXIT_STATUS, the other fields are for people.

    `message` says what is wrong in one sentence, `detail` what was found, `offset` is the byte position in the
    unpacked file, `hint` says what to do about it.
    """

    def __init__(self, error: str, message: str, detail: str = "", offset: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.message = message
        self.detail = detail
        self.offset = offset
        self.hint = hint

    @property
    def exit_status(self) -> int:
        """Exit status of the process for this refusal."""
        return EXIT_STATUS[self.error]

    def as_dict(self) -> RefusalDict:
        """The refusal as it is sent to a browser or printed with --json."""
        return {
            "error": self.error,
            "message": self.message,
            "detail": self.detail,
            "offset": self.offset,
            "hint": self.hint,
        }
