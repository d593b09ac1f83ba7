"""`postern`: look into the gateway and steer it.

Exit status: 0 done; 1 it failed, or what was asked for does not exist; 2 wrong usage; 3 posternd cannot be reached;
4 not permitted. Only the module of the command that was asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final, NamedTuple

from gateway import __version__
from gateway.analysis.escape import show
from gateway.cli.options import Subparsers, add_common
from gateway.control import protocol
from gateway.control.blocking import DEFAULT_SOCKET
from gateway.control.protocol import ControlError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
DENIED: Final = 4
LONGEST_MESSAGE: Final = 2000  # characters of the daemon's sentence, which may repeat a guest's words
INTERRUPTED: Final = 130  # as the shell has it for SIGINT

_STATUS_OF_CODE: Final = {
    protocol.UNREACHABLE: UNREACHABLE,
    protocol.TIMEOUT: UNREACHABLE,
    protocol.TOO_MANY_CONNECTIONS: UNREACHABLE,
    protocol.DENIED: DENIED,
    protocol.UNAUTHENTICATED: DENIED,
    protocol.BAD_PARAMS: USAGE,
}


class NotInstalled(Exception):
    """A command's module is in a part of Postern that this device is without; the message says which."""


class Command(NamedTuple):
    """A command: the module that has its `add_parser`, and its line in the overview."""

    module: str
    summary: str


COMMANDS: Final = {
    "status": Command("gateway.cli.status", "how the gateway is doing"),
    "doctor": Command("gateway.cli.doctor", "what is wrong, and how to mend it"),
    "sessions": Command("gateway.cli.sessions", "who is online, and letting clients in or out"),
    "leases": Command("gateway.cli.leases", "addresses given out by DHCP"),
    "events": Command("gateway.cli.events", "what happened to clients, in order and in words"),
    "users": Command("gateway.cli.users", "local accounts"),
    "vouchers": Command("gateway.cli.vouchers", "codes that let guests in"),
    "admins": Command("gateway.cli.admins", "who may administer through the web interface"),
    "setup-code": Command("gateway.cli.setup_code", "the code for the first administrator"),
    "config": Command("gateway.cli.config", "check, show or reload the configuration"),
    "ruleset": Command("gateway.cli.ruleset", "the packet filter's rules"),
    "radius": Command("gateway.cli.radius", "RADIUS servers and queued accounting"),
    "metrics": Command("gateway.cli.metrics", "metrics as Prometheus reads them"),
    "debug": Command("gateway.cli.debug", "profile, heap, tasks and rate limiters of posternd"),
    "analyze": Command("gateway.cli.analyze", "analyse a capture file"),
    "capture": Command("gateway.cli.capture", "record packets to a file"),
    "backup": Command("gateway.cli.backup", "write the configuration to a file, secrets sealed"),
    "restore": Command("gateway.cli.restore", "take back what a backup holds"),
    "upgrade": Command("gateway.cli.upgrade", "install an upgrade bundle and start anew"),
    "restart": Command("gateway.cli.restart", "start the device anew"),
    "factory-reset": Command("gateway.cli.factory_reset", "remove everything that was set on this device"),
    "completion": Command("gateway.cli.completion", "completion for the shell"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (argparse itself exits with 2)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = make_parser(command_in(words))
    except NotInstalled as err:
        print(f"postern: {err}", file=sys.stderr)
        return FAILED
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return USAGE
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
    except ControlError as err:
        print(f"postern: {show(err.message, LONGEST_MESSAGE)}", file=sys.stderr)
        return _STATUS_OF_CODE.get(err.code, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (less, head) has gone: not a failure. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as err:
        print(f"postern: {err.filename or 'error'}: {err.strerror or err}", file=sys.stderr)
        return FAILED
    assert isinstance(status, int)
    return status


def command_in(words: Sequence[str]) -> str | None:
    """The first word that is not an option or an option's value."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--socket":
            skip = True
        elif not word.startswith("-"):
            return word
    return None


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the options of `command` only; the others are there by name. Raises NotInstalled."""
    parser = argparse.ArgumentParser(
        prog="postern",
        description="Look into the gateway and steer it.",
        epilog="Exit status: 0 done, 1 failed or not found, 2 wrong usage, 3 posternd not reachable, 4 not permitted.",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    add_common(parser)
    parser.set_defaults(json=False, socket=DEFAULT_SOCKET)
    subparsers: Subparsers[argparse.ArgumentParser] = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, (module, summary) in COMMANDS.items():
        if name == command:
            _module(name, module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def _module(command: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name != name:
            raise
        raise NotInstalled(
            f"{command} comes with the package postern-analysis, which is not installed (OpenWrt: opkg install "
            "postern-analysis)"
        ) from None


class _Version(argparse.Action):
    """Prints the version; looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: object) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=str(options.get("help", "")))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        print(f"postern {__version__}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
