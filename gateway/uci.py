"""UCI text to sections and back: OpenWrt's configuration syntax, read without its library.

A file is a row of sections, `config TYPE ['NAME']`, each with `option NAME VALUE` and `list NAME VALUE` lines. Values
may be bare, in single quotes (taken literally) or in double quotes (with backslash escapes), pieces side by side join,
quotes may run over lines, `#` starts a comment where a word could start, and `;` ends a statement. This module knows
syntax only; what the options mean is in `config`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.values import value_class

_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
# The classic options of the predecessor are read with dashes as well; uci itself refuses them in names.
_OPTION_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]+")


@value_class
class Value:
    """One option's value, or one item of a list, and the line that it began on."""

    text: str
    line: int


@dataclass(slots=True)
class Section:
    """One `config` block. `name` is empty for an anonymous section."""

    type: str
    name: str
    line: int
    options: dict[str, Value] = field(default_factory=dict)
    lists: dict[str, list[Value]] = field(default_factory=dict)


@value_class
class SyntaxProblem:
    """A place where the text is not UCI; `sentence` says what was expected."""

    line: int
    sentence: str


class UciSyntaxError(ValueError):
    """The text is not UCI; `problems` has every place that was found."""

    def __init__(self, problems: list[SyntaxProblem]) -> None:
        super().__init__("; ".join(f"line {problem.line}: {problem.sentence}" for problem in problems))
        self.problems = problems


class Statement(NamedTuple):
    """One statement where it stands: its words, the line that it begins on, and `text[start:end]`."""

    line: int
    words: list[str]
    start: int
    end: int


def parse(text: str) -> list[Section]:
    """Read UCI text; raises UciSyntaxError with all problems, after reading on past each."""
    sections: list[Section] = []
    problems: list[SyntaxProblem] = []
    for statement in statements(text):
        try:
            _statement(statement.line, statement.words, sections)
        except UciSyntaxError as error:
            problems.extend(error.problems)
    if problems:
        raise UciSyntaxError(problems)
    return sections


def statements(text: str) -> list[Statement]:
    """Split text into statements; raises UciSyntaxError for a quote that is never closed."""
    found: list[Statement] = []
    words: list[str] = []
    start = behind = position = 0
    start_line = line = 1
    length = len(text)
    while position < length:
        character = text[position]
        if character in "\n;":
            if words:
                found.append(Statement(start_line, words, start, behind))
                words = []
            line += character == "\n"
            position += 1
        elif character in " \t\r":
            position += 1
        elif character == "#":
            end = text.find("\n", position)
            position = length if end < 0 else end
        else:
            if not words:
                start_line, start = line, position
            word, behind = _word(text, position, line)
            words.append(word)
            line += text.count("\n", position, behind)
            position = behind
    if words:
        found.append(Statement(start_line, words, start, behind))
    return found


def render(sections: list[Section]) -> str:
    """Write sections as UCI text that `parse` reads back to the same."""
    lines: list[str] = []
    for section in sections:
        lines.append(f"config {section.type}" + (f" {quote(section.name)}" if section.name else ""))
        lines.extend(f"\toption {name} {quote(value.text)}" for name, value in section.options.items())
        lines.extend(f"\tlist {name} {quote(value.text)}" for name, values in section.lists.items() for value in values)
        lines.append("")
    return "\n".join(lines)


def quote(text: str) -> str:
    """Put a value into single quotes; a quote within is written as uci itself writes it."""
    return "'" + text.replace("'", "'\\''") + "'"


def _statement(line: int, words: list[str], sections: list[Section]) -> None:
    keyword, arguments = words[0], words[1:]
    if keyword in ("config", "c"):
        if not 1 <= len(arguments) <= 2:
            raise _problem(line, "a section is written config TYPE 'NAME'; the name may be left out")
        if not _NAME.fullmatch(arguments[0]):
            raise _problem(line, f"{arguments[0]!r} is not a section type: use letters, digits and underscores")
        name = arguments[1] if len(arguments) == 2 else ""
        if name and not _NAME.fullmatch(name):
            raise _problem(line, f"{name!r} is not a section name: use letters, digits and underscores")
        sections.append(Section(arguments[0], name, line))
        return
    if keyword in ("package", "p"):
        if len(arguments) != 1:
            raise _problem(line, "package takes one name")
        return
    if keyword not in ("option", "o", "list", "l"):
        raise _problem(line, f"a line begins with config, option or list, not with {keyword!r}")
    if not sections:
        raise _problem(line, f"{keyword} stands before the first config line")
    if len(arguments) != 2:
        found = "no value" if len(arguments) < 2 else f"{len(arguments) - 1} values (put a value with blanks in quotes)"
        raise _problem(line, f"{keyword} takes a name and one value; here is {found}")
    name, text = arguments
    if not _OPTION_NAME.fullmatch(name):
        raise _problem(line, f"{name!r} is not an option's name: use letters, digits and underscores")
    value = Value(text, line)
    section = sections[-1]
    if keyword in ("list", "l"):
        section.lists.setdefault(name, []).append(value)
    else:
        section.options[name] = value


def _problem(line: int, sentence: str) -> UciSyntaxError:
    return UciSyntaxError([SyntaxProblem(line, sentence)])


def _word(text: str, position: int, line: int) -> tuple[str, int]:
    """Read one word, quoted pieces joined; returns it and the position behind it."""
    pieces: list[str] = []
    length = len(text)
    while position < length and text[position] not in " \t\r\n;":
        character = text[position]
        if character == "'":
            end = text.find("'", position + 1)
            if end < 0:
                raise _problem(line, "a single quote is opened here and never closed")
            pieces.append(text[position + 1 : end])
            position = end + 1
        elif character == '"':
            position += 1
            while position < length and text[position] != '"':
                if text[position] == "\\" and position + 1 < length:
                    position += 1
                pieces.append(text[position])
                position += 1
            if position >= length:
                raise _problem(line, "a double quote is opened here and never closed")
            position += 1
        elif character == "\\" and position + 1 < length:
            pieces.append(text[position + 1])
            position += 2
        else:
            pieces.append(character)
            position += 1
    return "".join(pieces), position
