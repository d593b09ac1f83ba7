"""From the UCI file to the typed tree: reading, checking, and saying all that is wrong at once.

Pure: text in, `Loaded` out or `ConfigError`. What the tree holds and what each option accepts is in `config`; this
module knows how a value is written. Every problem is one sentence with file, line, section, option, value and remedy.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import Field, fields, replace
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any, Final

from gateway.addresses import Ipv4Range, MacAddress
from gateway.config import (
    SCHEMA_VERSION,
    Accounts,
    Admin,
    Config,
    Dhcp,
    Dns,
    Endpoint,
    Garden,
    General,
    Metrics,
    Network,
    Performance,
    Radius,
    RadiusServer,
    Reservation,
    Secret,
    Sessions,
    Uam,
    Zone,
)
from gateway.config_checks import Complain, check_whole
from gateway.uci import Section, UciSyntaxError, Value, parse
from gateway.values import value_class


@value_class
class Problem:
    """One thing that is wrong, and how to mend it."""

    file: str
    line: int
    place: str  # "zone 'guest', option lease_time"
    value: str | None
    sentence: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        place = f"{self.place}: " if self.place else ""
        value = f"{self.value!r} " if self.value is not None else ""
        return f"{where}{place}{value}{self.sentence}"


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` has everything that is wrong.

    `partial` is what could be read all the same, defaults in the place of what could not: enough to look for further
    problems, never to be run. None when the text is not even UCI.
    """

    def __init__(self, problems: Sequence[Problem], partial: Loaded | None = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)
        self.partial = partial


@value_class
class Loaded:
    """A usable configuration, where each value came from, and what was passed over."""

    config: Config
    origins: Mapping[tuple[str, str, str], int]  # (section type, section name, option) -> line
    warnings: tuple[Problem, ...] = ()


SINGLE: Final[Mapping[str, tuple[str, type[Any]]]] = {
    "postern": ("general", General),
    "network": ("network", Network),
    "performance": ("performance", Performance),
    "sessions": ("sessions", Sessions),
    "dhcp": ("dhcp", Dhcp),
    "dns": ("dns", Dns),
    "uam": ("uam", Uam),
    "radius": ("radius", Radius),
    "accounts": ("accounts", Accounts),
    "admin": ("admin", Admin),
    "metrics": ("metrics", Metrics),
}
REPEATED: Final[Mapping[str, tuple[str, type[Any]]]] = {
    "zone": ("zones", Zone),
    "radius_server": ("servers", RadiusServer),
    "garden": ("gardens", Garden),
    "reservation": ("reservations", Reservation),
}
_LISTENERS: Final = frozenset({"uam", "metrics", "admin"})  # their ports are held against each other
_LISTENING: Final = frozenset((section, "") for section in _LISTENERS)
_TRUE: Final = frozenset({"1", "on", "true", "yes", "enabled"})
_FALSE: Final = frozenset({"0", "off", "false", "no", "disabled"})


def load(text: str, filename: str = "postern", *, lenient: bool = False) -> Loaded:
    """Read a configuration; raises ConfigError with all its problems.

    `lenient` is for the start of the system only: when the file's schema is newer than ours (a rolled-back system),
    what we do not know becomes a warning instead of a problem.
    """
    return _Reader(filename, lenient).read(text)


def check(text: str, filename: str, present: Iterable[str]) -> list[Problem]:
    """Everything that is wrong with a configuration on a system with these interfaces, in the order of the file."""
    try:
        loaded = load(text, filename)
    except ConfigError as error:
        more = [] if error.partial is None else check_interfaces(error.partial, present, filename)
        return sorted([*error.problems, *more], key=lambda problem: problem.line)
    return check_interfaces(loaded, present, filename)


def option_name(item: Field[Any]) -> str:
    """The UCI name of a field."""
    return str(item.metadata["name"] or item.name)


def option_fields(section_class: type[Any]) -> tuple[Field[Any], ...]:
    """The fields of a section's class that are options of the file."""
    return tuple(item for item in fields(section_class) if "doc" in item.metadata)


