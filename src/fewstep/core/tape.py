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
    def level(self) -> tuple[float, float]:
        """(alpha, sigma)."""
        return self.alpha, self.sigma

    @property
    def ratio(self) -> float:
        """sigma / alpha, inf where alpha = 0."""
        return self.sigma / self.alpha if self.alpha else math.inf


class State:
    """A linear combination of nodes of one tape. The tape may re-anchor it to a new node of equal value."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[int, float]):
        self.terms = terms

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


class Tape:
    """Records what a solver does over the `times` of a `schedule`: N + 1, strictly monotonic, for N steps."""

    def __init__(self, schedule: Schedule, times: Float):
        self.schedule = schedule
        self.points = tuple(self.point(float(t)) for t in times)
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
        data, _ = self.evaluate_raw(x, p)
        return data

    def evaluate_raw(self, x: State, p: Point) -> tuple[State, State]:
        """As `evaluate`, with the estimate before clipping or thresholding too, for solvers that use both."""
        if p.sigma <= 0:
            raise InvalidInput(f"a network cannot be evaluated at time {p.t:g}, where sigma is 0")
        self._inputs.append(self._anchor(x))
        self._stage += 1
        label = f"step {self._step + 1}"
        if self._stage > 1:
            label += f" stage {self._stage}"
        self._rows.append(Row(p.t, p.alpha, p.sigma, label, ends_step=False, noise=None))
        data, raw = self._node(None), self._node(None)
        self._data.append((data, raw))
        return State({data: 1.0}), State({raw: 1.0})

    def keep(self, x: State) -> State:
        """Give `x` a register, so that later rows read it and do not make it again from its parts."""
        self._anchor(x)
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

    def _anchor(self, x: State) -> int:
        """Make `x` a node; from now on the caller's expressions refer to the node."""
        terms = {n: c for n, c in x.terms.items() if c != 0.0}
        node = self._node(terms)
        x.terms = {node: 1.0}
        return node

    def _expand(self, node: int) -> dict[int, float]:
        """What `node` is made of in its own row: nodes of earlier rows, and this row's outputs and noise."""
        definition = self._definitions[node]
        if definition is None:
            return {node: 1.0}
        total: dict[int, float] = {}
        for part, coefficient in definition.items():
            same_row = self._born[part] == self._born[node]
            parts = self._expand(part) if same_row else {part: 1.0}
            for n, c in parts.items():
                total[n] = total.get(n, 0.0) + coefficient * c
        return {n: c for n, c in total.items() if c != 0.0}

    def _live(self, finals: list[int]) -> list[list[int]]:
        """Which nodes must be in registers before the first row, and after each; the next network input is first."""
        live = [finals]
        for row in reversed(range(len(self._rows))):
            needed = [self._inputs[row]]
            for node in live[-1]:
                parts = self._expand(node) if self._born[node] == row else [node]
                needed += [part for part in parts if self._born[part] < row]
            live.append(list(dict.fromkeys(needed)))
        return live[::-1]

    def plan(self, result: tuple[State, ...], recipe: Recipe) -> Plan:
        """Allocate registers and write the table. `result` is the final state, and the second one for a pair."""
        if not self._rows:
            raise InvalidInput(f"{recipe.sampler} made no network evaluation over {len(self.points) - 1} steps")
        finals = [self._anchor(x) for x in result]
        live = self._live(finals)
        size = max(len(nodes) for nodes in live)
        places = [_numbered(live[0])]
        for nodes in live[1:-1]:
            places.append(self._assign(places[-1], nodes, size))
        places.append(_numbered(finals))

        starts = len(self._starts)
        init = np.zeros((size, starts + 1))
        self._fill(init, -1, _numbered(self._starts), places[0])
        table = np.zeros((len(self._rows), size, size + 3))  # registers, then data, raw and noise
        for row, (data, raw) in enumerate(self._data):
            self._fill(table[row], row, places[row] | {data: size, raw: size + 1}, places[row + 1])
        A, B, s = table[:, :, :size], table[:, :, size:-1], table[:, :, -1]
        drawn = {row: interval for row, (_, interval) in self._noise.items() if row < 0 or np.any(s[row])}
        return Plan(
            recipe=recipe,
            rows=tuple(row._replace(noise=drawn.get(i)) for i, row in enumerate(self._rows)),
            init=init,
            A=A,
            B=B,
            s=s,
            start_noise=drawn.get(-1),
            entry=self.points[0].level,
            exit=self.points[-1].level,
            companion=self.points[1].level if starts == 2 else None,
            outputs=len(finals),
            tolerance=1e-12,
            note=self.inexact,
        )

    def _fill(self, table: Float, row: int, columns: dict[int, int], place: dict[int, int]) -> None:
        """Write what the registers of `place` hold after `row`.

        `columns` are those of the nodes that they are made of; the last column of the table is for noise.
        """
        if row in self._noise:
            node, _ = self._noise[row]
            columns = columns | {node: table.shape[1] - 1}
        for node, register in place.items():
            parts = self._expand(node) if self._born[node] == row else {node: 1.0}
            for part, coefficient in parts.items():
                table[register, columns[part]] = coefficient

    @staticmethod
    def _assign(place: dict[int, int], nodes: list[int], size: int) -> dict[int, int]:
        """The registers of `nodes` after a row: 0 for the first, the same for those that stay, free ones for others."""
        after = {nodes[0]: 0}
        for node in nodes[1:]:
            if place.get(node, 0) != 0:
                after[node] = place[node]
        free = iter(sorted(set(range(1, size)) - set(after.values())))
        for node in nodes[1:]:
            if node not in after:
                after[node] = next(free)
        return after


def _numbered(nodes: list[int]) -> dict[int, int]:
    """Each node's place in the list."""
    return {node: number for number, node in enumerate(nodes)}
