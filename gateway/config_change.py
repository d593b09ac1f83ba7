"""Changing the configuration's text as a careful person would: one option at a time, comments and order kept. Pure.

Also what is said of a change before it is made: the difference, its sentences, and whether it could cut the
administrator off. Secrets leave here as a mark (`********`) that stands for "as it is" when the text comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from gateway.config import Config
from gateway.config_loader import REPEATED, SINGLE, option_fields, option_name
from gateway.config_schema import is_secret, kind_of, options_of
from gateway.control.views import written
from gateway.uci import Statement, UciSyntaxError, quote, statements
from gateway.values import value_class

MARK: Final = "********"
LONGEST_DIFF: Final = 10_000  # lines of both texts; comparing takes more than linear time
_CHANGED: Final = "(changed)"
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_COMMENTED: Final = r"^[ \t]*#[ \t]*(?:option|list)[ \t]+{}\b.*$"
_COMMENTED_SECTION: Final = re.compile(r"^[ \t]*#[ \t]*config[ \t]", re.MULTILINE)

# What decides whether the administrator still reaches the box afterwards. None: every option of the section.
_REACHES: Final[dict[str, frozenset[str] | None]] = {
    "postern": frozenset({"enabled", "run_dir", "group", "admin_group", "admin_user", "admin_web_group"}),
    "network": None,
    "zone": frozenset({"interface", "address"}),
    "admin": frozenset({"enabled", "port", "interface", "certificate", "certificate_key"}),
}


class ChangeError(ValueError):
    """What was asked cannot be done with this text; the message is a sentence."""


@value_class
class SetOption:
    """Give an option these values; none: take it out, so that its default holds. Makes the section if it is missing."""

    section_type: str
    name: str  # of the section; empty for a section of which there is one
    option: str
    values: tuple[str, ...]


@value_class
class AddSection:
    """Make a section without options."""

    section_type: str
    name: str


@value_class
class RemoveSection:
    """Take a section out, with its options and the comments among them."""

    section_type: str
    name: str


Change = SetOption | AddSection | RemoveSection


@value_class
class _Place:
    """One section where it stands."""

    type: str
    name: str  # as the loader calls it: anonymous sections of a repeated type are numbered
    header: Statement
    options: tuple[Statement, ...]

    @property
    def end(self) -> int:
        return self.options[-1].end if self.options else self.header.end


def apply(text: str, changes: Iterable[Change]) -> str:
    """The text with these changes, one after the other; raises ChangeError."""
    for change in changes:
        if isinstance(change, SetOption):
            text = _set(text, change)
        elif isinstance(change, AddSection):
            text = _add_section(text, change.section_type, change.name)
        else:
            text = _remove_section(text, change)
    return text


def masked(text: str) -> str:
    """The text with every secret as the mark; raises UciSyntaxError when the text is not UCI."""
    return _replaced(text, ((statement, MARK) for _, _, statement in _secrets(text) if statement.words[2]))


def unmasked(text: str, current: str) -> str:
    """The text with each mark replaced by the secret that stands at its place in `current`; raises ChangeError."""
    known = {(place.type, place.name, option): item.words[2] for place, option, item in _secrets(current)}
    found: list[tuple[Statement, str]] = []
    for place, option, statement in _secrets(text):
        if statement.words[2] == MARK:
            secret = known.get((place.type, place.name, option))
            if secret is None:
                where = f"{place.type} {place.name!r}" if place.name else place.type
                raise ChangeError(
                    f"line {statement.line}: {where}, option {option}: {MARK} stands for the secret that is there "
                    "already, and there is none; give the secret itself"
                )
            found.append((statement, secret))
    return _replaced(text, found)


def replaced_secrets(text: str, replace_one: Callable[[str], str]) -> str:
    """The text with each secret put through a function."""
    return _replaced(text, ((item, replace_one(item.words[2])) for _, _, item in _secrets(text) if item.words[2]))


def difference(old: str, new: str) -> str:
    """Both texts as a unified diff, without their secrets; one that was changed says so."""
    try:
        known = {(place.type, place.name, option): item.words[2] for place, option, item in _secrets(old)}
        after = _replaced(
            new,
            (
                (item, MARK if known.get((place.type, place.name, option)) == item.words[2] else _CHANGED)
                for place, option, item in _secrets(new)
                if item.words[2]
            ),
        )
        before = masked(old)
    except UciSyntaxError:
        return ""  # what is not UCI cannot be freed of its secrets
    old_lines, new_lines = before.splitlines(), after.splitlines()
    if len(old_lines) + len(new_lines) > LONGEST_DIFF:
        return "(too long to be compared line by line)"
    import difflib  # here, because it stays in memory for good

    return "\n".join(difflib.unified_diff(old_lines, new_lines, "now", "then", lineterm=""))


def sentences(old: Config, new: Config) -> list[str]:
    """What is different, option by option, with both values."""
    found = []
    for kind, (attribute, known) in SINGLE.items():
        found += list(_different(kind, getattr(old, attribute), getattr(new, attribute), known))
    for kind, (attribute, known) in REPEATED.items():
        before = {item.name: item for item in _repeated(old, attribute)}
        after = {item.name: item for item in _repeated(new, attribute)}
        found += [f"{kind} {name!r} is removed" for name in before if name not in after]
        found += [f"{kind} {name!r} is added" for name in after if name not in before]
        for name in before.keys() & after.keys():
            found += list(_different(f"{kind} {name!r}", before[name], after[name], known))
    return found


def cuts_off(old: Config, new: Config) -> bool:
    """Whether the administrator may not reach the box any more after this change."""
    for kind, watched in _REACHES.items():
        attribute, known = (SINGLE.get(kind) or REPEATED[kind])[:2]
        if kind in SINGLE:
            pairs = [(getattr(old, attribute), getattr(new, attribute))]
        else:
            before = {item.name: item for item in _repeated(old, attribute)}
            after = {item.name: item for item in _repeated(new, attribute)}
            if before.keys() != after.keys():
                return True
            pairs = [(before[name], after[name]) for name in before]
        for item in option_fields(known):
            if (watched is None or option_name(item) in watched) and any(
                getattr(one, item.name) != getattr(other, item.name) for one, other in pairs
            ):
                return True
    return False


def _different(place: str, old: Any, new: Any, known: type[Any]) -> Iterator[str]:
    for item in option_fields(known):
        before, after = getattr(old, item.name), getattr(new, item.name)
        if before == after:
            continue
        option, unit = option_name(item), item.metadata["unit"]
        if is_secret(place.split()[0], option):
            yield f"{place}: {option} is changed"
        else:
            yield f"{place}: {option} from {_said(before, unit)} to {_said(after, unit)}"


def _said(value: Any, unit: str) -> str:
    text = written(value)
    if not text:
        return "nothing"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float) and unit:
        return f"{text} {unit}"
    return repr(text) if isinstance(value, str) else text


def _repeated(config: Config, attribute: str) -> tuple[Any, ...]:
    sections: tuple[Any, ...] = getattr(config.radius if attribute == "servers" else config, attribute)
    return sections


# -- where things stand ------------------------------------------------------------------------------------------------


def _places(text: str) -> list[_Place]:
    headers: list[tuple[str, str, Statement]] = []
    options: list[list[Statement]] = []
    counts: dict[str, int] = {}
    for statement in statements(text):
        words = statement.words
        if words[0] in ("config", "c") and len(words) >= 2:
            section_type = words[1]
            counts[section_type] = counts.get(section_type, 0) + 1
            name = ""
            if section_type not in SINGLE:
                name = words[2] if len(words) > 2 and words[2] else f"{section_type}{counts[section_type]}"
            headers.append((section_type, name, statement))
            options.append([])
        elif words[0] in ("option", "o", "list", "l") and len(words) == 3 and options:
            options[-1].append(statement)
    return [_Place(*header, tuple(own)) for header, own in zip(headers, options, strict=True)]


def _find(text: str, section_type: str, name: str) -> _Place | None:
    if section_type in SINGLE:
        name = ""
    return next((place for place in _places(text) if (place.type, place.name) == (section_type, name)), None)


def _secrets(text: str) -> Iterator[tuple[_Place, str, Statement]]:
    """Every statement with a secret, its section, and the option's own name."""
    for place in _places(text):
        for statement in place.options:
            if is_secret(place.type, statement.words[1]):
                yield place, option_name(options_of(place.type)[statement.words[1]]), statement


