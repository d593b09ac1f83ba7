"""posternd: the gateway's daemon. Arguments, configuration, event loop, exit code.

Exit codes: 0 stopped as asked, or checked without a problem; 1 it cannot run or the configuration has problems; 2 wrong
usage. Signals: SIGTERM and SIGINT stop it, SIGHUP reads the configuration again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config_loader import ConfigError, Loaded, check, check_interfaces, interfaces, load
from gateway.log import set_up
from gateway.memory import collect_later, import_loops_without_tls, keep_small

if TYPE_CHECKING:
    import argparse
    import asyncio

DEFAULT_CONFIG: Final = Path("/etc/config/postern")
AGAIN: Final = -1  # not an exit code: the daemon stopped in order to start anew
LOG: Final = logging.getLogger("posternd")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon, or check a configuration."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 1 and not words[0].startswith("-"):
        return _serve(Path(words[0]))  # how services start it; what reads options need not stay in memory
    arguments = _parse(words)
    if arguments.example:
        from gateway.config_example import example  # only this option needs it

        print(example(), end="")
        return 0
    if arguments.check:
        return _check(arguments.config)
    return _withdraw(arguments.config) if arguments.withdraw else _serve(arguments.config)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(prog="posternd", description="Postern's gateway daemon.")
    parser.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, help=f"configuration ({DEFAULT_CONFIG})"
    )
    parser.add_argument("--check", action="store_true", help="print every problem of the configuration and exit")
    parser.add_argument("--example", action="store_true", help="print a configuration with every option and exit")
    parser.add_argument(
        "--withdraw", action="store_true", help="take out of the kernel what a stopped posternd left there, and exit"
    )
    return parser.parse_args(words)


def _text(path: Path) -> str:
    """The configuration's text; raises StartRefused with a sentence."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StartRefused(
            f"{path}: cannot be read: {error.strerror}; name the file, or see posternd --example"
        ) from error
    except UnicodeDecodeError as error:
        raise StartRefused(f"{path}: is not UTF-8 text (octet {error.start})") from error


class StartRefused(Exception):
    """There is nothing to start from; the message says what to do."""


def _check(path: Path) -> int:
    try:
        problems = [str(problem) for problem in check(_text(path), str(path), interfaces())]
    except StartRefused as error:
        problems = [str(error)]
    for problem in problems:
        print(problem)
    print(f"{path}: {len(problems)} problem{'s' * (len(problems) != 1)}" if problems else f"{path}: no problem")
    return 1 if problems else 0


def _withdraw(path: Path) -> int:
    from gateway.withdraw import StillRuns, withdraw

    try:
        found = withdraw(load(_text(path), str(path), lenient=True).config)
    except (StartRefused, ConfigError, StillRuns, OSError) as error:
        print(f"posternd: {error}", file=sys.stderr)
        return 1
    print("everything of ours is out of the kernel" if found else "nothing of ours is in the kernel")
    return 0


def _serve(path: Path) -> int:
    try:
        loaded = load(_text(path), str(path), lenient=True)
    except (StartRefused, ConfigError) as error:
        print(f"posternd: {error}", file=sys.stderr)
        return 1
    general = loaded.config.general
    set_up(general.log_level, general.log_format)
    if _restored(loaded, path):
        return _serve(path)
    if not general.enabled:
        LOG.info("the gateway is switched off (option enabled '0')")
        return 0
    for warning in loaded.warnings:
        LOG.warning("configuration: %s", warning)
    # Not fatal: a bridge or Wi-Fi interface may come up after us, and is served from then on.
    for problem in check_interfaces(loaded, interfaces(), str(path)):
        LOG.warning("configuration: %s", problem)
    keep_small()
    collect_later()
    import_loops_without_tls()
    import asyncio

    factory, name = _loop_factory(general.event_loop)
    with asyncio.Runner(loop_factory=factory) as runner:
        code = runner.run(_run(loaded, path, name))
    if code == AGAIN:
        LOG.info("starting anew")
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)  # the same process: service manager, capabilities and limits stay
    return code


def _restored(loaded: Loaded, path: Path) -> bool:
    """Put in place a backup that was committed before; whether one was, so that the configuration is another.

    While it cannot be done the gateway runs as it was, and tries again at its next start.
    """
    general = loaded.config.general
    if not (Path(general.state_dir) / "restore").is_dir():
        return False
    from gateway.backup.staging import finish
    from gateway.control.protocol import ControlError
    from gateway.system.client import StartingSystem

    outside = StartingSystem(path, Path(general.run_dir))
    try:
        return finish(Path(general.state_dir), loaded.config.accounts.database, outside)
    except (ControlError, OSError) as error:
        LOG.error("the backup cannot be put in place now: %s", error)
        return False


def _loop_factory(wanted: str) -> tuple[Callable[[], asyncio.AbstractEventLoop] | None, str]:
    """uvloop's loop where wanted and installed. Never uvloop.install(): netlink in a thread needs asyncio's own."""
    if wanted == "asyncio":
        return None, "asyncio"
    try:
        import uvloop
    except ImportError:
        if wanted == "uvloop":
            LOG.warning("uvloop is not installed; using asyncio")
        return None, "asyncio"
    return uvloop.new_event_loop, "uvloop"


async def _run(loaded: Loaded, path: Path, loop_name: str) -> int:
    import asyncio

    from gateway.control.protocol import ControlError
    from gateway.daemon import Gateway, StartError
    from gateway.datapath.table import RulesetRefused
    from gateway.journal import JournalError

    loop = asyncio.get_running_loop()
    try:
        gateway = Gateway(loaded, path, loop_name)
    except (StartError, JournalError) as error:
        LOG.error("cannot start: %s", error)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop_wanted.set)
    loop.add_signal_handler(signal.SIGHUP, gateway.reload_wanted.set)
    try:
        await gateway.run()
    except (StartError, RulesetRefused, ControlError, OSError) as error:
        LOG.error("cannot start: %s", error)
        return 1
    return AGAIN if gateway.again else 0


if __name__ == "__main__":
    sys.stdout.flush()
    os.umask(0o027)
    sys.exit(main())
