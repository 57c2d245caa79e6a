"""Line charts as inline SVG. Colors come from the style sheet, so one drawing serves light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from drpo.report.html.escape import visible_plain
from drpo.report.html.quantities import plain
from drpo.report.palette import ramp
from drpo.report.svg.points import Point, known
from drpo.report.svg.readout import readout
from drpo.report.svg.scales import Linear, Log, Scale, Steps

#: The drawing's size in its own units, and the margins around the plot.
WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 302, 10, 192
#: A curve with more points than this is drawn as the mean and range of groups of steps.
MOST_POINTS = 150
#: Up to here each point gets its own mark, and whiskers instead of a band.
MOST_MARKS = 40
#: Least distance of two labels.
LABEL_HEIGHT = 13
#: What a letter of a label takes, on average.
LETTER = 6.5
#: What a sample of the line takes in front of a label.
SAMPLE = 21
#: How far apart marks of several lines are drawn where they share an x.
APART = 5


@dataclass(frozen=True)
class Line:
    """One curve: its label, its points, and which of the style sheet's colors it has."""

    name: str
    points: Sequence[Point]
    color: int = 1
    #: Key of the palette's dashes; 0 is solid.
    dash: int = 0
    #: Drawn as dots with whiskers: a measurement with an interval, rather than a course.
    marks: bool = False
    #: Place on a ramp from light, 0, to dark, 1, of its color: for one of many lines in an order.
    shade: float | None = None
    #: Single measurements, (x, value), that the points sum up: small dots.
    dots: Sequence[tuple[float, float]] = ()
    #: What its label says beside its name; empty: its last value.
    end: str = ""


@dataclass(frozen=True)
class Chart:
    """A titled picture of some lines over a common x axis."""

    title: str
    caption: str
    lines: Sequence[Line]
    log: bool = False
    text: Callable[[float | None], str] = plain
    #: Horizontal rules: value and label.
    rules: Sequence[tuple[float, str]] = ()
    x_label: str = "step"
    #: The y axis begins at zero even if all values are far from it.
    from_zero: bool = True


def draw(chart: Chart, horizontally: tuple[float, float] | Scale) -> str:
    """The chart as an HTML figure, over a range of steps or any scale; a sentence instead of the drawing if there
    is nothing to draw."""
    lines = [line for line in chart.lines if known(line.points)]
    if not lines:
        return figure(chart.title, chart.caption, "<p class='none'>Nothing was recorded.</p>")
    lines = [replace(line, points=thinned(line.points)) for line in lines]
    x = Steps(*horizontally) if isinstance(horizontally, tuple) else horizontally
    y = Upright(_vertical(chart, lines), max(BOTTOM, TOP + LABEL_HEIGHT * len(lines)))
    body = [*grid(y, chart.text), *_steps_axis(x, y, chart.x_label), *_rules(chart, y)]
    shifts = _shifts(lines)
    body += [_dots(line, x, y, shift) for line, shift in zip(lines, shifts, strict=True)]
    body += [_line(line, x, y, shift) for line, shift in zip(lines, shifts, strict=True)]
    labels = [Label(line.name, line.end or chart.text(known(line.points)[-1])) for line in lines]
    body += _labels(lines, labels, y)
    longest = max(len(f"{label.name} {label.value}") for label in labels)
    width = max(WIDTH, round(RIGHT + 5 + SAMPLE + LETTER * longest))
    drawing = svg(_summary(chart, lines), body, y.bottom + HEIGHT - BOTTOM, width, _read(chart, lines, x))
    return figure(chart.title, chart.caption, drawing)


def figure(title: str, caption: str, body: str) -> str:
    """A titled figure; ``caption`` and ``body`` are HTML already."""
    return f"<figure><figcaption><b>{visible_plain(title)}</b> {caption}</figcaption>{body}</figure>"


def svg(summary: str, body: Sequence[str], height: int = HEIGHT, width: int = WIDTH, read: str = "") -> str:
    """The drawing.

    Args:
        summary: for readers who do not see it.
        body: its elements.
        height: in its own units.
        width: in its own units.
        read: an attribute with the values that the page's script shows, from :mod:`drpo.report.svg.readout`.
    """
    label = f"role='img' aria-label='{visible_plain(summary)}'"
    return f"<svg viewBox='0 0 {width} {height}' {label}{read}>{''.join(body)}</svg>"


class Upright(NamedTuple):
    """A scale from the foot of a plot, which may lie deeper than BOTTOM, to its top."""

    scale: Scale
    bottom: int = BOTTOM

    def at(self, value: float) -> float:
        """Where ``value`` lies, in the drawing's units, counted downwards."""
        return self.bottom - (self.bottom - TOP) * self.scale.place(value)


