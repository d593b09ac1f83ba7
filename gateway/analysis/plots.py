"""Plots as SVG text, without library or script: traffic over time, time-sequence, round trip, window, packet ladder.

Every colour is a class of the report's style sheet, so that a plot follows dark mode and print. Points that fall on one
another are drawn once: a plot has at most one mark for each pixel column and kind, whatever the flow's length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from gateway.analysis.escape import markup
from gateway.analysis.trace import BEHIND_HOLE, HOLE_FILL, RST, SEEN_AGAIN, SYN, Segment, Trace

WIDTH: Final = 900
HEIGHT: Final = 280
LEFT, RIGHT, TOP, BOTTOM = 74, 14, 14, 28
MOST_MARKS: Final = 400
LADDER_ROWS: Final = 60


class _Frame(NamedTuple):
    """The inside of a plot: data ranges and their place on the paper."""

    x_low: float
    x_high: float
    y_high: float
    height: int = HEIGHT

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        inside = self.height - TOP - BOTTOM
        return self.height - BOTTOM - min(value / (self.y_high or 1.0), 1.0) * inside


def io_graph(
    bin_s: float,
    packets: Sequence[int],
    byte_counts: Sequence[int],
    marks: Iterable[tuple[float, str, str, str]],
    start_s: float = 0.0,
) -> str:
    """Bits per second over time with packets as a line; `marks` are (time, finding id, severity, title).

    The bins begin at `start_s`.
    """
    columns = WIDTH - LEFT - RIGHT
    step = max(1, math.ceil(len(packets) / columns))
    bits = [sum(byte_counts[at : at + step]) * 8 / (bin_s * step) for at in range(0, len(byte_counts), step)]
    rates = [sum(packets[at : at + step]) / (bin_s * step) for at in range(0, len(packets), step)]
    frame = _Frame(start_s, start_s + max(len(packets) * bin_s, bin_s), max(bits, default=0.0) * 1.05)
    second = _Frame(frame.x_low, frame.x_high, max(rates, default=0.0) * 1.05)
    width = bin_s * step
    area = [f"M{LEFT} {HEIGHT - BOTTOM}"]
    line: list[str] = []
    for index, (bit_rate, packet_rate) in enumerate(zip(bits, rates, strict=False)):
        left, right = frame.x(start_s + index * width), frame.x(min(start_s + (index + 1) * width, frame.x_high))
        area.append(f"V{frame.y(bit_rate):.1f}H{right:.1f}")
        line.append(f"{'L' if line else 'M'}{(left + right) / 2:.1f} {second.y(packet_rate):.1f}")
    area.append(f"V{HEIGHT - BOTTOM}Z")
    body = [f'<path class="p-area" d="{"".join(area)}"/>', f'<path class="p-line" d="{"".join(line)}"/>']
    used: dict[tuple[int, str], int] = {}
    for t, finding, severity, title in marks:
        x = frame.x(min(max(t, start_s), frame.x_high))
        place = (int(x / 9), severity)
        used[place] = used.get(place, 0) + 1
        if used[place] > 1 or len(used) > 120:
            continue
        body.append(
            f'<a href="#{markup(finding)}" class="p-mark sev-{markup(severity)}"><title>{markup(title)} '
            f"({t:.3f} s)</title>"
            f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/><circle cx="{x:.1f}" cy="{TOP + 4}" r="4.5"/></a>'
        )
    return _paper(frame, "".join(body), "Traffic over time", rate_text)


def active_span(trace: Trace) -> tuple[float, float]:
    """The time in which a flow did nearly all of its work: long silences with little before or behind are left out."""
    # Sorted, because a clock may have run backwards.
    moments = sorted(s.t_s for s in trace.segments if s.length) or sorted(s.t_s for s in trace.segments)
    low, high = 0, len(moments) - 1
    for _ in range(8):
        span = moments[high] - moments[low]
        gap, at = max(((moments[i + 1] - moments[i], i) for i in range(low, high)), default=(0.0, low))
        if gap < 0.3 * span or span < 1.0:
            break
        before, behind = at + 1 - low, high - at
        if min(before, behind) > 0.15 * (high - low + 1):
            break
        low, high = (low, at) if behind <= before else (at + 1, high)
    margin = (moments[high] - moments[low]) * 0.03
    begin = max(moments[low] - margin, min(0.0, moments[0]))
    return begin, max(moments[high] + margin, begin + 1e-6)


def time_sequence(trace: Trace, from_orig: bool) -> str:
    """Bytes sent over time (tcptrace): data, what was sent again, acknowledgements below, the window's edge above."""
    low, high = active_span(trace)
    shown = [s for s in trace.segments if low <= s.t_s <= high]
    data = [s for s in shown if s.from_orig == from_orig and s.length]
    answers = [s for s in shown if s.from_orig != from_orig and s.ack is not None and not s.flags & RST]
    if not data:
        return ""
    base = min(s.seq for s in data)
    highest = max(s.seq + s.length for s in data) - base
    frame = _Frame(low, high, highest * 1.08)
    groups: dict[str, list[str]] = {"p-data": [], "p-again": [], "p-fill": [], "p-hole": []}
    classes = {"": "p-data", SEEN_AGAIN: "p-again", HOLE_FILL: "p-fill", BEHIND_HOLE: "p-hole"}
    columns: dict[tuple[str, int], tuple[float, float]] = {}
    for segment in data:
        kind = classes[segment.evidence]
        bottom, top = frame.y(segment.seq - base), frame.y(segment.seq + segment.length - base)
        column = (kind, round(frame.x(segment.t_s)))
        before = columns.get(column)
        columns[column] = (max(bottom, before[0]), min(top, before[1])) if before else (bottom, top)
    for (kind, x), (bottom, top) in columns.items():
        if len(groups[kind]) < (MOST_MARKS if kind != "p-data" else WIDTH):
            groups[kind].append(f"M{x} {bottom:.1f}V{min(top, bottom - 1.5):.1f}")
    acks = _steps(frame, [(s.t_s, (s.ack or 0) - base) for s in answers])
    edge = _steps(frame, [(s.t_s, (s.ack or 0) - base + s.window_bytes) for s in answers if not s.flags & SYN])
    sacks: dict[int, str] = {}
    for segment in answers:
        for left, right in segment.sack:
            x = round(frame.x(segment.t_s))
            if len(sacks) < MOST_MARKS and right > left:
                sacks[x] = f"M{x} {frame.y(left - base):.1f}V{frame.y(right - base):.1f}"
    body = f'<path class="p-win" d="{edge}"/><path class="p-ack" d="{acks}"/>'
    body += f'<path class="p-sack" d="{"".join(sacks.values())}"/>' if sacks else ""
    for kind, parts in groups.items():
        if parts:
            body += f'<path class="{kind}" d="{"".join(parts)}"/>'
    return _paper(frame, body, "Time and sequence", bytes_text)