def check_interfaces(loaded: Loaded, present: Iterable[str], filename: str = "postern") -> list[Problem]:
    """What the configuration names and this system does not have; `present` are the names of its interfaces."""
    have = set(present)
    wanted = [("zone", zone.name, "interface", zone.interface) for zone in loaded.config.zones]
    wanted += [("network", "", "uplink", uplink) for uplink in loaded.config.network.uplinks]
    problems = []
    for section, name, option, interface in wanted:
        if interface and interface not in have:
            line = loaded.origins.get((section, name, option), 0)
            known = ", ".join(sorted(have - {"lo"})) or "none"
            sentence = f"is not an interface of this system (it has: {known}); create it, or name the right one"
            problems.append(Problem(filename, line, _place(section, name, option), interface, sentence))
    return problems


class _Reader:
    def __init__(self, filename: str, lenient: bool) -> None:
        self._file = filename
        self._lenient = lenient
        self._newer = False
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []
        self._origins: dict[tuple[str, str, str], int] = {}
        self._faulty: set[tuple[str, str]] = set()  # sections, by type and name, with a value that could not be read

    def read(self, text: str) -> Loaded:
        try:
            sections = parse(text)
        except UciSyntaxError as error:
            raise ConfigError(
                [Problem(self._file, item.line, "", None, item.sentence) for item in error.problems]
            ) from None
        self._newer = _declared_schema(sections) > SCHEMA_VERSION
        single: dict[str, Any] = {}
        repeated: dict[str, list[Any]] = {attribute: [] for attribute, _ in REPEATED.values()}
        lines: dict[str, int] = {}
        for section in sections:
            if section.type in SINGLE:
                attribute, section_class = SINGLE[section.type]
                if attribute in single:
                    self._report(section.line, f"section {section.type}", None, "stands twice; keep one")
                    continue
                single[attribute] = self._section(section, section_class, "")
            elif section.type in REPEATED:
                attribute, section_class = REPEATED[section.type]
                name = section.name or f"{section.type}{len(repeated[attribute]) + 1}"
                if any(item.name == name for item in repeated[attribute]):
                    self._report(section.line, f"{section.type} {name!r}", None, "stands twice; give one another name")
                    continue
                lines[f"{section.type} {name}"] = section.line
                repeated[attribute].append(replace(self._section(section, section_class, name), name=name))
            else:
                known = [*SINGLE, *REPEATED]
                self._unknown(section.line, "", section.type, "section type", known)
                self._faulty.add((_nearest(section.type, known), section.name))
        servers = tuple(repeated.pop("servers"))
        if servers:
            single["radius"] = replace(single.get("radius", Radius()), servers=servers)
        single.update((name, tuple(items)) for name, items in repeated.items())
        config = Config(**single)
        check_whole(_sound(config, self._faulty), self._complain(lines))
        if self._problems:
            problems = sorted(self._problems, key=lambda problem: problem.line)
            raise ConfigError(problems, Loaded(config, self._origins))
        return Loaded(config, self._origins, tuple(self._warnings))

    def _section(self, section: Section, section_class: type[Any], name: str) -> Any:
        hints = typing.get_type_hints(section_class)
        known = {option_name(item): item for item in option_fields(section_class)}
        by_alias = {alias: item for item in known.values() for alias in item.metadata["aliases"]}
        given: dict[str, list[Value]] = {key: [value] for key, value in section.options.items()}
        for key, items in section.lists.items():
            given.setdefault(key, []).extend(items)
        values: dict[str, Any] = {}
        for key, written in given.items():
            item = known.get(key) or by_alias.get(key)
            if item is None:
                self._unknown(
                    written[0].line, f"{section.type} {name!r}" if name else section.type, key, "option", list(known)
                )
                continue
            option = option_name(item)
            self._origins[(section.type, name, option)] = written[-1].line
            try:
                values[item.name] = _convert(hints[item.name], item, [value.text for value in written])
            except ValueError as error:
                shown = None if hints[item.name] is Secret else " ".join(value.text for value in written)
                self._report(written[-1].line, _place(section.type, name, option), shown, str(error))
                self._faulty.add((section.type, name))
                values[item.name] = item.default
        for option, item in known.items():
            if item.metadata["required"] and item.name not in values:
                example = f" such as {item.metadata['example']!r}" if item.metadata["example"] else ""
                place = _place(section.type, name, option)
                self._report(section.line, place, None, f"is missing; give a value{example} ({item.metadata['doc']})")
                self._faulty.add((section.type, name))
        return section_class(**values)

    def _unknown(self, line: int, place: str, key: str, what: str, known: list[str]) -> None:
        near = _nearest(key, known)
        remedy = f"did you mean {near}?" if near else f"known are: {', '.join(sorted(known))}"
        problem = Problem(self._file, line, place, None, f"{key!r} is not a known {what}; {remedy}")
        if self._lenient and self._newer:
            self._warnings.append(problem)
        else:
            self._problems.append(problem)

    def _report(self, line: int, place: str, value: str | None, sentence: str) -> None:
        self._problems.append(Problem(self._file, line, place, value, sentence))

    def _line(self, section: str, name: str, option: str, lines: Mapping[str, int]) -> int:
        return self._origins.get((section, name, option)) or lines.get(f"{section} {name}", 0)

    def _complain(self, lines: Mapping[str, int]) -> Complain:
        """What reports a problem of sections that do not fit together, at the line of the option or the section."""

        def complain(section: str, name: str, option: str, value: object, sentence: str) -> None:
            if (section, name) in self._faulty or (section in _LISTENERS and not self._faulty.isdisjoint(_LISTENING)):
                return  # a default stands where its value could not be read
            line = self._line(section, name, option, lines)
            self._report(line, _place(section, name, option), None if value is None else str(value), sentence)

        return complain


