"""The exact table of somebody else's sampler, read off its impulse response.

A sampler is linear in its start x_T, in the data predictions D_i that the network returns and in its noise
draws z_j. So an unmodified peer is run once on *symbols*: the start is the unit vector e_0, the network
answers its i-th call with the unit vector of D_i, the j-th draw is the unit vector of z_j. Every tensor of
the run is then a row of coefficients:

    state = c[0] x_T + sum_i c[1 + i] D_i + sum_j c[1 + n + j] z_j.

Running on symbols is running on the rows of the identity matrix. `Peer.superposition_error` runs the same
code on the rows of a random matrix and compares with the table applied to it; clipping, for one, would show
there.

Samplers that query a Brownian path W on overlapping intervals are given independent increments: the path is
cut at every queried point, each piece has its own unit symbol, and W(a) - W(b) = sum of sqrt(length) z over
the pieces between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch

Coordinates = Literal["vp", "ve", "flow"]
Precision = Literal["float64", "float32"]
Level = tuple[float, float]

_HEARD = {"float64": 1e-9, "float32": 1e-5}  # the conformance bars: a noise column below them is silence


@dataclasses.dataclass(frozen=True)
class Draw:
    """One noise symbol: how many evaluations came before its first use, and the span of sigma it belongs to.

    `interval` runs from the noisier to the cleaner end in the peer's own sigma. For a Brownian path it is the
    piece of the path; for a plain draw it is what the sampler asked for, or None where it does not say.
    """

    after: int
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Response:
    """The table of a peer: n evaluations over m = 1 + n + k symbols, columns ordered x_T, D_0.., z_0...

    `inputs` (n, m) are the states at which the network was evaluated, before `scale_model_input`; `final`
    (m,) is the result. `times` is what the network was told, (`alphas`, `sigmas`) the level at which the peer
    converts that evaluation, `end` the level it steps to last, `scales` the factor the peer put on the
    network's input. Noise that a peer draws and multiplies by zero (below the conformance bar: DDPM's last
    step has 1e-10) has no column; `silent` counts it.

    coordinates: x = alpha x0 + sigma eps, where 'vp' has alpha^2 + sigma^2 = 1, 've' alpha = 1, 'flow'
    alpha = 1 - sigma.
    """

    name: str
    coordinates: Coordinates
    precision: Precision
    inputs: np.ndarray
    final: np.ndarray
    times: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray
    scales: np.ndarray
    end: Level
    draws: tuple[Draw, ...]
    silent: int

    @property
    def evaluations(self) -> slice:
        """Columns of the data predictions."""
        return slice(1, 1 + len(self.inputs))

    @property
    def noises(self) -> slice:
        """Columns of the noise draws, in the order of `draws`."""
        return slice(1 + len(self.inputs), None)

    @property
    def states(self) -> np.ndarray:
        """All states (n + 1, m): the inputs, then the result."""
        return np.vstack([self.inputs, self.final])

    @property
    def levels(self) -> np.ndarray:
        """(n + 1, 2): alpha and sigma of every evaluation, then of the end."""
        return np.vstack([np.stack([self.alphas, self.sigmas], axis=1), self.end])

    def marginals(self) -> np.ndarray:
        """(n + 1, 2): the alpha and sigma that the states carry when every D_i is the same data point.

        The start is taken to carry its own level, x_T = alpha_0 c + sigma_0 eps.
        """
        states = self.states
        alpha = states[:, 0] * self.alphas[0] + states[:, self.evaluations].sum(axis=1)
        sigma = np.hypot(states[:, 0] * self.sigmas[0], np.linalg.norm(states[:, self.noises], axis=1))
        return np.stack([alpha, sigma], axis=1)

    def marginal_error(self) -> float:
        """Largest difference of `marginals` from `levels`, in units of max(1, sigma of the start)."""
        return float(np.abs(self.marginals() - self.levels).max() / max(1.0, self.sigmas[0]))

    def in_ve(self) -> Response:
        """The same run in x / alpha with r = sigma / alpha, as a plan of the edm schedule would make it."""
        scale = self.levels[:, 0]
        if not np.all(scale > 0):
            raise ValueError(
                f"{self.name}: alpha is {scale.min():g} at one evaluation, and x / alpha needs alpha > 0; "
                "compare this run in its own coordinates, or start it below pure noise"
            )
        states = self.states / scale[:, None]
        states[:, 0] *= scale[0]
        ratio = self.levels[:, 1] / scale
        return dataclasses.replace(
            self,
            coordinates="ve",
            inputs=states[:-1],
            final=states[-1],
            alphas=np.ones(len(self.inputs)),
            sigmas=ratio[:-1],
            scales=self.scales * scale[:-1],
            end=(1.0, float(ratio[-1])),
        )


class Trace:
    """Hands a run its symbols and writes down what the run does with them.

    values: (m, d), the rows that stand for x_T, D_0..D_{n-1}, z_0... None counts only: all symbols are zero.
    """

    def __init__(self, leading: tuple[int, ...], dtype: torch.dtype, values: torch.Tensor | None, plan: _Count | None):
        self.leading, self.dtype, self.values = leading, dtype, values
        self.plan = plan
        self.inputs: list[np.ndarray] = []
        self.told: list[tuple[float, float, float, float]] = []
        self.draws: list[Draw | None] = [None] * len(plan.pieces) if plan else []
        self.queries: list[tuple[float, float]] = []

    def symbol(self, row: int) -> torch.Tensor:
        if self.values is None:
            return torch.zeros(*self.leading, 1, dtype=self.dtype)
        return self.values[row].to(self.dtype).reshape(*self.leading, -1).clone()

    def start(self) -> torch.Tensor:
        """x_T."""
        return self.symbol(0)

    def evaluate(self, state: torch.Tensor, time: Any, level: Level, scale: float = 1.0) -> torch.Tensor:
        """Record one network evaluation and return its data prediction D_i."""
        self.inputs.append(state.detach().double().reshape(-1).numpy().copy())
        self.told.append((float(time), *level, scale))
        return self.symbol(len(self.inputs))

    def draw(self, interval: tuple[float, float] | None = None) -> torch.Tensor:
        """z_j for a plain draw of unit noise."""
        self.draws.append(Draw(len(self.inputs), interval))
        return self.symbol((self.plan.evaluations if self.plan else 0) + len(self.draws))

    def brownian_tree(self, *_args: Any, **_options: Any) -> Callable[[Any, Any], torch.Tensor]:
        """Stands in for the peers' `BatchedBrownianTree`: same construction, same call."""
        return self._increment

    def _increment(self, first: Any, second: Any) -> torch.Tensor:
        """W(second) - W(first) of a path that runs towards lower sigma, so that a downward step adds +z."""
        high, low = max(float(first), float(second)), min(float(first), float(second))
        self.queries.append((high, low))
        total = torch.zeros_like(self.symbol(0))
        if self.plan is None:
            return total
        inside = self.plan.between(high, low)
        span = sum(self.plan.length(k) for k in inside)
        for k in inside:
            if self.draws[k] is None:
                self.draws[k] = Draw(len(self.inputs), self.plan.pieces[k])
            total += (self.plan.length(k) * (high - low) / span) ** 0.5 * self.symbol(1 + self.plan.evaluations + k)
        return total if float(first) > float(second) else -total


