"""Figure 5: what a step size does, on an equation that can be solved on paper.

    dx/dt = -sin(x) t,    tan(x(t) / 2) = tan(x(0) / 2) exp(-t^2 / 2)

Sampling follows an equation too, dx/dt = f(x, t), and a step of a sampler follows its tangent as a step does here.
Euler takes the slope where it stands; Heun takes the mean of the slopes at both ends, for two evaluations of f a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewstep.core.errors import InvalidInput, is_finite, shown

STARTS, STEP, END = (0.5, 1.5, 2.5, 3.0), 0.5, 3.0
"""Where paths begin at t = 0, the size of a step, and the time at which they end."""
MOST_STEPS, POINTS = 10_000, 241
"""Most steps of a path, and points of an exact one."""

Path = NDArray[np.float64]


class Steps(NamedTuple):
    """The paths of one method: `x` (starts, steps + 1); `error` is the greatest distance at the end."""

    method: str
    evaluations: int
    x: Path
    error: float


class Ode(NamedTuple):
    """The exact paths (starts, POINTS) at `times`, and those in steps at `step_times`."""

    starts: Sequence[float]
    step: float
    times: Path
    exact: Path
    step_times: Path
    methods: Sequence[Steps]

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        euler, heun = self.methods
        taken = f"With a step of {self.step:g},"
        if heun.error == 0 or euler.error == 0:
            return f"{taken} Euler ends {euler.error:.2g} from the exact path and Heun {heun.error:.2g}"
        ratio = euler.error / heun.error
        nearer = f"{ratio:.2g} times nearer" if ratio >= 1 else f"{1 / ratio:.2g} times farther off"
        return f"{taken} Heun ends {nearer} than Euler, in twice the evaluations"

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "figure": "ode",
            "finding": self.finding,
            "equation": "dx/dt = -sin(x) t",
            "starts": list(self.starts),
            "step": self.step,
            "times": self.times.tolist(),
            "exact": self.exact.tolist(),
            "step_times": self.step_times.tolist(),
            "methods": [{**m._asdict(), "x": m.x.tolist()} for m in self.methods],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A point of a path a line."""
        rows = [
            [method.method, start, float(t), float(x), float(exact_path(start, t))]
            for method in self.methods
            for start, path in zip(self.starts, method.x, strict=True)
            for t, x in zip(self.step_times, path, strict=True)
        ]
        return ["method", "start", "t", "x", "exact"], rows


def slope(x: Path, t: float | Path) -> Path:
    """dx/dt at the positions `x` and the time `t`."""
    return -np.sin(x) * t


def exact_path(start: Any, t: Any) -> Path:
    """x(t) of the path that begins at `start`, between -pi and pi, at t = 0; the arguments broadcast."""
    return 2 * np.arctan(np.tan(np.asarray(start, np.float64) / 2) * np.exp(-np.square(np.asarray(t, np.float64)) / 2))


def euler(x: Path, t: float, h: float) -> Path:
    """One step of Euler: x + h f(x, t)."""
    return x + h * slope(x, t)


def heun(x: Path, t: float, h: float) -> Path:
    """One step of Heun: x + h (f(x, t) + f(x', t + h)) / 2, x' being where Euler ends."""
    return x + h / 2 * (slope(x, t) + slope(euler(x, t, h), t + h))


METHODS: dict[str, tuple[Callable[[Path, float, float], Path], int]] = {"euler": (euler, 1), "heun": (heun, 2)}
"""A step of each method, and the evaluations that it takes."""


def ode(starts: Sequence[float] = STARTS, *, step: float = STEP, end: float = END) -> Ode:
    """Follow the equation from t = 0 to `end` by both methods, from each start, beside the exact paths.

    Args:
        starts: between -pi and pi, where the closed form holds.
        step: above 0, at most `end`. The last step is shorter where `end` is not a multiple of it.

    Raises:
        InvalidInput: for other values, and for more than 10,000 steps.
    """
    for name, value in (("step", step), ("end", end)):
        if not is_finite(value) or not 0 < value <= 100:
            raise InvalidInput(f"{name} must be above 0 and at most 100, got {shown(value)}")
    if not starts or not all(is_finite(x) and abs(x) < math.pi for x in starts):
        raise InvalidInput(f"starts must lie between -pi and pi, got {shown(list(starts))}")
    if step > end or end / step > MOST_STEPS:
        raise InvalidInput(f"step must be from {end / MOST_STEPS:g} to {end:g}, the time at the end; got {step:g}")
    whole = math.ceil(end / step * (1 - 1e-12))
    step_times = np.append(step * np.arange(whole), end)
    first = np.array(starts, np.float64)
    final = exact_path(first, end)
    methods = []
    for name, (advance, evaluations) in METHODS.items():
        path = [first]
        for t, h in zip(step_times, np.diff(step_times), strict=False):
            path.append(advance(path[-1], float(t), float(h)))
        error = float(np.abs(path[-1] - final).max())
        methods.append(Steps(name, evaluations * whole, np.stack(path, axis=1), error))
    times = np.linspace(0, end, POINTS)
    return Ode(tuple(starts), step, times, exact_path(first[:, None], times), step_times, methods)