def round_trip(trace: Trace) -> str:
    """Every round-trip sample over time, one colour for each side."""
    if not trace.rtt:
        return ""
    low, high = active_span(trace)
    samples = [sample for sample in trace.rtt if low <= sample[0] <= high] or trace.rtt
    frame = _Frame(low, high, max(seconds for _, seconds, _ in samples) * 1000 * 1.08)
    body = ""
    for of_orig, kind in ((True, "p-dot-a"), (False, "p-dot-b")):
        places = {
            (round(frame.x(t)), round(frame.y(sample * 1000))): None for t, sample, which in samples if which == of_orig
        }
        dots = "".join(f"M{x} {y}h.1" for x, y in list(places)[:1500])
        if dots:
            body += f'<path class="{kind}" d="{dots}"/>'
    return _paper(frame, body, "Round trip", milliseconds_text)


def window(trace: Trace, from_orig: bool) -> str:
    """Bytes in flight of one direction against the window its receiver offers."""
    low, high = active_span(trace)
    flight = [(t, float(count)) for t, count, which in trace.in_flight if which == from_orig and low <= t <= high]
    offers = [
        (s.t_s, float(s.window_bytes))
        for s in trace.segments
        if s.from_orig != from_orig and not s.flags & (SYN | RST) and low <= s.t_s <= high
    ]
    if not flight:
        return ""
    top = max(count for _, count in flight)
    offered = max((count for _, count in offers), default=0.0)
    frame = _Frame(low, high, max(top, min(offered, top * 4)) * 1.08)
    body = f'<path class="p-win" d="{_steps(frame, offers)}"/><path class="p-data" d="{_steps(frame, flight)}"/>'
    zeros = {round(frame.x(t)): f"M{round(frame.x(t))} {TOP}V{HEIGHT - BOTTOM}" for t, count in offers if count == 0}
    if zeros:
        body += f'<path class="p-zero" d="{"".join(list(zeros.values())[:MOST_MARKS])}"/>'
    return _paper(frame, body, "Bytes in flight and window", bytes_text)