def _replaced(text: str, values: Iterable[tuple[Statement, str]]) -> str:
    """The text with other values in some statements, the rest of which stays as it is written."""
    for statement, value in sorted(values, key=lambda pair: -pair[0].start):
        written_as = f"{statement.words[0]} {statement.words[1]} {quote(value)}"
        text = text[: statement.start] + written_as + text[statement.end :]
    return text


# -- changes -----------------------------------------------------------------------------------------------------------


def _set(text: str, change: SetOption) -> str:
    kind = kind_of(change.section_type, change.option)
    if kind is None:
        raise ChangeError(f"{change.section_type} has no option {change.option[:64]!r}")
    if any("\0" in value or "\r" in value for value in change.values):
        raise ChangeError(f"{change.option}: a value holds a character that no text file has")
    if not kind.several and len(change.values) > 1:
        raise ChangeError(f"{change.option} takes one value, not {len(change.values)}")
    place = _find(text, change.section_type, change.name)
    if place is None:
        if not change.values:
            return text
        text = _add_section(text, change.section_type, change.name)
        place = _find(text, change.section_type, change.name)
        assert place is not None
    item = options_of(place.type)[change.option]
    name = option_name(item)
    same = {name, *item.metadata["aliases"]}
    there = [statement for statement in place.options if statement.words[1] in same]
    if [value for statement in there for value in _values(statement, several=kind.several)] == list(change.values):
        return text
    keyword = "list" if kind.several else "option"
    lines = [f"{keyword} {name} {quote(value)}" for value in change.values]
    for statement in reversed(there[1:] if lines else there):
        text = _without(text, statement.start, statement.end)
    if not lines:
        return text
    if there:
        first = there[0]
        return text[: first.start] + ("\n" + _indent(text, first.start)).join(lines) + text[first.end :]
    return _inserted(text, place, name, lines)


