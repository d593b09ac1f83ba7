"""Completion in a real bash: it offers what the parsers accept."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.completion import SCRIPT
from gateway.cli.main import COMMANDS, make_parser

OWN = [name for name in COMMANDS if name not in ("analyze", "capture")]  # these two complete file names


def complete(*words: str, path: str = "/usr/bin:/bin") -> set[str]:
    """What bash offers for the last word."""
    listed = " ".join(f"'{word}'" for word in ("postern", *words))
    script = (
        f'source {SCRIPT}; COMP_WORDS=({listed}); COMP_CWORD={len(words)}; _postern; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=20, check=True, env={"PATH": path}
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser's verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def words_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may come next: verbs, long options, fixed choices."""
    yield from children(parser)
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            yield from action.choices or ()


def test_commands_are_completed() -> None:
    """The first word is a command; the beginning of one is enough."""
    assert set(COMMANDS) <= complete("")
    assert complete("sess") == {"sessions"}
    assert complete("--socket", "/run/x", "sess") == {"sessions"}


@pytest.mark.parametrize("command", OWN)
def test_verbs_and_options_are_completed(command: str) -> None:
    """Each verb and each option that a command's parser knows is offered, and no other."""
    parser = children(make_parser(command))[command]
    common = {"--json", "--socket", "--help"}
    assert complete(command, "") - common == set(words_of(parser)) - common
    for verb, verb_parser in children(parser).items():
        if (command, verb) != ("config", "check"):
            assert complete(command, verb, "") - common == set(words_of(verb_parser)) - common


def test_values_of_options_are_completed() -> None:
    """Fixed values are offered after their option; a value of the user's own is left alone."""
    assert complete("sessions", "list", "--state", "on") == {"online"}
    assert complete("sessions", "kick", "--cause", "") == {"admin-reset", "user-request", "nas-request"}
    assert complete("debug", "heap", "--trace", "") == {"start", "stop"}
    assert complete("sessions", "list", "--zone", "") == set()


def test_clients_come_from_the_daemon(tmp_path: Path) -> None:
    """MACs of the listing are offered where a client is meant; without a daemon there are none and no noise."""
    fake = tmp_path / "postern"
    fake.write_text("#!/bin/sh\necho 'MAC ADDRESS'\necho '02:00:5e:10:00:2a 10.41.0.20 online'\necho '1 session'\n")
    fake.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    assert complete("sessions", "show", "02", path=path) == {"02:00:5e:10:00:2a"}
    assert complete("events", "--client", "", path=path) == {"02:00:5e:10:00:2a"}
    assert complete("events", "--client", "") == set()