def _sound(config: Config, faulty: Collection[tuple[str, str]]) -> Config:
    """What can be held together of a configuration: without sections of which a value could not be read, and without
    those that speak of such a zone.
    """
    bad = {name for section, name in faulty if section == "zone"}
    return replace(
        config,
        zones=tuple(zone for zone in config.zones if zone.name not in bad),
        gardens=tuple(garden for garden in config.gardens if garden.zone not in bad),
        reservations=tuple(
            item for item in config.reservations if item.zone not in bad and ("reservation", item.name) not in faulty
        ),
    )


def _declared_schema(sections: Iterable[Section]) -> int:
    for section in sections:
        if section.type == "postern" and (value := section.options.get("schema")):
            return int(value.text) if value.text.isdecimal() else 0
    return 0


def _place(section: str, name: str, option: str) -> str:
    named = f"{section} {name!r}" if name else section
    return f"{named}, option {option}" if option else named


def _convert(hint: Any, item: Field[Any], texts: list[str]) -> Any:
    """Turn written values into the field's type; raises ValueError with what would be accepted."""
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        words = [word for text in texts for word in text.split()]
        return tuple(_checked(_scalar(element, word), word, item) for word in words)
    if len(texts) > 1:
        raise ValueError(f"is given {len(texts)} times; keep one")
    text = texts[0]
    if text == "" and type(None) in typing.get_args(hint):
        return None
    return _checked(_scalar(hint, text), text, item)


def _nearest(text: str, known: Iterable[str]) -> str:
    """What was probably meant; empty when nothing is like it."""
    import difflib  # here, because it stays in memory for good, and most files have no mistake

    return next(iter(difflib.get_close_matches(text, known, n=1)), "")


def _checked(value: Any, text: str, item: Field[Any]) -> Any:
    """Hold one value against the range, the choices and the length of its option."""
    low, high, unit = item.metadata["low"], item.metadata["high"], item.metadata["unit"]
    choices, minimum_length = item.metadata["choices"], item.metadata["minimum_length"]
    suffix = f" {unit}" if unit else ""
    if choices and text not in choices:
        near = _nearest(text, choices)
        raise ValueError(f"is not one of {', '.join(choices)}" + (f"; did you mean {near}?" if near else ""))
    if low is not None and value < low and high is not None:
        raise ValueError(f"is too small; give {plain(low)} to {plain(high)}{suffix}")
    if low is not None and value < low:
        raise ValueError(f"is too small; give at least {plain(low)}{suffix}")
    if high is not None and value > high:
        raise ValueError(f"is too large; give at most {plain(high)}{suffix}")
    if minimum_length and not value and item.default:
        raise ValueError("is empty; give a value, or leave the option out")
    if minimum_length and 0 < len(value) < minimum_length:
        raise ValueError(
            f"is too short ({len(value)} characters); use at least {minimum_length}, better 16 random ones"
        )
    if item.metadata["required"] and isinstance(value, str) and not value:
        raise ValueError("is empty; give a value")
    return value


