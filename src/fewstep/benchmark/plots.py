"""Plots of measurements as inline SVG, coloured by the style of the page around them, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from typing import NamedTuple

from fewstep.benchmark.measured import Measured

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 46
COLOURS = 8
"""Colours of the style, `c0` to `c7`; samplers after them begin anew with broken lines."""
CIRCLE = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"
SHAPES = (
    CIRCLE,
    "M-3.4 -3.4h6.8v6.8h-6.8z",  # a square
    "M0 -4.8L4.8 0L0 4.8L-4.8 0z",  # a diamond
    "M0 -4.8L4.4 3.6L-4.4 3.6z",  # up
    "M0 4.8L4.4 -3.6L-4.4 -3.6z",  # down
    "M-4 -1.6h2.4v-2.4h3.2v2.4h2.4v3.2h-2.4v2.4h-3.2v-2.4h-2.4z",  # a cross
)
"""Outlines of marks around (0, 0)."""


class Marks(NamedTuple):
    """What tells plans apart: a number for each sampler, which is its colour, and for each grid, which is its shape."""

    samplers: Mapping[str, int]
    grids: Mapping[str, int]

    @staticmethod
    def of(results: Sequence[Measured]) -> Marks:
        """Numbers in the order in which they come."""
        samplers, grids = (dict.fromkeys(getattr(one.plan, name) for one in results) for name in ("sampler", "grid"))
        return Marks(*({name: i for i, name in enumerate(names)} for names in (samplers, grids)))

    def colour(self, one: Measured) -> str:
        """The class of its sampler."""
        return f"c{self.samplers[one.plan.sampler] % COLOURS}"

    def shape(self, one: Measured) -> str:
        """The outline of its grid."""
        return SHAPES[self.grids[one.plan.grid] % len(SHAPES)]


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
    results: Sequence[Measured],
    marks: Marks,
    front: Collection[str],
    across: tuple[str, Callable[[Measured], float]],
    up: tuple[str, Callable[[Measured], float]],
    *,
    logarithmic: bool = True,
    figure: str | None = None,
) -> str:
    """An SVG of measurements: `across` and `up` are a title and a value; those on the front are ringed and joined.

    Args:
        logarithmic: the axis that goes up; the other one always is.
        figure: whose interval is drawn for those on the front.
    """
    shown = [one for one in results if across[1](one) > 0 and (not logarithmic or up[1](one) > 0)]
    if not shown:
        return ""
    x = Axis.over([across[1](one) for one in shown], LEFT, WIDTH - RIGHT)
    y = Axis.over([up[1](one) for one in shown], HEIGHT - BOTTOM, TOP, logarithmic)
    places = {one.key: (x.place(across[1](one)), y.place(up[1](one))) for one in shown}
    parts = [_frame(x, y, across[0], up[0])]
    lines: dict[tuple[str, str, str], list[Measured]] = {}
    for one in sorted(shown, key=lambda one: one.nfe):
        lines.setdefault((one.plan.sampler, one.plan.grid, one.precision), []).append(one)
    for line in lines.values():
        broken = " broken" * (marks.samplers[line[0].plan.sampler] >= COLOURS)
        parts.append(_path([places[one.key] for one in line], f"{marks.colour(line[0])} line{broken}"))
    best = sorted((one for one in shown if one.key in front), key=across[1])
    parts.append(_path([places[one.key] for one in best], "front"))
    for one in best if figure else ():
        ends = one.figures[figure or ""]
        low, high = y.place(max(ends.low, y.low)), y.place(min(max(ends.high, y.low), y.high))
        parts.append(f'<path class="bar" d="M{places[one.key][0]} {low}V{high}"/>')
    parts += [_mark(one, *places[one.key], marks, one.key in front) for one in shown]
    label = escape(f"{up[0]} against {across[0]}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def sign(shape: str, colour: str) -> str:
    """A mark alone, for a legend."""
    return f'<svg class="sign" viewBox="-7 -7 14 14"><path class="{colour} mark" d="{shape}"/></svg>'


def name_of(one: Measured) -> str:
    """A measurement in words."""
    return f"{one.name}, {one.plan.steps} step{'s' * (one.plan.steps != 1)}"


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


def _path(points: Sequence[tuple[float, float]], kind: str) -> str:
    if len(points) < 2:
        return ""
    return f'<path class="{kind}" d="M{"L".join(f"{a} {b}" for a, b in points)}"/>'


def _mark(one: Measured, x: float, y: float, marks: Marks, best: bool) -> str:
    hollow = " hollow" * (one.precision != "float32")
    figures = "".join(f", {name} {figure.value:.4g}" for name, figure in one.figures.items())
    title = escape(f"{name_of(one)}: NFE {one.nfe:g}, {1e3 * one.seconds.value:.3g} ms{figures}")
    ring = '<circle class="ring" r="8"/>' if best else ""
    mark = f'<path class="{marks.colour(one)} mark{hollow}" d="{marks.shape(one)}"/>'
    return f'<g transform="translate({x} {y})"><title>{title}</title>{ring}{mark}</g>'


def _number(value: float) -> str:
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}".replace("e-0", "e-")
