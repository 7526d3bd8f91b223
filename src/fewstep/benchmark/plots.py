"""Plots of rows as inline SVG, coloured by the style of the page around them, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from typing import NamedTuple

from fewstep.benchmark.row import Run

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 46
COLOURS = 8
"""Colours of the style, `c0` to `c7`; samplers after them begin anew with broken lines."""
SIZE = 4.0
CROSS = ((-1, -0.4), (-0.4, -0.4), (-0.4, -1), (0.4, -1), (0.4, -0.4), (1, -0.4))
SHAPES = ("circle", "square", "diamond", "up", "down", "cross")


class Marks(NamedTuple):
    """What tells rows apart: a number for each sampler, which is its colour, and for each grid, which is its shape."""

    samplers: Mapping[str, int]
    grids: Mapping[str, int]

    @staticmethod
    def of(runs: Sequence[Run]) -> Marks:
        """Numbers in the order in which they come."""
        samplers, grids = (dict.fromkeys(getattr(run, name) for run in runs) for name in ("sampler", "grid"))
        return Marks(*({name: i for i, name in enumerate(names)} for names in (samplers, grids)))

    def colour(self, run: Run) -> str:
        """The class of its sampler."""
        return f"c{self.samplers[run.sampler] % COLOURS}"

    def shape(self, run: Run) -> str:
        """The shape of its grid."""
        return SHAPES[self.grids[run.grid] % len(SHAPES)]


class Axis(NamedTuple):
    """From values to places: the ends, and where the plot begins and ends in pixels."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = True

    @staticmethod
    def over(values: Sequence[float], begin: float, end: float, logarithmic: bool = True) -> Axis:
        """An axis that has room for all values; on a logarithmic one they are above 0."""
        low, high = min(values), max(values)
        if logarithmic:
            factor = max((high / low) ** 0.06, 1.05)
            return Axis(low / factor, high * factor, begin, end)
        room = max(0.06 * (high - low), 0.01)
        return Axis(low - room, high + room, begin, end, False)

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = (math.log(v) if self.logarithmic else v for v in (self.low, self.high))
        share = ((math.log(value) if self.logarithmic else value) - low) / (high - low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        """Round values inside, about 3 to 9 of them."""
        if not self.logarithmic:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
            step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 8)
            first = math.ceil(self.low / step)
            return [round(i * step, 10) for i in range(first, math.floor(self.high / step) + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
            found = [m * 10.0**p for p in powers for m in steps if self.low <= m * 10.0**p <= self.high]
            if len(found) >= 3:
                return found
        return found


def scatter(
    runs: Sequence[Run],
    marks: Marks,
    front: Collection[str],
    across: tuple[str, Callable[[Run], float]],
    up: tuple[str, Callable[[Run], float]],
    *,
    logarithmic: bool = True,
    figure: str | None = None,
) -> str:
    """An SVG of rows: `across` and `up` are a title and a value; those on the front are ringed and joined.

    Args:
        logarithmic: the axis that goes up; the other one always is.
        figure: whose interval is drawn for the rows on the front.
    """
    rows = [run for run in runs if across[1](run) > 0 and (not logarithmic or up[1](run) > 0)]
    if not rows:
        return ""
    x = Axis.over([across[1](run) for run in rows], LEFT, WIDTH - RIGHT)
    y = Axis.over([up[1](run) for run in rows], HEIGHT - BOTTOM, TOP, logarithmic)
    parts = [_frame(x, y, across[0], up[0])]
    lines: dict[tuple[str, str, str], list[Run]] = {}
    for run in rows:
        lines.setdefault((run.sampler, run.grid, run.precision), []).append(run)
    parts += [_line(line, x, y, across[1], up[1], marks) for line in lines.values()]
    best = sorted((run for run in rows if run.key in front), key=across[1])
    parts.append(_path([(x.place(across[1](run)), y.place(up[1](run))) for run in best], "front"))
    for run in best if figure else ():
        low, high = (max(end, y.low) for end in (run.figures[figure or ""].low, run.figures[figure or ""].high))
        at = x.place(across[1](run))
        parts.append(f'<path class="bar" d="M{at} {y.place(low)}V{y.place(min(high, y.high))}"/>')
    places = [(x.place(across[1](run)), y.place(up[1](run))) for run in rows]
    parts += [_mark(run, *place, marks, run.key in front) for run, place in zip(rows, places, strict=True)]
    label = escape(f"{up[0]} against {across[0]}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def sign(shape: str, colour: str) -> str:
    """A mark alone, for a legend."""
    return f'<svg class="sign" viewBox="0 0 14 14"><path class="{colour} mark" d="{_outline(shape, 7, 7)}"/></svg>'


def name_of(run: Run) -> str:
    """A row in words."""
    precision = "" if run.precision == "float32" else f", {run.precision}"
    return f"{run.name}, {run.steps} step{'s' * (run.steps != 1)}{precision}"


def _frame(x: Axis, y: Axis, across: str, up: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(f'<path class="grid" d="M{at} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{right}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4}" text-anchor="end">{_number(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    return "".join(parts)


def _line(
    line: Sequence[Run],
    x: Axis,
    y: Axis,
    across: Callable[[Run], float],
    up: Callable[[Run], float],
    marks: Marks,
) -> str:
    points = [(x.place(across(run)), y.place(up(run))) for run in sorted(line, key=lambda run: run.evaluations)]
    broken = " broken" * (marks.samplers[line[0].sampler] >= COLOURS)
    return _path(points, f"{marks.colour(line[0])} line{broken}")


def _path(points: Sequence[tuple[float, float]], kind: str) -> str:
    if len(points) < 2:
        return ""
    return f'<path class="{kind}" d="M{"L".join(f"{a} {b}" for a, b in points)}"/>'


def _mark(run: Run, x: float, y: float, marks: Marks, best: bool) -> str:
    hollow = " hollow" * (run.precision != "float32")
    figures = "".join(f", {name} {figure.value:.4g}" for name, figure in run.figures.items())
    title = escape(f"{name_of(run)}: {run.evaluations:g} evaluations, {1e3 * run.seconds.value:.3g} ms{figures}")
    ring = f'<circle class="ring" cx="{x}" cy="{y}" r="8"/>' if best else ""
    outline = _outline(marks.shape(run), x, y)
    return f'<g><title>{title}</title>{ring}<path class="{marks.colour(run)} mark{hollow}" d="{outline}"/></g>'


def _outline(shape: str, x: float, y: float) -> str:
    r = SIZE
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
        "up": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "down": [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
        "cross": [(a * s, b * s) for s in (1, -1) for a, b in CROSS],
    }.get(shape)
    if corners is None:
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    return "M" + "L".join(f"{x + r * a:.1f} {y + r * b:.1f}" for a, b in corners) + "z"


def _number(value: float) -> str:
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}".replace("e-0", "e-")