def _values(statement: Statement, *, several: bool) -> list[str]:
    """An `option` of a list holds its values side by side."""
    return statement.words[2].split() if several else [statement.words[2]]


def _inserted(text: str, place: _Place, name: str, lines: list[str]) -> str:
    """Put new lines behind the comment that speaks of the option, else at the end of the section."""
    indent = _indent(text, place.options[-1].start) if place.options else "\t"
    at = _line_end(text, place.end)
    until = _section_end(text, place)
    comments = list(re.finditer(_COMMENTED.format(re.escape(name)), text[place.header.end : until], re.MULTILINE))
    if comments:
        at = _line_end(text, place.header.end + comments[-1].end())
    written_lines = "".join(f"\n{indent}{line}" for line in lines)
    return text[:at] + written_lines + text[at:]


def _section_end(text: str, place: _Place) -> int:
    """Where the section's own comments end: before the next section, also one that is commented out."""
    following = [other.header.start for other in _places(text) if other.header.start > place.header.start]
    until = min(following, default=len(text))
    commented = _COMMENTED_SECTION.search(text, place.header.end, until)
    return until if commented is None else commented.start()


def _add_section(text: str, section_type: str, name: str) -> str:
    if section_type not in SINGLE and section_type not in REPEATED:
        raise ChangeError(f"{section_type[:64]!r} is not a section type")
    if section_type in REPEATED and not _NAME.fullmatch(name):
        raise ChangeError(f"{name[:64]!r} is not a section's name; use letters, digits and underscores")
    if _find(text, section_type, name) is not None:
        raise ChangeError(f"there is a section {section_type} {name!r} already")
    header = f"config {section_type}" + (f" {quote(name)}" if section_type in REPEATED else "")
    separator = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{separator}{header}\n"


def _remove_section(text: str, change: RemoveSection) -> str:
    place = _find(text, change.section_type, change.name)
    if place is None:
        raise ChangeError(f"there is no section {change.section_type} {change.name!r}")
    return _without(text, place.header.start, place.end)


def _without(text: str, start: int, end: int) -> str:
    """The text without a span, and without the lines that it leaves empty (or with nothing but a comment on them)."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = _line_end(text, end)
    rest = text[end:line_end].strip()
    if text[line_start:start].strip() == "" and (not rest or rest.startswith("#")):
        return text[:line_start] + text[line_end + 1 :]
    # Something else stands on the line: only the statement goes, and the `;` that ended it.
    behind = text[end:]
    if behind.lstrip(" \t").startswith(";"):
        behind = behind.lstrip(" \t")[1:].lstrip(" \t")
    return text[:start] + behind


def _indent(text: str, position: int) -> str:
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line if not line.strip() else "\t"


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def read_changes(rows: Sequence[Any]) -> list[Change]:
    """Changes as they arrive in a request: [{section_type, name?, option, values} | {section_type, name, add|remove}].

    Any, because nothing is known of a request's values. Raises ChangeError.
    """
    changes: list[Change] = []
    for row in rows:
        if not isinstance(row, dict):
            raise ChangeError("each change must be an object")
        section_type, name = row.get("section_type"), row.get("name", "") or ""
        if not isinstance(section_type, str) or not isinstance(name, str):
            raise ChangeError("a change needs section_type, and name as a string")
        if row.get("remove") is True:
            changes.append(RemoveSection(section_type, name))
            continue
        if row.get("add") is True:
            changes.append(AddSection(section_type, name))
            continue
        option, values = row.get("option"), row.get("values")
        if not isinstance(option, str) or not isinstance(values, list):
            raise ChangeError("a change needs option and values, or add or remove")
        if not all(isinstance(value, str) for value in values):
            raise ChangeError(f"the values of {option[:64]!r} must be strings")
        changes.append(SetOption(section_type, name, option, tuple(values)))
    return changes