class Label(NamedTuple):
    """What stands at the end of a line: its name, which may be empty, and its last value."""

    name: str
    value: str


def grid(y: Upright, text: Callable[[float | None], str]) -> list[str]:
    """Faint horizontal lines with their values."""
    parts = []
    for tick in y.scale.ticks():
        at = y.at(tick)
        parts.append(
            f"<path class='grid' d='M{LEFT} {at:.1f}H{RIGHT}'/>"
            f"<text x='{LEFT - 5}' y='{at + 4:.1f}' text-anchor='end'>{visible_plain(text(tick))}</text>"
        )
    return parts


def horizontal(x: Scale, value: float) -> float:
    """Where ``value`` lies, in the drawing's units."""
    return LEFT + 6 + (RIGHT - LEFT - 12) * x.place(value)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most MOST_POINTS points, each with the mean and the whole range of those it stands for."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return points
    return [_merged(points[i : i + size]) for i in range(0, len(points), size)]


def _merged(group: Sequence[Point]) -> Point:
    values = known(group)
    lows = [low for point in group if (low := point.value if point.low is None else point.low) is not None]
    highs = [high for point in group if (high := point.value if point.high is None else point.high) is not None]
    middle = group[len(group) // 2].x
    if not values:
        return Point(middle, None, None, None)
    return Point(middle, sum(value / len(values) for value in values), min(lows), max(highs))


def _vertical(chart: Chart, lines: Sequence[Line]) -> Scale:
    points = [point for line in lines for point in line.points]
    values = [value for point in points for value in (point.value, point.high) if value is not None]
    if chart.log:
        # Not down to the low ends of the bands: a step's first update can be a million times closer.
        return Log([*values, *(value for value, _ in chart.rules)])
    values += [point.low for point in points if point.low is not None]
    values += [value for line in lines for _, value in line.dots]
    values += [0.0] * chart.from_zero
    return Linear(min(values), max(values))


def _steps_axis(x: Scale, y: Upright, label: str) -> list[str]:
    parts = []
    for tick in x.ticks():
        at, text = horizontal(x, tick), plain(tick)
        # A long number at the end of the axis would touch the axis's label.
        place = (RIGHT, "end") if at + LETTER / 2 * len(text) > RIGHT + 5 else (at, "middle")
        parts.append(f"<text x='{place[0]:.1f}' y='{y.bottom + 16}' text-anchor='{place[1]}'>{text}</text>")
    return [
        f"<path class='axis' d='M{LEFT} {y.bottom}H{RIGHT}'/>",
        *parts,
        f"<text class='unit' x='{RIGHT + 10}' y='{y.bottom + 16}'>{visible_plain(label)}</text>",
    ]


def _rules(chart: Chart, y: Upright) -> list[str]:
    parts = []
    for value, label in chart.rules:
        at = y.at(value)
        parts.append(
            f"<path class='rule' d='M{LEFT} {at:.1f}H{RIGHT}'/>"
            f"<text class='rule' x='{LEFT + 4}' y='{at - 4:.1f}'>{visible_plain(label)}</text>"
        )
    return parts


def _shifts(lines: Sequence[Line]) -> list[float]:
    """How far to the right each line is drawn: marked ones lie side by side, so that no whisker hides another."""
    marked = [index for index, line in enumerate(lines) if line.marks]
    place = {index: APART * (order - (len(marked) - 1) / 2) for order, index in enumerate(marked)}
    return [place.get(index, 0.0) for index in range(len(lines))]


def _line(line: Line, x: Scale, y: Upright, shift: float) -> str:
    """The curve, broken where a value is missing, over its range."""
    parts = []
    marked = line.marks and len(line.points) <= MOST_MARKS
    for run in _unbroken(line.points):
        places = [(horizontal(x, point.x) + shift, y.at(point.value)) for point in run if point.value is not None]
        if marked:
            parts += [_whisker(point, x, y, shift) for point in run]
        elif len(run) > 1:
            parts.append(_band(run, x, y))
        parts.append(f"<path class='line' d='M{'L'.join(f'{a:.1f} {b:.1f}' for a, b in places)}'/>")
        if marked or len(run) == 1:
            parts += [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='3'/>" for a, b in places]
    title = f"<title>{visible_plain(line.name)}</title>" if line.name else ""
    return f"<g {_paint(line)}>{title}{''.join(parts)}</g>"


def _dots(line: Line, x: Scale, y: Upright, shift: float) -> str:
    if not line.dots:
        return ""
    places = [(horizontal(x, at) + shift, y.at(value)) for at, value in line.dots]
    dots = "".join(f"<circle cx='{a:.1f}' cy='{b:.1f}' r='1.6'/>" for a, b in places)
    return f"<g class='c{line.color} seeds'>{dots}</g>"


def _paint(line: Line) -> str:
    """The attributes that color a line."""
    classes = f"c{line.color}" + f" d{line.dash}" * bool(line.dash)
    if line.shade is None:
        return f"class='{classes}'"
    other, share = ramp(line.shade)
    mixed = f"color-mix(in srgb, var(--c{line.color}) {share}%, var(--{other}))"
    return f"class='{classes} ramp' style='color:{mixed}'"


def _unbroken(points: Sequence[Point]) -> list[list[Point]]:
    runs: list[list[Point]] = [[]]
    for point in points:
        if point.value is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _band(run: Sequence[Point], x: Scale, y: Upright) -> str:
    ranged = [(horizontal(x, p.x), p.low, p.high) for p in run if p.low is not None and p.high is not None]
    if not any(high > low for _, low, high in ranged):
        return ""
    upper = [f"{a:.1f} {y.at(high):.1f}" for a, _, high in ranged]
    lower = [f"{a:.1f} {y.at(low):.1f}" for a, low, _ in reversed(ranged)]
    return f"<path class='band' d='M{'L'.join(upper + lower)}Z'/>"


def _whisker(point: Point, x: Scale, y: Upright, shift: float) -> str:
    if point.low is None or point.high is None:
        return ""
    return (
        f"<path class='whisker' d='M{horizontal(x, point.x) + shift:.1f} {y.at(point.low):.1f}"
        f"V{y.at(point.high):.1f}'/>"
    )


def _read(chart: Chart, lines: Sequence[Line], x: Scale) -> str:
    """The values of all lines by x, as text."""
    series = [
        (
            line.name,
            line.color,
            [(point.x, chart.text(point.value) if point.value is not None else None) for point in line.points],
        )
        for line in lines
    ]
    return readout(chart.x_label, series, lambda value: horizontal(x, value))


def _labels(lines: Sequence[Line], labels: Sequence[Label], y: Upright) -> list[str]:
    """Each line's label at its end, pushed apart where they would touch."""
    ends = sorted((y.at(known(line.points)[-1]), i) for i, line in enumerate(lines))
    alike = len({line.color for line in lines}) < len(lines)
    if len(lines) > 1 and len({label.value for label in labels}) == 1 and not alike:
        return [_one_label(lines, labels, ends[0][0], y)]
    heights = spread([at for at, _ in ends], TOP + 2, y.bottom - 2)
    parts = []
    for height, (_, i) in zip(heights, ends, strict=True):
        line, (name, value) = lines[i], labels[i]
        said = f"{visible_plain(name)} " * bool(name) + f"<tspan>{visible_plain(value)}</tspan>"
        at = f"y='{height + 4:.1f}'"
        if not alike:
            parts.append(f"<text class='name c{line.color}' x='{RIGHT + 3}' {at}>{said}</text>")
        else:  # a sample of the line says which one it is; the lightest of a ramp would be hard to read as text
            parts.append(f"<g {_paint(line)}><path class='line' d='M{RIGHT + 3} {height:.1f}h{SAMPLE - 5}'/></g>")
            parts.append(f"<text class='name inked' x='{RIGHT + 3 + SAMPLE}' {at}>{said}</text>")
    return parts


def _one_label(lines: Sequence[Line], labels: Sequence[Label], height: float, y: Upright) -> str:
    """The label of lines that all end at one value, which is written once, below their names."""
    first = min(height, y.bottom - 2 - LABEL_HEIGHT * len(lines)) + 4
    said = [(f" class='c{line.color}'", visible_plain(name)) for line, (name, _) in zip(lines, labels, strict=True)]
    said.append(("", f"all {visible_plain(labels[0].value)}"))
    rows = (
        f"<tspan{color} x='{RIGHT + 3}' y='{first + LABEL_HEIGHT * place:.1f}'>{text}</tspan>"
        for place, (color, text) in enumerate(said)
    )
    return f"<text class='name inked'>{''.join(rows)}</text>"


def spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Ascending ``heights`` moved apart to LABEL_HEIGHT; within ``top`` and ``bottom`` as far as they fit."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL_HEIGHT if placed else top))
    limit = bottom
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - LABEL_HEIGHT
    return placed


def _summary(chart: Chart, lines: Sequence[Line]) -> str:
    ends = []
    for line in lines:
        values = known(line.points)
        ends.append(f"{line.name or chart.title} from {chart.text(values[0])} to {chart.text(values[-1])}")
    return f"{chart.title}, by {chart.x_label}: {'; '.join(ends)}"
