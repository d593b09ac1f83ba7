"""Options and argument types that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

from gateway.control.blocking import DEFAULT_SOCKET, SyncControlClient
from gateway.control.protocol import JsonValue, Params

# What argparse returns from add_subparsers(); its own name is private.
Subparsers = argparse._SubParsersAction

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?")
_SPAN: Final = re.compile(r"(\d+)\s*([smhdw]?)")
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--socket`, accepted before and after the command alike."""
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON for programs")
    parser.add_argument(
        "--socket",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="PATH",
        help=f"control socket of posternd ({DEFAULT_SOCKET})",
    )


def client_of(arguments: argparse.Namespace) -> SyncControlClient:
    """The connection to the daemon that the arguments name."""
    return SyncControlClient(arguments.socket)


def ask(arguments: argparse.Namespace, method: str, params: Params | None = None) -> JsonValue:
    """Call one method of that daemon; raises ControlError as the client's `call` does."""
    with client_of(arguments) as client:
        return client.call(method, params)


def size(text: str) -> int:
    """`500M`, `1.5 GB`, `2GiB`, `1000000` as octets: k, M, G and T are powers of 1000, with i of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount such as 500M, 1.5G or 1000000")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix])


def rate(text: str) -> int:
    """`2M`, `512k`, `10Mbit` as bit/s, with powers of 1000."""
    return size(re.sub(r"(bit/s|bps|bit)$", "", text.strip()))


def span(text: str) -> int:
    """`90`, `45m`, `8h`, `7d` as seconds."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90 (seconds), 45m, 8h or 7d")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The options that make up `Limits`: what a session may use."""
    group = parser.add_argument_group("limits (what is not given is not limited)")
    group.add_argument("--session-time", type=span, metavar="TIME", help="how long, such as 90m or 8h")
    group.add_argument("--idle-time", type=span, metavar="TIME", help="how long without a packet from the client")
    group.add_argument("--upload", type=size, metavar="SIZE", help="octets from the client, such as 500M")
    group.add_argument("--download", type=size, metavar="SIZE", help="octets to the client")
    group.add_argument("--total", type=size, metavar="SIZE", help="octets both ways together")
    group.add_argument("--upload-rate", type=rate, metavar="RATE", help="bit/s from the client, such as 2M")
    group.add_argument("--download-rate", type=rate, metavar="RATE", help="bit/s to the client")


def limits_of(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    """The limits that were given, under the names of the control protocol."""
    given = {
        "session_time_s": arguments.session_time,
        "idle_time_s": arguments.idle_time,
        "upload_bytes": arguments.upload,
        "download_bytes": arguments.download,
        "total_bytes": arguments.total,
        "upload_bps": arguments.upload_rate,
        "download_bps": arguments.download_rate,
    }
    return {name: value for name, value in given.items() if value is not None}
