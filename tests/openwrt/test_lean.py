"""Sources without what only people read are the same program on the same lines."""

from __future__ import annotations

import ast

import pytest

from openwrt.ipk import Package
from openwrt.lean import essence, lean
from openwrt.packages import READ
from rootfs.payload import HOME, PROJECT


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1  # why\n# alone\ny = '# no comment'\n", "x = 1\n\ny = '# no comment'\n"),
        ('"""Module.\n\nMore.\n"""\n\nx = 1\n', "\n\n\n\n\nx = 1\n"),
        ('def f():\n    """What."""\n    return 1\n', "def f():\n\n return 1\n"),
        ('def f():\n    """What.\n\n    More.\n    """\n', "def f():\n pass\n\n\n\n"),
        ('async def f():\n    "What."  # why\n', "async def f():\n pass\n"),
        ('class A:\n    """What."""\n\n    x: int\n', 'class A:\n "."\n\n x: int\n'),
        ('class A:\n    """Ä."""  # ö\n\n    x = "ü"\n', 'class A:\n "."\n\n x = "ü"\n'),
        ("x = '''\n# text\n'''\n", "x = '''\n# text\n'''\n"),
        ("#!/usr/bin/python3\n# why\n", "#!/usr/bin/python3\n\n"),
        ("def f(a: int, *, b: str = 'x') -> None: ...\n", "def f(a, *, b = 'x'): ...\n"),
        (
            "def f(\n    a: dict[\n        int, str\n    ],\n) -> list[\n    int\n]:\n    é: int = a\n",
            "def f(\na,\n\n\n):\n\n\n é: int = a\n",
        ),
        ("x = '''\n    text\n    '''\n", "x = '''\n    text\n    '''\n"),
        ("x = [  # why\n    1,\n]\n", "x = [\n1,\n]\n"),
    ],
)
def test_what_only_people_read_goes_and_lines_stay(source: str, expected: str) -> None:
    """Each kind of comment and docstring, with the line that it leaves."""
    assert lean(source) == expected


def test_docstrings_of_classes_stay_where_they_are_wanted() -> None:
    """A module whose classes' docstrings are read at run time keeps those, and loses the others."""
    source = '"""Module."""\n\n\nclass A:\n    """Read."""\n\n    def f(self):\n        """Not read."""\n'
    assert lean(source, keep_classes=True) == '\n\n\nclass A:\n """Read."""\n\n def f(self):\n  pass\n'


def test_a_docstring_with_a_statement_behind_it_is_refused() -> None:
    """No other line than its own can be given up for a docstring."""
    with pytest.raises(SyntaxError):
        lean('def f():\n    "What."; return 1\n')


def test_every_module_that_is_shipped_is_the_source_without_docstrings(made: dict[str, Package]) -> None:
    """Line for line the same number of lines, and the compiler sees the same program."""
    shipped = {**made["postern"].tree.files, **made["postern-analysis"].tree.files}
    modules = {path: entry for path, entry in shipped.items() if path.startswith(HOME) and path.endswith(".py")}
    assert len(modules) > 250
    for path, entry in modules.items():
        source = (PROJECT / path.removeprefix(f"{HOME}/")).read_text(encoding="utf-8")
        text = entry.data.decode()
        keep = path.endswith(READ)
        assert text.count("\n") == source.count("\n"), path
        assert ast.dump(ast.parse(text)) == ast.dump(essence(source, keep_classes=keep)), path