def ladder(segments: Sequence[Segment], left_name: str, right_name: str) -> str:
    """Packets as arrows between two hosts, top to bottom; what was sent again is marked."""
    rows = segments[:LADDER_ROWS]
    if not rows:
        return ""
    left, right, row = 170, WIDTH - 110, 22
    height = 46 + row * len(rows)
    body = [
        f'<text class="p-name" x="{left}" y="18" text-anchor="middle">{markup(left_name, 44)}</text>',
        f'<text class="p-name" x="{right}" y="18" text-anchor="middle">{markup(right_name, 44)}</text>',
        f'<path class="p-rail" d="M{left} 26V{height - 6}M{right} 26V{height - 6}"/>',
    ]
    for index, segment in enumerate(rows):
        y = 44 + index * row
        start, end = (left, right) if segment.from_orig else (right, left)
        tip = -6 if segment.from_orig else 6
        trouble = {SEEN_AGAIN: " p-bad", HOLE_FILL: " p-odd", BEHIND_HOLE: " p-odd"}.get(segment.evidence, "")
        if segment.flags & RST or (segment.window_bytes == 0 and not segment.flags & SYN):
            trouble = " p-bad"
        words = [segment.flag_text()]
        if segment.length:
            words.append(f"seq {segment.seq} len {segment.length}")
        if segment.ack is not None:
            words.append(f"ack {segment.ack}")
        words.append("window 0" if segment.window_bytes == 0 else f"win {segment.window_bytes}")
        if segment.evidence:
            words.append(segment.evidence)
        body.append(
            f'<text class="p-tick" x="4" y="{y + 4}">#{segment.frame}</text>'
            f'<text class="p-tick" x="{left - 8}" y="{y + 4}" text-anchor="end">{segment.t_s:.4f}</text>'
            f'<path class="p-arrow{trouble}" d="M{start} {y}H{end}m{tip} -4L{end} {y}l{tip} 4"/>'
            f'<text class="p-word{trouble}" x="{(left + right) / 2:.0f}" y="{y - 4}" text-anchor="middle">'
            f"{markup(', '.join(words), 100)}</text>"
        )
    return (
        f'<svg class="plot ladder" viewBox="0 0 {WIDTH} {height}" role="img"><title>Packets between '
        f"{markup(left_name, 60)} and {markup(right_name, 60)}</title>{''.join(body)}</svg>"
    )


def gauge(score: float | None, grade: str) -> str:
    """The health score as a ring."""
    around = 2 * math.pi * 42
    part = around * (score or 0.0) / 100
    number = "–" if score is None else f"{score:.0f}"
    return (
        f'<svg class="gauge grade-{markup(grade)}" viewBox="0 0 100 100" role="img">'
        f"<title>Health score {number} of 100</title>"
        f'<circle class="g-back" cx="50" cy="50" r="42"/>'
        f'<circle class="g-part" cx="50" cy="50" r="42" stroke-dasharray="{part:.1f} {around:.1f}" '
        f'transform="rotate(-90 50 50)"/>'
        f'<text class="g-number" x="50" y="58" text-anchor="middle">{number}</text></svg>'
    )


