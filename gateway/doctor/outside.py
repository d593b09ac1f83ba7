"""The examination without a daemon: what can be found out by a command on the box alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.config_loader import ConfigError, Loaded, check, interfaces, load
from gateway.doctor import checks, probes
from gateway.doctor.examination import Look, examine_in_threads
from gateway.doctor.radius_servers import judge_server
from gateway.doctor.rows import Row, fail, ok, skipped

_ONLY_INSIDE: Final = ("packet filter", "DHCP", "DNS before login", "accounting queue")


def examine_box(config_path: Path, why: str) -> list[Row]:
    """Every row that needs no daemon; `why` is the sentence on why there is none."""
    remedy = "Start it: systemctl start posternd (OpenWrt: service postern start), and read its log for what stops it."
    rows = [fail("posternd", f"{why[:1].upper()}{why[1:].rstrip('.')}.", remedy)]
    loaded, found = _configuration(config_path)
    rows.append(found)
    if loaded is None:
        return [*rows, skipped("everything else", "Without a configuration nothing else can be checked.", found.remedy)]
    if not loaded.config.general.enabled:
        off = skipped(
            "posternd",
            "The gateway is switched off (option enabled '0' of section postern), so posternd does not run and nothing "
            "of the network is checked.",
            f"To serve guests, set it to '1' in {config_path} and start posternd.",
        )
        return [off, found, *examine_in_threads(checks.of_box(loaded.config, config_path))]
    rows += examine_in_threads(_checks(loaded, config_path))
    return rows + [checks.not_without_daemon(check) for check in _ONLY_INSIDE]


def _checks(loaded: Loaded, config_path: Path) -> list[Look]:
    config = loaded.config
    servers = config.radius.servers
    looks = [
        *checks.of_networking(config),
        *checks.of_neighbourhood(config, running=False),
        *checks.of_names(config, running=False),
        *checks.of_pages(config),
        *checks.of_box(config, config_path),
    ]
    if servers:
        looks.append(
            Look(
                "RADIUS",
                lambda: [judge_server(one, None) for one in probes.ask_radius(servers, config.general.nas_identifier)],
            )
        )
    return looks


def _configuration(path: Path) -> tuple[Loaded | None, Row]:
    """The configuration as far as it can be read, and the row about it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        remedy = "Name another file with --config, or run the command as root; posternd --example prints one."
        return None, fail("configuration", f"{path} cannot be read: {err.strerror}.", remedy)
    except UnicodeDecodeError:
        return None, fail("configuration", f"{path} is not UTF-8 text.", "Save it as UTF-8.")
    problems = [str(problem) for problem in check(text, str(path), interfaces())]
    try:
        loaded: Loaded | None = load(text, str(path))
    except ConfigError as err:
        loaded = err.partial
    if problems:
        remedy = f"Mend it; posternd --check {path} names every problem."
        return loaded, fail("configuration", " ".join(f"{problem}." for problem in problems[:3]), remedy)
    return loaded, ok("configuration", f"{path} has no problem.")
