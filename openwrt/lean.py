"""Python sources without what only people read, for devices where each kilobyte counts.

Comments, docstrings, indentation beyond what Python needs and the types of functions' arguments go; lines stay where
they are: a traceback from a router names the lines of the source. Nothing else changes; `lean` compares both with the
compiler's eyes before it returns. Types of fields stay, because the configuration is read by them.
"""

from __future__ import annotations

import ast
import io
import tokenize
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# A dataclass without a docstring makes one from its signature, which costs time at each start and memory ever after.
_CLASS: Final = '"."'


class LeanError(Exception):
    """A source would mean something else without its comments: an error of ours."""


def lean(source: str, *, keep_classes: bool = False) -> str:
    """The source without what only people and type checkers read, with the same line numbers.

    With `keep_classes` the docstrings of classes stay, for modules where they are read at run time. Raises SyntaxError
    for what is not Python, and LeanError when the result would be another program.
    """
    lines = source.encode().split(b"\n")
    for owner in _documented(ast.parse(source), keep_classes):
        node = owner.body[0]
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        lines[first : last + 1] = [(head + _instead(owner).encode()).rstrip() + tail, *[b""] * (last - first)]
    text = _unindented(_untyped(_uncommented(b"\n".join(lines).decode())))
    if ast.dump(essence(source, keep_classes=keep_classes)) != ast.dump(ast.parse(text)):
        raise LeanError("the source means something else without comments and docstrings")
    return text


def essence(source: str, *, keep_classes: bool = False) -> ast.Module:
    """The syntax tree of a source as it is without docstrings and without types of functions' arguments."""
    tree = ast.parse(source)
    for owner in _documented(tree, keep_classes):
        owner.body[:1] = ast.parse(_instead(owner)).body
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return tree


def _documented(tree: ast.Module, keep_classes: bool) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    for node in ast.walk(tree):
        if not isinstance(node, _DOCUMENTED) or (keep_classes and isinstance(node, ast.ClassDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            yield node  # type: ignore[misc]  # an async function has a body as well


def _instead(owner: ast.AST) -> str:
    """What stands where the docstring stood: a body cannot be empty."""
    if isinstance(owner, ast.ClassDef):
        return _CLASS
    alone = isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef) and len(owner.body) == 1
    return "pass" if alone else ""


def _uncommented(source: str) -> str:
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        # The first line of a program may say what runs it.
        if token.type == tokenize.COMMENT and not (token.start[0] == 1 and token.string.startswith("#!")):
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


def _untyped(source: str) -> str:
    """Without the types of arguments and results."""
    text = source.split("\n")
    marks = [
        (token.start[0], len(text[token.start[0] - 1][: token.start[1]].encode()))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.OP and token.string in (":", "->")
    ]
    types: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            types.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            types.append(node.returns)
    lines = source.encode().split(b"\n")
    # From the end, so that what lies before keeps its place. A type goes with the mark that stands before it.
    for kind in sorted(types, key=lambda kind: (kind.lineno, kind.col_offset), reverse=True):
        row, column = marks[bisect_left(marks, (kind.lineno, kind.col_offset)) - 1]
        last = kind.end_lineno or kind.lineno
        tail = lines[last - 1][kind.end_col_offset :]
        lines[row - 1 : last] = [lines[row - 1][:column].rstrip() + tail, *[b""] * (last - row)]
    return b"\n".join(lines).decode()


def _unindented(source: str) -> str:
    """With one space for each level, and none within brackets."""
    depth, levels, literal, begins = 0, dict[int, int](), set[int](), True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if token.type == tokenize.INDENT else -1
        elif token.type == tokenize.NEWLINE:
            begins = True
        elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER):
            if begins:
                levels[token.start[0]] = depth
                begins = False
            if token.type == tokenize.STRING:
                literal.update(range(token.start[0] + 1, token.end[0] + 1))
    return "\n".join(
        line if row in literal else " " * levels.get(row, 0) + line.lstrip()
        for row, line in enumerate(source.split("\n"), 1)
    )
