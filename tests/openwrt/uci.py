"""A stand-in for OpenWrt's `uci`, over one JSON file named by UCI_STATE: what our scripts use of it.

The state is {package: [[type, name or "", {option: value or [values]}]]}; commits are noted under "/commits". A package
that is not there cannot be changed, as a file in /etc/config that is missing cannot.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

Section = list[Any]  # Any: type, name, options as they stand in the JSON file
State = dict[str, list[Any]]


class Refused(Exception):
    """uci ends with 1."""


def main(words: list[str]) -> int:
    """Run one command; returns the exit code."""
    place = Path(os.environ["UCI_STATE"])
    state: State = json.loads(place.read_text())
    words = [word for word in words if word != "-q"]
    try:
        if words == ["batch"]:
            for line in sys.stdin:
                if line.strip():
                    run(state, shlex.split(line))
        else:
            run(state, words)
    except Refused:
        return 1
    finally:
        place.write_text(json.dumps(state))
    return 0


def run(state: State, words: list[str]) -> None:
    """One command; raises Refused."""
    verb, argument = words[0], words[1] if len(words) > 1 else ""
    if verb == "commit":
        state.setdefault("/commits", []).append(argument)
        package(state, argument)
    elif verb == "show":
        show(argument, package(state, argument))
    elif verb == "get":
        section, option = found(state, argument)
        value = section[0] if option is None else section[2].get(option)
        if value is None:
            raise Refused
        print(" ".join(value) if isinstance(value, list) else value)
    elif verb == "delete":
        section, option = found(state, argument)
        if option not in section[2]:
            raise Refused
        del section[2][option]
    else:
        path, _, value = argument.partition("=")
        if verb == "set" and path.count(".") == 1:
            make(state, path, value)
            return
        section, option = found(state, path)
        change(section[2], verb, option or "", value)


def change(options: dict[str, Any], verb: str, option: str, value: str) -> None:
    """Set an option, or change a list; raises Refused for what our scripts do not use."""
    values = options.get(option, [])
    values = values if isinstance(values, list) else [values]
    if verb == "set":
        options[option] = value
    elif verb == "add_list":
        options[option] = [*values, value]
    elif verb == "del_list":
        options[option] = [item for item in values if item != value]
    else:
        raise Refused


def make(state: State, path: str, kind: str) -> None:
    """A named section, new or of another type."""
    name, section = path.split(".")
    for known in package(state, name):
        if known[1] == section:
            known[0] = kind
            return
    package(state, name).append([kind, section, {}])


def package(state: State, name: str) -> list[Section]:
    """The sections of a package."""
    if name not in state:
        raise Refused
    return state[name]


def found(state: State, path: str) -> tuple[Section, str | None]:
    """A section by name or as @type[number], and which option of it."""
    name, place, *option = path.split(".")
    sections = package(state, name)
    if match := re.fullmatch(r"@(\w+)\[(\d+)\]", place):
        alike = [section for section in sections if section[0] == match[1]]
        chosen = alike[int(match[2])] if int(match[2]) < len(alike) else None
    else:
        chosen = next((section for section in sections if section[1] == place), None)
    if chosen is None:
        raise Refused
    return chosen, option[0] if option else None


def show(name: str, sections: list[Section]) -> None:
    """Every section and option, as `uci show` writes them."""
    counts: dict[str, int] = {}
    for kind, label, options in sections:
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        place = f"{name}.{label}" if label else f"{name}.@{kind}[{number}]"
        print(f"{place}={kind}")
        for option, value in options.items():
            words = value if isinstance(value, list) else [value]
            print(f"{place}.{option}={' '.join(shlex.quote(word) for word in words)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
