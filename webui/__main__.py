"""The entry of `postern-web`: arguments, event loop (uvloop where it is installed), role, exit code.

Exit codes: 0 after a stop by SIGTERM or SIGINT, 1 when the process cannot run here, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Final

from gateway.control.client import ControlClient
from gateway.log import LEVELS, set_up
from gateway.memory import keep_small
from webui.parsing import DEFAULT_PARSER, PARSERS
from webui.privileges import UserError, become

try:
    import uvloop
except ImportError:  # armhf and OpenWrt have no build of it
    uvloop = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_STOP_GRACE_S: Final = 5.0

Role = Callable[[argparse.Namespace], Coroutine[None, None, None]]


async def serve_portal(options: argparse.Namespace) -> None:
    """Run the guest side until a signal."""
    from webui.portal.service import PortalService  # here, so that each role holds its own side in memory alone

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        service = PortalService(partial(ControlClient.connect, options.socket), options.parser, group, time.monotonic)
        service.start()
        await stop.wait()
        log.info("stopping")
        await service.stop(_STOP_GRACE_S)


async def serve_admin(options: argparse.Namespace) -> None:
    """Run the administration's side until a signal; raises UserError for a place to listen that is none."""
    try:
        from webui.admin.daemon import AdminDaemon
    except ModuleNotFoundError as err:
        if err.name not in ("webui.admin", "webui.admin.daemon"):
            raise
        raise UserError(
            "the administration pages come with the package postern-admin, which is not installed"
        ) from None
    from webui.admin.service import AdminService, ListenError, Options, read_place

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        places = tuple(read_place(text) for text in options.listen)
    except ListenError as err:
        raise UserError(str(err)) from None
    chosen = Options(
        places,
        options.state_dir,
        options.certificate,
        options.key,
        options.spool if options.spool.is_dir() else None,
        options.capture_limit_mb << 20,
    )
    daemon = AdminDaemon(ControlClient(options.socket))
    async with asyncio.TaskGroup() as group:
        service = AdminService(daemon, chosen, options.parser, group, time.monotonic, time.time)
        service.start()
        await stop.wait()
        log.info("stopping")
        await service.stop(_STOP_GRACE_S)


ROLES: Final[dict[str, Role]] = {"portal": serve_portal, "admin": serve_admin}


def main(argv: list[str] | None = None) -> int:
    """Run `postern-web`; returns the exit code."""
    options = _parse(argv)
    keep_small()  # each connection over TLS has a buffer of 256 KB, which would never be given back
    set_up(options.log_level, options.log_format)
    try:
        if options.user:
            become(options.user)
        elif os.geteuid() == 0:
            log.warning("running as root; give --user NAME to become an ordinary user")
        make_loop = (
            asyncio.new_event_loop if uvloop is None or options.event_loop == "asyncio" else uvloop.new_event_loop
        )
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(ROLES[options.role](options))
    except UserError as err:
        print(f"postern-web: {err}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="postern-web", description="The web pages of a Postern gateway.")
    parser.add_argument(
        "--role", choices=sorted(ROLES), required=True, help="which pages: portal for guests, admin for operators"
    )
    parser.add_argument(
        "--socket", type=Path, default=Path("/run/postern/control.sock"), help="the daemon's control socket"
    )
    parser.add_argument("--user", default="", help="become this user when started as root")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="PLACE",
        help="admin: ADDRESS:PORT or INTERFACE:PORT, repeatable; default: what the gateway's configuration says",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path("/var/lib/postern-admin-web"),
        help="admin: where the certificate that is made on this device is kept",
    )
    parser.add_argument(
        "--spool", type=Path, default=Path("/var/lib/postern/spool"), help="admin: where captures are kept and analysed"
    )
    parser.add_argument(
        "--capture-limit-mb", type=int, default=500, metavar="N", help="admin: the largest upload (default 500)"
    )
    parser.add_argument("--certificate", type=Path, help="admin: another certificate with its chain (PEM)")
    parser.add_argument("--key", type=Path, help="admin: the key of --certificate (PEM)")
    parser.add_argument("--parser", choices=sorted(PARSERS), default=DEFAULT_PARSER, help="what reads HTTP heads")
    parser.add_argument("--event-loop", choices=("auto", "asyncio"), default="auto", help="auto takes uvloop if there")
    parser.add_argument("--log-level", choices=list(LEVELS), default="info", help="how much is logged")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="form of a log line")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
