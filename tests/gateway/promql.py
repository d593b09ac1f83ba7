"""A checker for PromQL: parses what dashboards use of the language and tells which metrics it names.

Grammar: numbers, strings, selectors with matchers and ranges, function calls, aggregations with `by` or `without`,
binary operators with vector matching, parentheses, offset. It knows the functions and aggregations by name and which of
them need a range, so that `rate(metric)` without one is an error here as in Prometheus.
"""

from __future__ import annotations

import re
from typing import Final

AGGREGATIONS: Final = frozenset({"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev", "group"})
NEED_RANGE: Final = frozenset(
    {
        "rate",
        "irate",
        "increase",
        "delta",
        "avg_over_time",
        "max_over_time",
        "min_over_time",
        "sum_over_time",
        "changes",
    }
)
NEED_INSTANT: Final = frozenset(
    {
        "histogram_quantile",
        "sort",
        "sort_desc",
        "abs",
        "ceil",
        "floor",
        "round",
        "clamp_min",
        "clamp_max",
        "time",
        "vector",
    }
)
OPERATORS: Final = frozenset({"+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"})
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|Inf|NaN)(?![\w])"
    r"|(?P<word>[a-zA-Z_:][\w:]*)"
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<range>\[(?:\d+[smhdwy]|\$__\w+)\])"
    r"|(?P<span>\d+[smhdwy])"
    r"|(?P<mark>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>]))"
)


class PromqlError(ValueError):
    """Not PromQL, or not the part of it that is known here."""


def metrics_in(query: str) -> set[str]:
    """The metrics that a query names; raises PromqlError when it does not parse."""
    parser = _Parser(query)
    parser.expression()
    if parser.peek() != ("end", ""):
        raise PromqlError(f"unexpected {parser.peek()[1]!r} in {query!r}")
    return parser.metrics


class _Parser:
    def __init__(self, query: str) -> None:
        self.metrics: set[str] = set()
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while query[position:].strip():
            match = _TOKEN.match(query, position)
            if match is None:
                raise PromqlError(f"cannot read {query[position:]!r}")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match.group(kind)))
            position = match.end()
        self._position = 0

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("end", "")

    def take(self, *expected: str) -> str:
        kind, text = self.peek()
        if expected and text not in expected and kind not in expected:
            raise PromqlError(f"expected {' or '.join(expected)}, found {text!r}")
        self._position += 1
        return text

    def expression(self) -> bool:
        """Parse one expression; whether it is a range of samples."""
        is_range = self._operand()
        while self.peek()[1] in OPERATORS:
            self.take()
            if self.peek()[1] == "bool":
                self.take()
            if self.peek()[1] in ("on", "ignoring"):
                self.take()
                self._labels()
                if self.peek()[1] in ("group_left", "group_right"):
                    self.take()
                    if self.peek()[1] == "(":
                        self._labels()
            if is_range or self._operand():
                raise PromqlError("an operator between ranges")
        return is_range

    def _operand(self) -> bool:
        kind, text = self.peek()
        if text == "-":
            self.take()
            return self._operand()
        if kind in ("number", "string"):
            self.take()
            return False
        if text == "(":
            self.take()
            is_range = self.expression()
            self.take(")")
            return is_range
        name = self.take("word") if kind == "word" else ""
        if name in AGGREGATIONS:
            self._aggregation()
            return False
        if self.peek()[1] == "(":
            self._call(name)
            return False
        return self._selector(name)

    def _aggregation(self) -> None:
        grouped = self._grouping()
        self._arguments(needs_range=False)
        if not grouped:
            self._grouping()

    def _grouping(self) -> bool:
        if self.peek()[1] not in ("by", "without"):
            return False
        self.take()
        self._labels()
        return True

    def _call(self, name: str) -> None:
        if name not in NEED_RANGE | NEED_INSTANT:
            raise PromqlError(f"there is no function {name!r}")
        self._arguments(needs_range=name in NEED_RANGE)

    def _arguments(self, *, needs_range: bool) -> None:
        self.take("(")
        while self.peek()[1] != ")":
            if self.expression() != needs_range:
                raise PromqlError("a range where none belongs" if not needs_range else "no range where one belongs")
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")

    def _selector(self, name: str) -> bool:
        if not name and self.peek()[1] != "{":
            raise PromqlError(f"unexpected {self.peek()[1]!r}")
        if name:
            self.metrics.add(name)
        if self.peek()[1] == "{":
            self.take()
            while self.peek()[1] != "}":
                self.take("word")
                self.take("=", "!=", "=~", "!~")
                self.take("string")
                if self.peek()[1] != "}":
                    self.take(",")
            self.take("}")
        is_range = self.peek()[0] == "range"
        if is_range:
            self.take()
        if self.peek()[1] == "offset":
            self.take()
            self.take("span")
        return is_range

    def _labels(self) -> None:
        self.take("(")
        while self.peek()[1] != ")":
            self.take("word")
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")
