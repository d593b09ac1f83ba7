"""Python sources without what only people read, for devices where each kilobyte counts.

Comments and docstrings go, lines stay where they are: a traceback from a router names the lines of the source. Nothing
else changes; `lean` compares both with the compiler's eyes before it returns.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import Final

_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# A dataclass without a docstring makes one from its signature, which costs time at each start and memory ever after.
_CLASS: Final = '"."'


class LeanError(Exception):
    """A source would mean something else without its comments: an error of ours."""


def lean(source: str, *, keep_classes: bool = False) -> str:
    """The source without comments and docstrings, with the same line numbers.

    With `keep_classes` the docstrings of classes stay, for modules where they are read at run time. Raises SyntaxError
    for what is not Python, and LeanError when the result would be another program.
    """
    lines = source.encode().split(b"\n")
    for owner in _documented(ast.parse(source), keep_classes):
        node = owner.body[0]
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        lines[first : last + 1] = [(head + _instead(owner).encode()).rstrip() + tail, *[b""] * (last - first)]
    text = _uncommented(b"\n".join(lines).decode())
    if ast.dump(undocumented(source, keep_classes=keep_classes)) != ast.dump(ast.parse(text)):
        raise LeanError("the source means something else without comments and docstrings")
    return text


def undocumented(source: str, *, keep_classes: bool = False) -> ast.Module:
    """The syntax tree of a source as it is without its docstrings."""
    tree = ast.parse(source)
    for owner in _documented(tree, keep_classes):
        owner.body[:1] = ast.parse(_instead(owner)).body
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