def plain(number: float) -> str:
    """A number without an exponent."""
    return str(int(number)) if number == int(number) else str(number)


def _scalar(hint: Any, text: str) -> Any:
    """Read one word as the type `hint`; raises ValueError with an example of what is accepted."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if isinstance(hint, types.UnionType) and len(members) == 1:
        return _scalar(members[0], text)
    if isinstance(hint, types.UnionType):
        return _either(members, text)
    if isinstance(hint, type) and issubclass(hint, Enum):
        accepted = [str(member.value) for member in hint]
        if text not in accepted:
            raise ValueError(f"is not one of {', '.join(accepted)}")
        return hint(text)
    reader = _READERS.get(hint)
    if reader is None:
        raise TypeError(f"no way to read {hint!r} from a configuration file")
    return reader(text)


def _either(members: list[Any], text: str) -> Any:
    """Read a value that may be of IPv4 or IPv6."""
    try:
        if IPv4Network in members:
            return ip_network(text, strict=True)
        return ip_address(text)
    except ValueError:
        what = (
            "a prefix such as 192.0.2.0/24 or 2001:db8::/32"
            if IPv4Network in members
            else "an IP address such as 192.0.2.1"
        )
        raise ValueError(f"is not {what}") from None


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("is neither 1 nor 0")


def _whole(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError("is not a whole number") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number such as 2.5") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("is not a number such as 2.5")
    return value


def _endpoint(text: str) -> Endpoint:
    """Read `192.0.2.1`, `192.0.2.1:53` or `[2001:db8::1]:53`; the port of DNS is the default."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        endpoint = Endpoint(ip_address(host), int(port, 10))
    except ValueError:
        raise ValueError("is not an address and port such as 192.0.2.1:53 or [2001:db8::1]:53") from None
    if not 1 <= endpoint.port <= 65535:
        raise ValueError("has a port outside 1 to 65535")
    return endpoint


def _example(reader: Callable[[str], Any], example: str) -> Callable[[str], Any]:
    """Replace a library's message by one with an example of what is accepted."""

    def read(text: str) -> Any:
        try:
            return reader(text)
        except ValueError:
            raise ValueError(f"is not {example}") from None

    return read


_READERS: Final[Mapping[Any, Callable[[str], Any]]] = {
    bool: _boolean,
    int: _whole,
    float: _number,
    str: str,
    Secret: Secret,
    MacAddress: _example(MacAddress.parse, "a MAC address such as 02:00:5e:10:00:2a"),
    Ipv4Range: _example(Ipv4Range.parse, "a range such as 10.41.0.10-10.41.0.250"),
    IPv4Address: _example(IPv4Address, "an IPv4 address such as 192.0.2.1"),
    IPv6Address: _example(IPv6Address, "an IPv6 address such as 2001:db8::1"),
    IPv4Interface: _example(IPv4Interface, "an address with its prefix such as 10.41.0.1/24"),
    IPv4Network: _example(IPv4Network, "an IPv4 prefix such as 192.0.2.0/24"),
    IPv6Network: _example(IPv6Network, "an IPv6 prefix such as 2001:db8::/32"),
    Endpoint: _endpoint,
}


def interfaces() -> list[str]:
    """Names of this system's network interfaces, for `check_interfaces`."""
    try:
        # Not /sys, which a chroot often lacks and which shows another namespace's until it is mounted anew.
        lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    except FileNotFoundError:
        return []
    return sorted(line.partition(":")[0].strip() for line in lines)
