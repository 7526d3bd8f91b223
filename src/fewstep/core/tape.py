"""A solver writes its formulas on a tape; the tape becomes a plan.

A solver reads as in its paper: it takes the starting state, asks for network evaluations and noise, and combines them
with `+`, `-`, `*` and `/`. None of these are tensors: a `State` is a linear combination of nodes (starting states,
network outputs, noise draws, earlier inputs), and the tape records which node is made in which row. `Tape.plan` then
finds out which nodes must outlive which row, gives each a register, and writes the table.

    def euler(tape):
        x = tape.start()
        for p, q in tape.steps():
            d = tape.evaluate(x, p)
            x = x + (q.sigma - p.sigma) * (x - d) / p.sigma          # alpha = 1
        return x
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Interval, Plan, Recipe, Row
from fewstep.core.schedule import Float, Schedule


class Point(NamedTuple):
    """A time of the grid with what the schedule says there. `lam` is +inf where clean and -inf where alpha = 0."""

    t: float
    alpha: float
    sigma: float
    lam: float

    @staticmethod
    def of(t: float, alpha: float, sigma: float) -> Point:
        """The point at time `t` with this alpha and sigma."""
        if sigma == 0:
            return Point(t, alpha, sigma, math.inf)
        if alpha == 0:
            return Point(t, alpha, sigma, -math.inf)
        return Point(t, alpha, sigma, math.log(alpha) - math.log(sigma))

    @property
    def ratio(self) -> float:
        """sigma / alpha, inf where alpha = 0."""
        return self.sigma / self.alpha if self.alpha else math.inf


@dataclass(slots=True, eq=False)
class State:
    """A linear combination of nodes of one tape. The tape may re-anchor it to a new node of equal value."""

    terms: dict[int, float]

    def __add__(self, other: State | int) -> State:
        if isinstance(other, State):
            names = self.terms.keys() | other.terms.keys()
            return State({n: self.terms.get(n, 0.0) + other.terms.get(n, 0.0) for n in names})
        if other == 0:  # so that sum() works
            return self
        return NotImplemented

    __radd__ = __add__

    def __mul__(self, factor: float) -> State:
        return State({n: c * float(factor) for n, c in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> State:
        return self * (1.0 / float(factor))

    def __sub__(self, other: State) -> State:
        return self + other * -1.0

    def __neg__(self) -> State:
        return self * -1.0


def transfer(x: State, data: State, p: Point, q: Point) -> State:
    """The exact step from `p` to `q` for data that does not change: DDIM, arXiv 2010.02502, eq. 12."""
    keep = q.sigma / p.sigma
    return keep * x + (q.alpha - p.alpha * keep) * data


def noise_in(x: State, data: State, p: Point) -> State:
    """The noise that is in `x` at `p` where `data` is the estimate of the data."""
    return (x - p.alpha * data) / p.sigma


class Tape:
    """Records what a solver does over the `times` of a `schedule`: N + 1, strictly monotonic, for N steps."""

    def __init__(self, schedule: Schedule, times: Float):
        self.schedule = schedule
        levels = zip(times, schedule.alpha(times), schedule.sigma(times), strict=True)
        self.points = tuple(Point.of(float(t), float(alpha), float(sigma)) for t, alpha, sigma in levels)
        self._definitions: list[dict[int, float] | None] = []  # None: a start, a network output or a noise draw
        self._born: list[int] = []  # the row in whose update a node is made; -1 before the first row
        self._inputs: list[int] = []
        self._rows: list[Row] = []
        self._data: list[tuple[int, int]] = []  # nodes of each row's (data, raw)
        self._noise: dict[int, tuple[int, Interval]] = {}  # row -> (node, interval)
        self._starts: list[int] = []
        self._step, self._stage = 0, 0
        self.inexact = ""
        """Why the marginals are not those of the schedule, where a solver departs from them on purpose."""

    def point(self, t: float) -> Point:
        """The `Point` at time `t`, for stages between the times of the grid."""
        return Point.of(t, float(self.schedule.alpha(t)), float(self.schedule.sigma(t)))

    def point_at_lambda(self, lam: float) -> Point:
        """The `Point` where log(alpha / sigma) is `lam`."""
        return self.point(float(self.schedule.time_of_lambda(lam)))

    def steps(self, sizes: Sequence[int] | None = None) -> Iterator[tuple[Point, ...]]:
        """Neighbouring points (p, q): a step goes from p to q, and the rows made in between belong to it.

        With `sizes`, step k spans sizes[k] intervals of the grid and yields all its points, (p, .., q).
        """
        first = 0
        for step, size in enumerate(sizes or [1] * (len(self.points) - 1)):
            self._step, self._stage = step, 0
            yield self.points[first : first + size + 1]
            first += size
            if self._rows:
                self._rows[-1] = self._rows[-1]._replace(ends_step=True)

    def start(self) -> State:
        """The state that the caller starts from, at the first point; called again, the pair's other, at the second."""
        self._starts.append(self._node(None))
        return State({self._starts[-1]: 1.0})

    def evaluate(self, x: State, p: Point) -> State:
        """One network evaluation of `x` at `p`: the estimate of the data."""
        if p.sigma <= 0:
            raise InvalidInput(f"a network cannot be evaluated at time {p.t:g}, where sigma is 0")
        self._inputs += self.keep(x).terms
        self._stage += 1
        label = f"step {self._step + 1}"
        if self._stage > 1:
            label += f" stage {self._stage}"
        self._rows.append(Row(p.t, p.alpha, p.sigma, label, ends_step=False, noise=None))
        self._data.append((self._node(None), self._node(None)))
        return State({self._data[-1][0]: 1.0})

    def evaluate_raw(self, x: State, p: Point) -> tuple[State, State]:
        """As `evaluate`, with the estimate before clipping or thresholding too, for solvers that use both."""
        data = self.evaluate(x, p)
        return data, State({self._data[-1][1]: 1.0})

    def keep(self, x: State) -> State:
        """Give `x` a register, so that later rows read it and do not make it again from its parts."""
        node = self._node({n: c for n, c in x.terms.items() if c != 0.0})
        x.terms = {node: 1.0}
        return x

    def noise(self, p: Point, q: Point) -> State:
        """Unit noise of the interval from `p` to `q`.

        Intervals must not overlap, and there is at most one draw between two evaluations.
        """
        if self.points[0].t < self.points[-1].t:
            raise InvalidInput("a sampler that draws noise cannot be run in reverse: choose one such as 'ddim'")
        row = len(self._rows) - 1
        if row in self._noise:
            raise InvalidInput(f"row {row} draws noise twice: a solver may draw once between two evaluations")
        node = self._node(None)
        repeat = sum(interval[:2] == (p.t, q.t) for _, interval in self._noise.values())
        self._noise[row] = (node, Interval(p.t, q.t, repeat))
        return State({node: 1.0})

    def _node(self, definition: dict[int, float] | None) -> int:
        self._definitions.append(definition)
        self._born.append(len(self._rows) - 1)
        return len(self._born) - 1

    def _expand(self, node: int, row: int) -> dict[int, float]:
        """What `node` is made of in `row`: nodes of earlier rows, and this row's outputs and noise."""
        definition = self._definitions[node] if self._born[node] == row else None
        if definition is None:
            return {node: 1.0}
        total: dict[int, float] = {}
        for part, coefficient in definition.items():
            for n, c in self._expand(part, row).items():
                total[n] = total.get(n, 0.0) + coefficient * c
        return {n: c for n, c in total.items() if c != 0.0}

    def plan(self, result: tuple[State, ...], recipe: Recipe) -> Plan:
        """Allocate registers and write the table. `result` is the final state, and the second one for a pair."""
        if not self._rows:
            raise InvalidInput(f"{recipe.sampler} made no network evaluation over {len(self.points) - 1} steps")
        finals = [node for x in result for node in self.keep(x).terms]
        held = self._registers(finals)
        size = len(held[0])
        init = self._table(-1, self._starts, held[0])
        rows = [self._table(row, [*held[row], *outputs], held[row + 1]) for row, outputs in enumerate(self._data)]
        table = np.stack(rows)  # columns: the registers, then data, raw and noise
        A, B, s = table[:, :, :size], table[:, :, size:-1], table[:, :, -1]
        drawn = {row: interval for row, (_, interval) in self._noise.items() if row < 0 or np.any(s[row])}
        first, second, *_ = self.points
        last = self.points[-1]
        return Plan(
            recipe=recipe,
            rows=tuple(row._replace(noise=drawn.get(i)) for i, row in enumerate(self._rows)),
            init=init,
            A=A,
            B=B,
            s=s,
            start_noise=drawn.get(-1),
            entry=(first.alpha, first.sigma),
            exit=(last.alpha, last.sigma),
            companion=(second.alpha, second.sigma) if len(self._starts) == 2 else None,
            outputs=len(finals),
            tolerance=1e-12,
            note=self.inexact,
        )

    def _registers(self, finals: list[int]) -> list[list[int | None]]:
        """The node in each register before the first row, and after each: first the next network input.

        A node is held for as long as a later row reads it, in one register, and a new one takes the first that is free.
        """
        needed = [finals]
        for row in reversed(range(len(self._rows))):
            parts = [part for node in needed[-1] for part in self._expand(node, row)]
            earlier = [part for part in parts if self._born[part] < row]
            needed.append(list(dict.fromkeys([self._inputs[row], *earlier])))
        size = max(len(nodes) for nodes in needed)
        begin, *between = reversed(needed[1:])
        held: list[list[int | None]] = [begin + [None] * (size - len(begin))]
        for first, *others in between:
            registers = [first, *(node if node in others else None for node in held[-1][1:])]
            for node in others:
                if node not in registers:
                    registers[registers.index(None)] = node
            held.append(registers)
        return [*held, finals + [None] * (size - len(finals))]

    def _table(self, row: int, sources: Sequence[int | None], registers: Sequence[int | None]) -> Float:
        """What each of the `registers` holds after `row`, in multiples of the `sources` and of the row's noise."""
        noise, _ = self._noise.get(row, (None, None))
        column = {node: number for number, node in enumerate([*sources, noise])}
        table = np.zeros((len(registers), len(sources) + 1))
        for register, node in enumerate(registers):
            parts = {} if node is None else self._expand(node, row)
            for part, coefficient in parts.items():
                table[register, column[part]] = coefficient
        return table