def rate_text(bits_per_s: float) -> str:
    """Bits per second for people: `12.4 Mbit/s`."""
    return _scaled(bits_per_s, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"))


def bytes_text(count: float) -> str:
    """Bytes for people, in powers of 1000: `12.4 MB`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def seconds_text(seconds: float) -> str:
    """Seconds on an axis, or minutes and hours where there are many."""
    if seconds == 0:
        return "0"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 300:
        return f"{seconds:.3g} s"
    if seconds < 3 * 3600:
        return f"{seconds / 60:.3g} min"
    if seconds < 3 * 86400:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:,.0f} days"


def milliseconds_text(milliseconds: float) -> str:
    """Milliseconds on an axis."""
    return seconds_text(milliseconds / 1000)


def count_text(count: float) -> str:
    """A plain number on an axis: `1.2 k`."""
    return _scaled(count, ("", "k", "M", "G")).strip()


def _scaled(value: float, units: tuple[str, ...]) -> str:
    index = 0
    while value >= 999.5 and index < len(units) - 1:
        value /= 1000
        index += 1
    return f"{value:.3g} {units[index]}"


def _steps(frame: _Frame, points: Sequence[tuple[float, float]]) -> str:
    """A staircase through points in time, one step for each pixel column that has a change."""
    out: list[str] = []
    last_x, last_y = -1.0, -1.0
    for t, value in points:
        x, y = float(round(frame.x(t))), round(frame.y(max(value, 0.0)), 1)
        if not out:
            out.append(f"M{x:g} {y:g}")
        elif y != last_y and (x != last_x or abs(y - last_y) > 3):
            out.append(f"H{x:g}V{y:g}" if x != last_x else f"V{y:g}")
        else:
            continue
        last_x, last_y = x, y
        if len(out) > 2 * WIDTH:
            break
    return "".join(out)


def _ticks(high: float, wanted: int) -> list[float]:
    if high <= 0:
        return [0.0]
    step = _round_up(high / wanted)
    return [step * index for index in range(int(high / step) + 1)]


def _time_ticks(low: float, high: float, wanted: int) -> list[tuple[float, str]]:
    """Round moments on a time axis and their text, in the unit that fits all of them."""
    unit, name = next(((u, n) for u, n in _UNITS if high >= 2 * u), _UNITS[-1])
    raw = (high - low) / unit / wanted
    if unit in {60.0, 3600.0} or (unit == 1.0 and raw >= 1):
        step = next((float(step) for step in (1, 2, 5, 10, 15, 30) if step >= raw), 60.0)
    else:
        step = _round_up(raw)
    first, last = math.ceil(low / unit / step - 1e-9), math.floor(high / unit / step + 1e-9)
    return [(n * step * unit, f"{n * step:.6g} {name}" if n else "0") for n in range(first, min(last, first + 20) + 1)]


_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def _round_up(value: float) -> float:
    """The next number of the shape 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= value * 0.999)


def _paper(frame: _Frame, body: str, title: str, y_text: Callable[[float], str]) -> str:
    grid, words = [], []
    for value in _ticks(frame.y_high, 4):
        y = frame.y(value)
        grid.append(f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}")
        words.append(f'<text class="p-tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_text(value)}</text>')
    for value, text in _time_ticks(frame.x_low, frame.x_high, 6):
        x = frame.x(value)
        anchor = "end" if x > WIDTH - RIGHT - 16 else "middle"
        words.append(f'<text class="p-tick" x="{x:.1f}" y="{frame.height - 8}" text-anchor="{anchor}">{text}</text>')
    role = "group" if "<a " in body else "img"  # links within an image would be hidden from those who cannot see
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {frame.height}" role="{role}"><title>{markup(title)}</title>'
        f'<path class="p-grid" d="{"".join(grid)}"/>{"".join(words)}{body}</svg>'
    )
