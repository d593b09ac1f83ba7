"""`postern capture start|stop|list|delete`: record packets of an interface or of one client to a file.

A recording runs in a child of its own and ends by itself at its bounds; `postern analyze` reads the file, also while it
grows. Exit status: 0 done, 1 failed or not found, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.options import Subparsers, size, span

if TYPE_CHECKING:
    from gateway.capture.recording import Recording

CAPTURES: Final = Path("/var/lib/postern/captures")
FAILED, USAGE = 1, 2


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the `capture` command with its verbs."""
    parser = subparsers.add_parser("capture", help="record packets to a file")
    parser.set_defaults(func=_help(parser), run=_help(parser))
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")

    start = verbs.add_parser("start", help="begin a recording")
    start.add_argument("interface", help="interface to record on, such as br-guest")
    start.add_argument("--client", metavar="MAC", help="only the packets of this client")
    start.add_argument(
        "--filter",
        default="",
        metavar="TEXT",
        help="such as 'host 10.0.0.5 and (tcp or udp) and not port 22'",
    )
    start.add_argument("--bytes", type=size, default=50 << 20, metavar="SIZE", help="stop at this size (default 50M)")
    start.add_argument("--packets", type=int, default=1_000_000, metavar="N", help="stop after N packets (1000000)")
    start.add_argument("--seconds", type=span, default=600, metavar="TIME", help="stop after this time (default 10m)")
    start.add_argument("--snap", type=int, default=262_144, metavar="N", help="keep only N bytes of each packet")
    start.add_argument("--ring", type=int, default=1, metavar="N", help="N files, the newest stay; --bytes for all")
    start.add_argument("--promiscuous", action="store_true", help="also frames for other stations")
    start.add_argument("--owner", default="postern", help="user the files belong to (default postern)")
    _common(start)
    start.set_defaults(func=_start, run=_start)

    stop = verbs.add_parser("stop", help="end a recording")
    stop.add_argument("id", help="the recording, as `list` shows it")
    _common(stop)
    stop.set_defaults(func=_stop, run=_stop)

    shown = verbs.add_parser("list", help="recordings, newest first")
    _common(shown)
    shown.set_defaults(func=_list, run=_list)

    delete = verbs.add_parser("delete", help="remove a recording that has ended")
    delete.add_argument("id", help="the recording, as `list` shows it")
    _common(delete)
    delete.set_defaults(func=_delete, run=_delete)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, default=CAPTURES, help=f"where recordings are (default {CAPTURES})")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON for programs")


def _help(parser: argparse.ArgumentParser) -> Any:  # Any: a command function
    def run(_args: argparse.Namespace) -> int:
        parser.print_help()
        return USAGE

    return run


def _start(args: argparse.Namespace) -> int:
    from gateway.addresses import MacAddress
    from gateway.capture import recorder
    from gateway.capture.expression import FilterError
    from gateway.capture.recording import Bounds
    from gateway.capture.tap import TapError

    bounds = Bounds(
        max_bytes=args.bytes,
        max_packets=args.packets,
        max_seconds=float(args.seconds),
        snap_bytes=args.snap,
        ring_files=args.ring,
    )
    problems = bounds.problems()
    text = args.filter.strip()
    if args.client is not None:
        try:
            client = f"mac {MacAddress.parse(args.client)}"
        except ValueError as err:
            problems.append(f"--client: {err}")
        else:
            text = f"{client} and ({text})" if text else client
    if problems:
        return _complain("; ".join(problems), USAGE)
    try:
        started = recorder.start(
            args.directory, args.interface, text, bounds, promiscuous=args.promiscuous, owner=args.owner
        )
    except FilterError as err:
        return _complain(f"the filter cannot be understood: {err}", USAGE)
    except TapError as err:
        return _complain(str(err), FAILED)
    except OSError as err:
        return _complain(f"{err.filename or args.directory}: {err.strerror}", FAILED)
    if _wants_json(args):
        print(_json(started))
    else:
        print(f"recording {started.id} on {started.interface}, at most {args.bytes:,} bytes or {args.seconds} seconds")
        print(f"end it with: postern capture stop {started.id}")
    return 0


def _stop(args: argparse.Namespace) -> int:
    from gateway.capture import recorder

    try:
        ended = recorder.stop(args.directory, args.id)
    except (LookupError, TimeoutError) as err:
        return _complain(str(err.args[0]), FAILED)
    if _wants_json(args):
        print(_json(ended))
        return 0
    print(f"{ended.id}: {ended.status} ({ended.ended_by}), {ended.packets:,} packets, {ended.bytes:,} bytes")
    if ended.dropped:
        print(f"{ended.dropped:,} packets were dropped because the recorder was too slow")
    if ended.files:
        print(f"look into it with: postern analyze {args.directory / ended.id / ended.files[-1]}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from gateway.capture import recording

    found = recording.listing(args.directory)
    if _wants_json(args):
        print(json.dumps([json.loads(_json(item)) for item in found], indent=1))
        return 0
    if not found:
        print(f"no recordings in {args.directory}")
        return 0
    print(f"{'ID':<34}  {'STATUS':<10}  {'PACKETS':>10}  {'BYTES':>12}  {'TIME':>7}  FILTER")
    for item in found:
        until = item.finished_unix if item.finished_unix is not None else time.time()
        status = item.status if item.status == "recording" else item.ended_by or item.status
        print(
            f"{item.id:<34}  {status:<10.10}  {item.packets:>10,}  {item.bytes:>12,}  "
            f"{until - item.started_unix:>6.0f}s  {item.filter or 'everything'}"
        )
    return 0


def _delete(args: argparse.Namespace) -> int:
    from gateway.capture import recording

    known = recording.load(args.directory / args.id) if recording.is_recording_id(args.id) else None
    if known is None:
        return _complain(f"there is no recording {args.id!r} in {args.directory}", FAILED)
    if recording.as_it_stands(known).status == "recording":
        return _complain(f"{args.id} still runs; end it first with `postern capture stop {args.id}`", FAILED)
    recording.delete(args.directory, known)
    return 0


def _wants_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))


def _json(item: Recording) -> str:
    import dataclasses

    return json.dumps(dataclasses.asdict(item), indent=1, sort_keys=True)


def _complain(text: str, status: int) -> int:
    print(f"postern capture: {text}", file=sys.stderr)
    return status