@dataclasses.dataclass(frozen=True)
class _Count:
    """What a counting run found: evaluations, plain draws, pieces of the Brownian path (noisiest first)."""

    evaluations: int
    plain: int
    pieces: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, trace: Trace) -> _Count:
        cuts: list[float] = []
        for point in sorted((p for query in trace.queries for p in query), reverse=True):
            if not cuts or cuts[-1] - point > 1e-6 * cuts[-1]:  # exp(log(sigma)) is not sigma to the last digit
                cuts.append(point)
        pieces = tuple(itertools.pairwise(cuts))
        if pieces and trace.draws:
            raise RuntimeError("a sampler that mixes a Brownian path with plain draws needs a rule for their order")
        return cls(len(trace.inputs), len(trace.draws), pieces)

    @property
    def symbols(self) -> int:
        return 1 + self.evaluations + self.plain + len(self.pieces)

    def length(self, piece: int) -> float:
        return self.pieces[piece][0] - self.pieces[piece][1]

    def between(self, high: float, low: float) -> list[int]:
        middle = [(a + b) / 2 for a, b in self.pieces]
        return [k for k, point in enumerate(middle) if low < point < high]


@dataclasses.dataclass(frozen=True, eq=False)
class Peer:
    """One configured sampler of another library.

    `run(trace)` samples once and returns (result, level of the end). `settings` says how the peer was made,
    for a test that maps it to a sampler of ours. `marginals` is False where the peer itself leaves the
    schedule's marginals, `note` says why.
    """

    name: str
    coordinates: Coordinates
    precision: Precision
    leading: tuple[int, ...]
    run: Callable[[Trace], tuple[torch.Tensor, Level]]
    settings: dict[str, Any]
    marginals: bool = True
    note: str = ""

    def _count(self) -> _Count:
        trace = Trace(self.leading, getattr(torch, self.precision), None, None)
        self.run(trace)
        return _Count.of(trace)

    def _play(self, values: torch.Tensor, count: _Count) -> tuple[Trace, np.ndarray, Level]:
        trace = Trace(self.leading, getattr(torch, self.precision), values, count)
        final, end = self.run(trace)
        return trace, final.detach().double().reshape(-1).numpy(), end

    def response(self) -> Response:
        """Run on symbols and return the table, without the columns of noise that was multiplied by zero."""
        count = self._count()
        trace, final, end = self._play(torch.eye(count.symbols, dtype=torch.float64), count)
        states = np.vstack([*trace.inputs, final])
        noisy = [bool(np.abs(column).max() > _HEARD[self.precision]) for column in states.T[1 + count.evaluations :]]
        keep = [True] * (1 + count.evaluations) + noisy
        times, alphas, sigmas, scales = np.array(trace.told).T
        return Response(
            name=self.name,
            coordinates=self.coordinates,
            precision=self.precision,
            inputs=states[:-1, keep],
            final=states[-1, keep],
            times=times,
            alphas=alphas,
            sigmas=sigmas,
            scales=scales,
            end=end,
            draws=tuple(draw for draw, heard in zip(trace.draws, noisy, strict=True) if heard and draw is not None),
            silent=noisy.count(False),
        )

    def superposition_error(self, seed: int = 0, width: int = 5) -> float:
        """Largest relative error of the table applied to random numbers against a run on those numbers."""
        count = self._count()
        values = torch.from_numpy(np.random.default_rng(seed).standard_normal((count.symbols, width)))
        table, final, _ = self._play(torch.eye(count.symbols, dtype=torch.float64), count)
        real, result, _ = self._play(values, count)
        want = np.vstack([*table.inputs, final]) @ values.numpy()
        got = np.vstack([*real.inputs, result])
        return float((np.abs(got - want).max(axis=1) / np.maximum(1.0, np.abs(want).max(axis=1))).max())


class Overlay:
    """A module with some of its names replaced, for code that looks them up as `module.name`."""

    def __init__(self, module: ModuleType, **names: Any):
        self._module, self._names = module, names

    def __getattr__(self, name: str) -> Any:
        return self._names[name] if name in self._names else getattr(self._module, name)


@contextlib.contextmanager
def replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    """Set globals of a peer's module for the length of a run; names that it does not have are left alone."""
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    for name in before:
        setattr(module, name, names[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype for the length of a run: `torch.tensor(0.5)` and `torch.linspace` follow it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
