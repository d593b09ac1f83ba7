"""Log lines: one line each, fields that cannot be forged, and no secret."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Secret
from gateway.log import JsonFormatter, LogLimiter, SecretFilter, TextFormatter, set_up
from gateway.session.model import ChapCredentials, PapCredentials, VoucherCode

PROJECT = Path(__file__).resolve().parents[2]
SECRETS = (
    Secret("hunter2hunter2"),
    PapCredentials("alice", "hunter2hunter2"),
    ChapCredentials("alice", 7, b"hunter2hunter2", b"challenge"),
    VoucherCode("hunter2hunter2"),
)


def line_of(formatter: logging.Formatter, message: str, *args: object, exc_info: object = None) -> str:
    """A record as the handler of a process would print it."""
    record = logging.LogRecord("gateway.dhcp.shell", logging.INFO, __file__, 1, message, args, exc_info)  # type: ignore[arg-type]
    SecretFilter().filter(record)
    return formatter.format(record)


def test_text_has_message_then_fields() -> None:
    """The text form keeps the order, and quotes what would be ambiguous."""
    line = line_of(
        TextFormatter(), "lease bound mac=%s hostname=%s in_s=%.1f n=%d", "02:00:5e:10:00:2a", 'a "b"', 1.25, 3
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info dhcp\.shell lease bound "
        r'mac=02:00:5e:10:00:2a hostname="a \\"b\\"" in_s=1\.2 n=3',
        line,
    )


def test_json_has_fields_of_their_own() -> None:
    """The JSON form takes the fields apart, numbers as numbers, and keeps ours from being overwritten."""
    line = json.loads(line_of(JsonFormatter(), "lease bound in zone %s mac=%s n=%d level=%s", "guest", "02:00", 3, "x"))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "gateway.dhcp.shell",
        "message": "lease bound in zone guest",
        "mac": "02:00",
        "n": 3,
        "level_": "x",
    }


@given(st.text(), st.text())
def test_no_value_breaks_a_line_or_forges_a_field(hostname: str, name: str) -> None:
    """Whatever a guest calls its phone, the text is one printable line, and the JSON has exactly our fields."""
    text = line_of(TextFormatter(), "lease bound hostname=%s for %s", hostname, name)
    assert text.isprintable()
    fields = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text.partition("lease bound")[2]).split("hostname=")
    if not name:
        assert len(fields) == 2
        assert " " not in fields[1].strip()
    line = json.loads(line_of(JsonFormatter(), "lease bound hostname=%s", hostname))
    assert set(line) == {"time", "level", "logger", "message", "hostname"}


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter(), TextFormatter(journal=True)])
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
def test_secrets_are_never_printed(formatter: logging.Formatter, secret: object) -> None:
    """A secret is hidden by its type in every position, and by its field's name whatever its type."""
    for message, args in (
        ("checked %s", (secret,)),
        ("checked value=%s and %s", (secret, secret)),
        ("checked %(value)s", ({"value": secret},)),
        ("checked %(password)s", ({"password": "hunter2hunter2"},)),
        ("checked password=%s user=%s", ("hunter2hunter2", "alice")),
        ("checked secret=%r", ("hunter2hunter2",)),
        ("checked %s", ([secret],)),
        ("checked %s", ({"nested": (secret,)},)),
        (secret, ()),
    ):
        record = logging.LogRecord("gateway", logging.INFO, __file__, 1, message, args, None)
        SecretFilter().filter(record)
        assert "hunter2" not in formatter.format(record)


LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log", "once_per_minute", "_log_limited"}
LOGGERS = {"LOG", "_LOG", "log", "_log", "logger", "logging", "self"}  # self: of self._log_limited(...)
SECRET_NAMES = {"password", "secret", "coa_secret", "reveal", "credentials", "challenge", "chap_response"}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the gateway and the web interface that logs, with its place."""
    for folder in ("gateway", "webui"):
        for source in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text("utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
                owner = getattr(getattr(node.func, "value", None), "id", "LOG")
                if name in LOG_METHODS and owner in LOGGERS:
                    yield f"{source.relative_to(PROJECT)}:{node.lineno}", node


def test_no_log_call_is_given_a_secret() -> None:
    """No call that logs names a password, secret or credentials; the filter is only the second line of defence."""
    calls = list(log_calls())
    assert len(calls) > 10
    for place, call in calls:
        for node in ast.walk(call):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            assert name not in SECRET_NAMES, f"{place} logs {name}"


@given(st.text(max_size=40), st.lists(st.integers() | st.text(max_size=10), max_size=3))
def test_messages_of_any_shape_are_formatted_or_refused_by_python(message: str, args: list[object]) -> None:
    """A message whose placeholders fit is printed; one whose do not is the same TypeError or ValueError as ever."""
    for formatter in (TextFormatter(), JsonFormatter()):
        try:
            message % tuple(args)
        except (TypeError, ValueError, OverflowError):
            continue
        assert "\n" not in line_of(formatter, message, *args)


def test_a_traceback_stays_in_its_line() -> None:
    """An exception's trace is part of its line, line ends escaped; the JSON form has it as a field."""
    try:
        raise ZeroDivisionError("oh\nno")
    except ZeroDivisionError as err:
        caught = (type(err), err, err.__traceback__)
    text = line_of(TextFormatter(), "failed method=%s", "status", exc_info=caught)
    assert "ZeroDivisionError" in text
    assert "\n" not in text
    assert "ZeroDivisionError" in json.loads(line_of(JsonFormatter(), "failed", exc_info=caught))["trace"]


def test_the_journal_gets_its_severity() -> None:
    """Under systemd a line begins with the severity and leaves the time to the journal."""
    record = logging.LogRecord("gateway.dns", logging.ERROR, __file__, 1, "upstream lost", (), None)
    assert TextFormatter(journal=True).format(record) == "<3>dns upstream lost"
    assert JsonFormatter(journal=True).format(record).startswith("<3>{")


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_source_logs_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    """Each source has one line per minute; the next one tells how many were held back."""
    clock = Clock()
    limited = LogLimiter(60.0, 10, clock)
    log = logging.getLogger("gateway.test")
    with caplog.at_level(logging.WARNING):
        assert limited("a", log, logging.WARNING, "bad frame from=%s", "a")
        assert not limited("a", log, logging.WARNING, "bad frame from=%s", "a")
        assert limited("b", log, logging.WARNING, "bad frame from=%s", "b")
        clock.now = 59.9
        assert not limited("a", log, logging.WARNING, "bad frame from=%s", "a")
        clock.now = 60.0
        assert limited("a", log, logging.WARNING, "bad frame from=%s", "a")
    assert caplog.messages == ["bad frame from=a", "bad frame from=b", "bad frame from=a held_back=2"]


@pytest.fixture
def untouched_root() -> Iterator[None]:
    """The root logger as it was before."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.usefixtures("untouched_root")
def test_set_up_replaces_itself() -> None:
    """Called again on reload it changes level and form, and no line is printed twice."""
    stream = io.StringIO()
    set_up("debug", "text", stream)
    set_up("info", "json", stream)
    logging.getLogger("gateway.hub").debug("not this")
    logging.getLogger("gateway.hub").info("started secret=%s", "hunter2")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["started"]
    assert "hunter2" not in stream.getvalue()
