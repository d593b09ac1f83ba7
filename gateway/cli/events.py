"""`postern events`: what happened to clients, in order and in words."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Final

from gateway.analysis.escape import show
from gateway.cli.options import Subparsers, add_common, client_of
from gateway.cli.render import Output, Row, display_width, rows_of, text
from gateway.control.protocol import JsonValue, Params

DEFAULT_LIMIT: Final = 100
_KIND_WIDTH: Final = 14
_LONGEST_TEXT: Final = 1000


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`postern events`."""
    parser = subparsers.add_parser(
        "events",
        help="what happened to clients, in order and in words",
        description="What happened to clients, in order and in words: leases, logins, answers, gate opened and closed.",
    )
    parser.add_argument("--client", metavar="CLIENT", help="only this client: a MAC or IP address, or a session id")
    parser.add_argument("--follow", "-f", action="store_true", help="go on printing what happens, until interrupted")
    parser.add_argument(
        "--limit", "-n", type=int, default=DEFAULT_LIMIT, metavar="N", help=f"the last N events ({DEFAULT_LIMIT})"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The last events, and with --follow those that come."""
    params: Params = {} if arguments.client is None else {"client": arguments.client}
    output = Output()
    printer = EventPrinter(output, one_client=arguments.client is not None)
    with client_of(arguments) as client, client_of(arguments) as follower:
        # The stream is begun first: an event between the two is then in both, never in neither.
        stream = follower.subscribe("events.follow", params) if arguments.follow else iter(())
        answer: JsonValue = {"rows": []}
        if arguments.limit > 0:
            answer = client.call("events.list", {**params, "limit": arguments.limit})
        if arguments.json and not arguments.follow:
            output.json(answer)
            return 0
        past = rows_of(answer)
        for event in past:
            _print(event, output, printer, arguments.json)
        output.flush()
        for new in stream:
            if isinstance(new, dict) and new not in past:
                _print(new, output, printer, arguments.json)
                output.flush()
    if not past and not arguments.follow:
        output.line("nothing is known to have happened")
    return 0


def _print(event: Row, output: Output, printer: EventPrinter, as_json: bool) -> None:
    if as_json:
        output.json(dict(event), compact=True)
    else:
        printer.print(event)


def print_events(output: Output, events: Sequence[Row], *, one_client: bool) -> None:
    """Events, one per line; of one client its names come once, at the top."""
    printer = EventPrinter(output, one_client=one_client)
    for event in events:
        printer.print(event)


class EventPrinter:
    """Prints events as they come: the date when it changes, then time, client, kind and words."""

    def __init__(self, output: Output, *, one_client: bool) -> None:
        self._output = output
        self._one_client = one_client
        self._said: str | None = None  # the client named last
        self._day: str | None = None

    def print(self, event: Row) -> None:
        """One event; words longer than the terminal is wide continue below themselves."""
        day, clock = _when(event)
        client = _client(event)
        if self._one_client and client != self._said:
            self._said = client
            self._output.heading(client)
        if day != self._day:
            self._day = day
            self._output.heading(day)
        lead = f"{clock}  "
        if not self._one_client:
            lead += f"{text(event.get('mac'))}  "
        lead += f"{text(event.get('kind')):<{_KIND_WIDTH}}  "
        words = show(str(event.get("text", "")), _LONGEST_TEXT)
        width = self._output.width
        for line in _wrap(words, None if width is None else width - display_width(lead)):
            self._output.line(lead + line)
            lead = " " * display_width(lead)


def _client(event: Row) -> str:
    parts = [text(event.get("mac"))]
    if event.get("ip"):
        parts.append(text(event.get("ip")))
    if event.get("zone"):
        parts.append(f"in zone {text(event.get('zone'))}")
    return " ".join(parts)


def _when(event: Row) -> tuple[str, str]:
    """Day and time of the box's clock, or seconds since its start while that was never set."""
    at_unix: JsonValue = event.get("at_unix")
    if isinstance(at_unix, int | float) and not isinstance(at_unix, bool):
        try:
            moment = time.localtime(at_unix)
        except (OverflowError, ValueError, OSError):  # a clock far outside of what calendars hold
            return "at an impossible time", text(at_unix)
        return time.strftime("%A, %Y-%m-%d", moment), time.strftime("%H:%M:%S", moment)
    at = event.get("at")
    seconds = at if isinstance(at, int | float) else 0.0
    return "before the clock was set (seconds since the system started)", f"{seconds:.3f}"


def _wrap(words: str, width: int | None) -> list[str]:
    if width is None or width < 20 or display_width(words) <= width:
        return [words]
    lines: list[str] = []
    line = ""
    for word in words.split(" "):
        longer = f"{line} {word}" if line else word
        if line and display_width(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]
