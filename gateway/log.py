"""Log lines: one event, one line, as text or JSON; no secret in any of them.

Callers use the standard `logging` with a short fixed message followed by its fields:

    LOG.info("session opened mac=%s ip=%s user=%s", key.mac, address, username)

The text form quotes values that hold spaces or characters a terminal would act upon, so that a host name chosen by a
guest can neither break the line nor forge a field. The JSON form takes the same fields apart. A value whose type or
field name says that it is secret is replaced before it is formatted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from itertools import zip_longest
from typing import Final, NamedTuple, TextIO

from gateway.reports import INTERVAL_S, REPORTS_PER_INTERVAL, ReportLimit

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
HIDDEN: Final = "…"
MAX_VALUE: Final = 512  # characters of one value; guests choose some of them
MAX_MESSAGE: Final = 16384  # characters of a whole message: `postern debug` output never goes through here

_SECRET_FIELDS: Final = frozenset(
    {"password", "passwd", "secret", "coa_secret", "user_password", "chap_password", "chap_response", "authenticator"}
)
_FIELD: Final = re.compile(r"(?:(?<=\s)|^)([a-z][a-z0-9_]*)=(%(?:\.\d+)?[sdrfgx])(?=[\s,;.)]|$)")
_PLACEHOLDER: Final = re.compile(r"(?<!%)%(?!%)[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]")
_PLAIN: Final = re.compile(r"[^\s\"=\\]+")
_SYSLOG: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def set_up(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream` (standard error), at `level`, as `form` (text or json).

    Under systemd the lines carry the journal's severity prefix instead of a time that the journal knows better.
    Called again (reload), it replaces what it did before.
    """
    target = sys.stderr if stream is None else stream
    handler = LineHandler(target)
    journal = _goes_to_journal(target)
    handler.setFormatter(JsonFormatter(journal=journal) if form == "json" else TextFormatter(journal=journal))
    handler.addFilter(SecretFilter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if any(isinstance(rule, SecretFilter) for rule in old.filters)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    # No line of ours tells thread or process, and finding them out is a good part of making one.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # nor file and line: the library's documented way not to look for them
    logging.raiseExceptions = False  # a full or closed standard error must not take the gateway down


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines without what the library's handler does besides, which takes as long as making a line."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one line; that it cannot be written (full disk, closed pipe) must not take the gateway down."""
        if not self.filter(record):
            return False
        try:
            line = self.format(record) + self.terminator
            with self.lock or nullcontext():  # other threads log as well
                self.stream.write(line)
                self.stream.flush()
        except Exception:  # noqa: BLE001 - as the library does it: nothing about logging may end what is logged
            self.handleError(record)
        return True


class SecretFilter(logging.Filter):
    """Replaces secret arguments by `…`. A value is secret by its type, or by the name of its field in the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: the line is kept, what it must not say is taken out."""
        if record.args:
            record.args = _redacted(str(record.msg), record.args)
        if _says_secret(record.msg):
            record.msg = HIDDEN
        return True


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info dhcp lease bound mac=02:00:5e:10:00:2a hostname="a b"`."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows in the same line, its line ends escaped."""
        template, fields = _take_apart(record)
        words = [_escape(template, MAX_MESSAGE)] if template else []
        words += [f"{name}={_quoted(value)}" for name, value in fields]
        text = " ".join(words)
        trace = _trace(record)
        if trace:
            text += " trace=" + json.dumps(trace, ensure_ascii=False)
        head = f"{record.levelname.lower()} {_room(record.name)}"
        if self._journal:
            return f"<{_SYSLOG.get(record.levelno, 6)}>{_room(record.name)} {text}"
        return f"{_iso(record.created)} {head} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the message's fields under their own names."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; fields that would shadow ours get a trailing underscore."""
        template, fields = _take_apart(record)
        line: dict[str, object] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": template[:MAX_MESSAGE],
        }
        for name, value in fields:
            key = name
            while key in line:
                key += "_"
            line[key] = value if isinstance(value, bool | int | float) else str(value)[:MAX_VALUE]
        trace = _trace(record)
        if trace:
            line["trace"] = trace
        text = json.dumps(line, separators=(",", ":"))
        return f"<{_SYSLOG.get(record.levelno, 6)}>{text}" if self._journal else text


class LogLimiter:
    """At most one line per source and interval, and so many in all, for what strangers can cause at will."""

    def __init__(
        self,
        interval_s: float = INTERVAL_S,
        most: int = REPORTS_PER_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = ReportLimit(interval_s, most)
        self._clock = clock

    def __call__(self, source: Hashable, logger: logging.Logger, level: int, message: str, *args: object) -> bool:
        """Log unless `source` logged within the interval; the line tells how many were held back. True if logged."""
        held_back = self._limit.admit(source, self._clock())
        if held_back is None:
            return False
        if held_back:
            logger.log(level, message + " held_back=%d", *args, held_back)
        else:
            logger.log(level, message, *args)
        return True


once_per_minute: Final = LogLimiter()
"""`once_per_minute(("dhcp", mac), LOG, logging.WARNING, "message refused mac=%s reason=%s", mac, reason)`."""


class _Layout(NamedTuple):
    """What a message says of its arguments."""

    names: tuple[str, ...]  # of each argument; empty where it is not a field
    forms: tuple[str, ...]  # how each is written: %s, %.3f
    rest: str  # the message without its fields
    words: str  # the same as it is shown, where nothing else is to be filled in
    is_plain: bool  # every argument is a field, written as it is
    is_open: bool  # no field's name says that its value is secret


@lru_cache(256)
def _layout(template: str) -> _Layout:
    """Read a message once: the code has some hundred of them, and each is logged often."""
    names: list[str] = []
    forms: list[str] = []
    rest: list[str] = []
    position = 0
    named = {match.start(2): match for match in _FIELD.finditer(template)}
    for placeholder in _PLACEHOLDER.finditer(template):
        match = named.get(placeholder.start())
        names.append("" if match is None else match.group(1))
        forms.append(placeholder.group())
        if match is not None:
            rest.append(template[position : match.start()])
            position = match.end()
    rest.append(template[position:])
    words = _words("".join(rest))
    is_plain = all(names) and all(form in ("%s", "%d") for form in forms)
    return _Layout(tuple(names), tuple(forms), "".join(rest), words, is_plain, is_open=_SECRET_FIELDS.isdisjoint(names))


def _take_apart(record: logging.LogRecord) -> tuple[str, list[tuple[str, object]]]:
    """The message without its `name=%s` fields, and the fields; a message of another shape is rendered whole."""
    template = str(record.msg)
    args = record.args
    if not args:
        return template, []
    layout = _layout(template)
    if not isinstance(args, tuple) or len(layout.names) != len(args):
        return record.getMessage(), []
    if layout.is_plain:
        return layout.words, list(zip(layout.names, args, strict=True))
    fields: list[tuple[str, object]] = []
    remaining: list[object] = []
    for name, form, value in zip(layout.names, layout.forms, args, strict=True):
        if not name:
            remaining.append(value)
        else:
            fields.append((name, value if form in ("%s", "%d") else form % (value,)))
    message = layout.rest % tuple(remaining) if remaining else layout.rest
    return _words(message), fields


def _words(message: str) -> str:
    return " ".join(message.replace("%%", "%").split())


def _redacted(template: str, args: tuple[object, ...] | Mapping[str, object]) -> tuple[object, ...] | dict[str, object]:
    if isinstance(args, Mapping):
        return {name: HIDDEN if _is_secret(value, name) else value for name, value in args.items()}
    layout = _layout(template)
    if layout.is_open and not any(map(_says_secret, args)):
        return args
    names = layout.names
    return tuple(
        HIDDEN if _is_secret(value, name) else value
        for value, name in zip_longest(args, names[: len(args)], fillvalue="")
    )


def _is_secret(value: object, name: str) -> bool:
    return name in _SECRET_FIELDS or _says_secret(value)


def _says_secret(value: object) -> bool:
    # Said by the type itself: a web process that logs has no other use for the configuration and the session core.
    return getattr(type(value), "hidden_in_logs", False) is True


def _quoted(value: object) -> str:
    text = str(value)
    if len(text) > MAX_VALUE:
        text = text[: MAX_VALUE - 1] + "…"
    if text.isprintable() and _PLAIN.fullmatch(text):
        return text
    return '"' + _escape(text, MAX_VALUE).replace('"', '\\"') + '"'


def _escape(text: str, longest: int) -> str:
    """Control, bidi and other unprintable characters as escapes; the backslash too, so that it stays unambiguous."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text.replace("\\", "\\\\")
    )


def _trace(record: logging.LogRecord) -> str:
    """The traceback of a record made with exc_info: frames and the exception's type, never its values' repr."""
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).strip()


def _room(logger_name: str) -> str:
    return logger_name.removeprefix("gateway.")


def _iso(created: float) -> str:
    return f"{_iso_second(int(created))}.{int(created % 1 * 1000):03d}Z"


@lru_cache(4)
def _iso_second(created: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))


def _goes_to_journal(stream: TextIO) -> bool:
    """Whether systemd connected this stream to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without descriptor, as in tests
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
