"""`python -m gateway.system`: the helper that runs as root beside posternd. Exit codes: 0 stopped, 1 it cannot run."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.log import set_up
from gateway.system.server import SystemServer
from gateway.system.verbs import VERBS, Place

LOG: Final = logging.getLogger("postern-system")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="postern-system", description="What posternd needs root for, and no more.")
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=Path("/etc/config/postern"),
        help="the gateway's configuration (/etc/config/postern)",
    )
    parser.add_argument("--run-dir", type=Path, default=Path("/run/postern"), help="where its socket is made")
    parser.add_argument(
        "--admin-web-dir",
        type=Path,
        default=Path("/var/lib/postern-admin-web"),
        help="where the administration's pages keep their certificates",
    )
    parser.add_argument("--user", default="postern", help="posternd's user, the only one beside root that is answered")
    arguments = parser.parse_args(argv)
    set_up("info", "text")
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopped.append(number))
    place = Place(arguments.config, run_dir=arguments.run_dir, admin_web_dir=arguments.admin_web_dir)
    server = SystemServer(arguments.run_dir / "system.sock", arguments.user, place, VERBS)
    try:
        arguments.run_dir.mkdir(parents=True, exist_ok=True)
        server.bind()
    except OSError as err:
        LOG.error("cannot start: %s: %s", arguments.run_dir, err.strerror or err)
        return 1
    LOG.info("ready verbs=%d", len(VERBS))
    try:
        server.serve(lambda: bool(stopped))
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    os.umask(0o027)
    sys.exit(main())
