"""Line and bar charts as SVG, drawn here: no script, no style attribute, readable without colours by their text."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

from webui.admin.render import Markup

WIDTH: Final = 560
HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 112, 20, 12, 38
_HALF_LABEL: Final = 30  # of a time of day in the largest letters
_POINTS: Final = 320  # what fits side by side; more are drawn as their averages

Values = Sequence[float | None]


def thin(values: Values, most: int = _POINTS) -> list[float | None]:
    """At most `most` values, each the average of those that it stands for; a gap is where none is known."""
    if len(values) <= most:
        return list(values)
    found: list[float | None] = []
    for number in range(most):
        part = [
            value
            for value in values[number * len(values) // most : (number + 1) * len(values) // most]
            if value is not None
        ]
        found.append(sum(part) / len(part) if part else None)
    return found


def nice_top(value: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, at least `value`."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def lines(
    series: Sequence[tuple[str, Values]],
    start_unix: float,
    step_s: float,
    zone: tzinfo,
    shown: Callable[[float], str],
    label: str,
    name: str,
    least: float = 0.0,
) -> Markup:
    """A chart of several lines over time: (class, values) each; `name` is the id, `label` says what it shows.

    The axis goes up to `least` at least: for what is counted it has no halves.
    """
    length = max((len(values) for _, values in series), default=0)
    top = nice_top(max((value for _, values in series for value in values if value is not None), default=0.0))
    top = max(top, least)
    parts = [_axes(top, shown), _hours(start_unix, step_s, length, zone)]
    for kind, values in series:
        path = _path(thin(values), top)
        if path:
            parts.append(f'<path class="{kind}" d="{path}"/>')
    return _svg(parts, label, name)


def bars(values: Values, start_unix: float, step_s: float, zone: tzinfo, label: str, name: str) -> Markup:
    """A chart of one bar for each value."""
    top = max(2.0, nice_top(max((value for value in values if value is not None), default=0.0)))
    parts = [_axes(top, lambda value: f"{value:g}"), _hours(start_unix, step_s, len(values), zone)]
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    for number, value in enumerate(values):
        if value:
            height = (HEIGHT - _TOP - _BOTTOM) * value / top
            x, y = _LEFT + number * width, HEIGHT - _BOTTOM - height
            parts.append(
                f'<rect class="bar" x="{x + width * 0.1:.1f}" y="{y:.1f}" width="{width * 0.8:.1f}" '
                f'height="{height:.1f}"><title>{value:g}</title></rect>'
            )
    return _svg(parts, label, name)


def _svg(parts: list[str], label: str, name: str) -> Markup:
    said = html.escape(label, quote=True)
    return Markup(
        f'<svg class="chart" id="{name}" role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )


def _axes(top: float, shown: Callable[[float], str]) -> str:
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = HEIGHT - _BOTTOM - part * (HEIGHT - _TOP - _BOTTOM)
        parts.append(f'<path class="axis" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        text = html.escape(shown(top * part))
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _hours(start_unix: float, step_s: float, length: int, zone: tzinfo) -> str:
    """Marks at the full hours of the clock that the operator has on the wall, six to eight of them."""
    span_s = step_s * length
    if span_s <= 0:
        return ""
    every_s = next((step for step in (3600, 7200, 10800, 14400, 21600, 43200, 86400) if span_s / step <= 6), 172800)
    offset_s = (datetime.fromtimestamp(start_unix, zone).utcoffset() or timedelta()).total_seconds()
    first = (start_unix + offset_s) // every_s * every_s + every_s - offset_s
    parts = []
    for number in range(9):
        at = first + number * every_s
        if at >= start_unix + span_s:
            break
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (at - start_unix) / span_s
        text = datetime.fromtimestamp(at, zone).strftime("%H:%M")
        x, anchor = (x, "middle") if x < WIDTH - _HALF_LABEL else (WIDTH, "end")
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>')
    return "".join(parts)


def _path(values: list[float | None], top: float) -> str:
    parts: list[str] = []
    pen_up = True
    for number, value in enumerate(values):
        if value is None:
            pen_up = True
            continue
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * number / max(1, len(values) - 1)
        y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(1.0, value / top)
        parts.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = False
    return "".join(parts)
