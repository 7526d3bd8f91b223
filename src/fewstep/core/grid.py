"""Time grids: the N + 1 decreasing times that N steps of a solver visit.

A grid is positions u in [0, 1] times a curve. The positions are uniform, 0 the noisiest and 1 the end; `bias` warps
them; the curve carries them to times. Most curves are straight lines, or powers of them, in a space of `SPACES`.
`GRIDS` lists them all.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fewstep.core.errors import InvalidInput, one_of, positive, shown, unknown_name
from fewstep.core.schedule import RATIO_CAP, BetaSchedule, Float, FlowSchedule, Schedule

SPACES = ("time", "sigma", "ratio", "lambda")

AYS_RATIOS = {
    "sd15": (6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}
"""sigma / alpha between the ten steps of Align Your Steps; around them lie the two ends of the schedule."""


def grid_times(
    name: str, schedule: Schedule, steps: int, *, bias: float = 0, start: float = 1, final: str = "clean", **given: Any
) -> Float:
    """The times of grid `name` (a key of `GRIDS`): float64, shape (steps + 1,), strictly decreasing.

    The first is `schedule.t_max` (not with `leading` or `start`). The last is `schedule.t_clean`, after the last noisy
    time: `t_min`, or its shifted value where the curve is in time. With `final="sigma_min"` the grid stops at that
    noisy time, still after `steps` transitions. `steps` is an integer in 1 .. 100000.

    `bias` in [-20, 20] warps the positions, u -> k u / (1 + (k - 1) u) with k = exp(bias): above 0 more steps at low
    noise, below 0 more at high noise. It is the map of the flow shift: on `flow`, a bias of -log(s) does to `trailing`
    what a shift s does. `start` in (0, 1] is the share of the positions that is kept, up to the end. Where sigma /
    alpha is infinite at t_max, curves that need it begin at RATIO_CAP; the first time is still t_max.

    Raises `InvalidInput` where times would not decrease.
    """
    if name not in GRIDS:
        raise unknown_name("grid", str(name), GRIDS)
    grid = GRIDS[name]
    for option in given:
        if option not in grid.options:
            raise unknown_name(f"option of grid {name!r}", option, [*grid.options, "bias", "start", "final"])
    one_of("final", final, ("clean", "sigma_min"))
    if positive("start", start) > 1:
        raise InvalidInput(f"start must be above 0 and at most 1, got {start!r}: 1 is pure noise")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= 100_000:
        raise InvalidInput(f"steps must be an integer in 1 .. 100000, got {steps!r}")
    clean = final == "clean"
    points = int(steps) if clean else int(steps) + 1
    u = np.arange(points) / max(points - 1, 1)
    if grid.positions == "leading":
        u = np.arange(1, points + 1) / points
    elif grid.positions == "trailing":
        u = np.arange(steps + 1) / steps
    low = schedule.t_clean if clean and grid.positions == "trailing" else schedule.t_min
    if bias != 0:
        u = _biased(u, bias)
    times = grid.curve(schedule, u + (1 - start) * (1 - u), low, **given)
    if clean:
        times = np.append(times[:steps], schedule.t_clean)
    stuck = np.flatnonzero(~(np.diff(times) < 0))
    if stuck.size:
        rounded = "integer" in grid.options and given.get("integer") is not False and isinstance(schedule, BetaSchedule)
        hint = f"or integer=False: of integers {schedule.t_max + 1:g} fit" if rounded else "or milder options"
        raise InvalidInput(
            f"grid {name!r} with {steps} steps does not decrease on the {schedule.kind} schedule: after "
            f"{times[stuck[0]]:g} comes {times[stuck[0] + 1]:g}. Use fewer steps, a bias nearer to 0, {hint}"
        )
    return times


def given_times(schedule: Schedule, *, times: ArrayLike | None = None, sigmas: ArrayLike | None = None) -> Float:
    """The times that a caller gives, checked: N + 1 for N steps, strictly decreasing, the end included.

    Give `times`, or `sigmas` as the schedule's users write them: sigma / alpha for beta schedules, 0 where clean. They
    are not shifted, biased or rounded. Only a first sigma that is less than 1e-4 (relative) above the largest is taken
    for the largest, because published tables are rounded. `InvalidInput` names the index of a bad value.
    """
    if (times is None) == (sigmas is None):
        raise InvalidInput("give the grid as times or as sigmas, one of the two")
    what, given = ("times", times) if sigmas is None else ("sigmas", sigmas)
    try:
        values = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{what} must be a list of numbers, got {shown(given)}") from error
    if values.ndim != 1 or values.size < 2:
        raise InvalidInput(f"{what} must be a list of 2 numbers or more (N + 1 for N steps), got {shown(given)}")
    low, high = schedule.t_clean, schedule.t_max
    if sigmas is not None:
        low, high = schedule.given_sigma(np.array([low, high])).tolist()
        if high < values[0] <= high * (1 + 1e-4):
            values[0] = high
    for i, value in enumerate(values):
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidInput(
                f"{what}[{i}] = {value:g} is outside the {schedule.kind} schedule, "
                f"which allows {low:g} (clean) to {high:g} (noisiest)"
            )
    result = values
    if sigmas is not None:
        result = np.where(values == high, schedule.t_max, schedule.time_of_sigma(values))
    for i in np.flatnonzero(np.diff(result) >= 0):
        raise InvalidInput(
            f"{what} must decrease strictly, from noise to data: {what}[{i + 1}] = {values[i + 1]:.10g} "
            f"follows {what}[{i}] = {values[i]:.10g}. Reverse the list, or drop repeated values"
        )
    return result


def _biased(u: Float, bias: float) -> Float:
    """u -> k u / (1 + (k - 1) u), written so that 0 and 1 stay what they are."""
    if not isinstance(bias, Real) or not abs(bias) <= 20:
        raise InvalidInput(f"bias must be a number in [-20, 20], got {bias!r}: 0 leaves the grid as it is")
    return u / (u + (1 - u) * math.exp(-bias))


def _pinned(schedule: Schedule, u: Float, times: Float, end: float) -> Float:
    """`times` with exact ends, t_max at u = 0 and `end` at u = 1, and no rounding error beyond them."""
    return np.select([u == 0, u == 1], [schedule.t_max, end], np.clip(times, end, schedule.t_max))


def _space(schedule: Schedule, u: Float, name: str | None) -> tuple[float, float, Callable[[Float], Float]]:
    """Coordinates of t_max and t_min in a space, neither below 0, and a function from coordinates to times.

    It takes one coordinate for each u. "time" is before the shift of a flow; "lambda" and "log sigma" count from t_min
    towards the noise. None is what a schedule's users call sigma: sigma itself for `flow`, else sigma / alpha.
    """
    name = name or ("sigma" if isinstance(schedule, FlowSchedule) else "ratio")
    ends = np.array([schedule.t_max, schedule.t_min])
    sigma_max, sigma_min = schedule.sigma(ends).tolist()
    ratio = schedule.ratio(ends)
    ratio_max, ratio_min = np.where(np.isinf(ratio), RATIO_CAP, ratio).tolist()

    def of_ratio(r: Float) -> Float:
        return schedule.time_of_lambda(-np.log(np.clip(r, ratio_min, ratio[0])))

    def of_sigma(sigma: Float) -> Float:
        sigma = np.clip(sigma, sigma_min, sigma_max)
        if not isinstance(schedule, BetaSchedule):
            return schedule.time_of_sigma(sigma)
        with np.errstate(divide="ignore"):
            return of_ratio(sigma / np.sqrt((1 - sigma) * (1 + sigma)))

    spaces: dict[str, tuple[float, float, Callable[[Float], Float]]] = {
        "time": (schedule.t_max, schedule.t_min, schedule.warp),
        "sigma": (sigma_max, sigma_min, of_sigma),
        "ratio": (ratio_max, ratio_min, of_ratio),
        "lambda": (math.log(ratio_max / ratio_min), 0.0, lambda c: of_ratio(ratio_min * np.exp(c))),
        "log sigma": (math.log(sigma_max / sigma_min), 0.0, lambda c: of_sigma(sigma_min * np.exp(c))),
    }
    if name not in spaces:
        raise unknown_name("space", str(name), SPACES)
    c_max, c_min, times_of = spaces[name]
    end = float(schedule.warp(schedule.t_min)) if name == "time" else schedule.t_min
    return c_max, c_min, lambda c: _pinned(schedule, u, times_of(c), end)


def _rounds(schedule: Schedule, integer: bool) -> bool:
    """`integer`, checked: whether a caller wants times rounded."""
    if integer and not isinstance(schedule, BetaSchedule):
        raise InvalidInput(f"integer=True needs a beta schedule: on {schedule.kind} times are not integers")
    return bool(integer)


def _uniform(schedule: Schedule, u: Float, low: float, *, integer: bool | None = None) -> Float:
    """t = low + (1 - u) (t_max - low), then the schedule's warp.

    Times are rounded (`integer` None) on beta schedules, whose networks were trained on integers.
    """
    span = schedule.t_max - low
    above = (1 - u) * span
    if isinstance(schedule, BetaSchedule) if integer is None else _rounds(schedule, integer):
        n = max(len(u) - 1, 1)
        i = np.round(u * n, 9)
        stride = span / n
        # Halves round to even, so the last bit counts: diffusers goes up from t_min, but down from t_max.
        above = (n - i) * stride if low == schedule.t_min else span + i * ((span - stride) - span)
        above = np.round(above)
    return _pinned(schedule, u, schedule.warp(low + above), float(schedule.warp(low)))


def _leading(schedule: Schedule, u: Float, low: float, *, integer: bool | None = None, steps_offset: int = 0) -> Float:
    """(n - 1 - i) (T // n) + steps_offset on beta schedules, else t_min + (n - 1 - i) / n (t_max - t_min): no t_max."""
    n, beta = len(u), isinstance(schedule, BetaSchedule)
    if not isinstance(steps_offset, (int, np.integer)) or steps_offset < 0 or (steps_offset and not beta):
        raise InvalidInput(f"steps_offset must be an integer: 0, or on a beta schedule above 0, got {steps_offset!r}")
    span = schedule.t_max - (schedule.t_clean if beta else low)
    rounded = beta if integer is None else _rounds(schedule, integer)
    above = np.round((1 - u) * n * (span // n)) if rounded else (1 - u) * span
    times = low + above + steps_offset
    if times[0] > schedule.t_max:
        raise InvalidInput(
            f"grid 'leading' with {n} noisy times and steps_offset {steps_offset} starts at {times[0]:g}, "
            f"above {schedule.t_max:g}, the noisiest: use fewer steps, a smaller offset or a bias nearer to 0"
        )
    return schedule.warp(times)


def _polynomial(schedule: Schedule, u: Float, low: float, *, space: str | None = None, power: float = 2.0) -> Float:
    """The coordinate c in a space is (c_max^(1/p) + u (c_min^(1/p) - c_max^(1/p)))^p."""
    c_max, c_min, times_of = _space(schedule, u, space)
    p = positive("power", power)
    with np.errstate(over="ignore", invalid="ignore"):
        top, bottom = np.float64(c_max) ** (1 / p), np.float64(c_min) ** (1 / p)
        c = np.maximum(top + u * (bottom - top), 0.0) ** p
    return times_of(c)


def _quadratic(schedule: Schedule, u: Float, low: float) -> Float:
    return _polynomial(schedule, u, low, space="time", power=2.0)


def _karras(schedule: Schedule, u: Float, low: float, *, rho: float = 7.0) -> Float:
    return _polynomial(schedule, u, low, power=positive("rho", rho))


def _exponential(schedule: Schedule, u: Float, low: float, *, space: str = "lambda") -> Float:
    one_of("space", space, ("lambda", "sigma"))
    return _polynomial(schedule, u, low, space="lambda" if space == "lambda" else "log sigma", power=1.0)


def _beta(
    schedule: Schedule, u: Float, low: float, *, a: float = 0.6, b: float = 0.6, space: str | None = None
) -> Float:
    c_max, c_min, times_of = _space(schedule, u, space)
    return times_of(c_min + (c_max - c_min) * beta_quantile(1 - u, a, b))


def _ays(schedule: Schedule, u: Float, low: float, *, model: str = "sd15") -> Float:
    """log(sigma / alpha) interpolated in the table, whose ends are the schedule's own."""
    if model not in AYS_RATIOS:
        raise unknown_name("model of grid 'ays'", str(model), AYS_RATIOS)
    table = AYS_RATIOS[model]
    c_max, c_min, times_of = _space(schedule, u, "ratio")
    if not c_max > table[0] > table[-1] > c_min:
        raise InvalidInput(
            f"grid 'ays' of {model!r} needs sigma / alpha from above {table[0]:g} to below {table[-1]:g}; "
            f"{schedule.kind} has {c_max:g} to {c_min:g}. Use another grid, or model of {[*AYS_RATIOS]}"
        )
    logs = np.log([c_max, *table, c_min])
    return times_of(np.exp(np.interp(u, np.linspace(0, 1, len(logs)), logs)))


def beta_quantile(p: Float, a: float, b: float) -> Float:
    """The x in [0, 1] at which the regularised incomplete beta function I_x(a, b) is `p`; a, b in (0, 100].

    The smaller tail is bisected, on x <= 1/2, where all terms of the series of DLMF 8.17.8 are positive:

        I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) sum_n x^n (a + b)_n / (a + 1)_n
    """
    a, b = positive("a", a), positive("b", b)
    if max(a, b) > 100:
        raise InvalidInput(f"a and b of a Beta distribution must lie in (0, 100], got {a:g} and {b:g}")
    p = np.asarray(p, dtype=np.float64)
    return np.array(_beta_quantile(tuple(p.ravel().tolist()), a, b)).reshape(p.shape)


@lru_cache(maxsize=256)
def _beta_quantile(probabilities: tuple[float, ...], a: float, b: float) -> tuple[float, ...]:
    """Kept, as a search asks for the same grid with many samplers, and each takes a tenth of a second."""
    p = np.array(probabilities)

    def cumulative(x: Float, a: float, b: float) -> Float:
        front = math.lgamma(a + b) - math.lgamma(a + 1) - math.lgamma(b)
        term, total, n = np.ones_like(x), np.ones_like(x), 0
        while np.any(term > 1e-17 * total):
            term = term * x * (a + b + n) / (a + 1 + n)
            total, n = total + term, n + 1
        return np.exp(front + a * np.log(x) + b * np.log1p(-x)) * total

    def lower(p: Float, a: float, b: float) -> Float:
        left, right = np.zeros_like(p), np.full_like(p, 0.5)
        for _ in range(62):
            middle = (left + right) / 2
            below = cumulative(middle, a, b) < p
            left, right = np.where(below, middle, left), np.where(below, right, middle)
        return left

    half = cumulative(np.full(1, 0.5), a, b)[0]
    found = np.where(p <= half, lower(np.minimum(p, half), a, b), 1 - lower(np.minimum(1 - p, 1 - half), b, a))
    return tuple(found.tolist())


class Grid(NamedTuple):
    """An entry of `GRIDS`: `curve(schedule, u, low, **options)` gives the times at `u`, with `low` at u = 1."""

    curve: Callable[..., Float]
    summary: str
    source: str
    positions: str = "both ends"

    @property
    def options(self) -> dict[str, Any]:
        """Names and default values of the options, beside `bias`, `start` and `final`, which every grid has."""
        return inspect.getfullargspec(self.curve).kwonlydefaults or {}


_LIN, _KARRAS = "arXiv 2305.08891, table 2", "arXiv 2206.00364, eq. 5"
GRIDS: dict[str, Grid] = {
    "leading": Grid(_leading, "uniform in time, one stride below the noisiest", _LIN, "leading"),
    "trailing": Grid(_uniform, "uniform in time, noisiest to clean data", _LIN, "trailing"),
    "linspace": Grid(_uniform, "uniform in time, noisiest to the last noisy time", _LIN),
    "quadratic": Grid(_quadratic, "square root of time uniform", "arXiv 2010.02502, D.2"),
    "karras": Grid(_karras, "rho-th root of sigma uniform", _KARRAS),
    "polynomial": Grid(_polynomial, "a root of time, sigma, ratio or lambda uniform", _KARRAS),
    "exponential": Grid(_exponential, "lambda, or log sigma, uniform", "arXiv 2206.00927"),
    "beta": Grid(_beta, "quantiles of a Beta distribution: steps at both ends", "arXiv 2407.12173"),
    "ays": Grid(_ays, "Align Your Steps for sd15, sdxl or svd", "arXiv 2404.14507", "trailing"),
}
"""Every grid by name, with its source: Lin, Song, Karras, Lu, Lee and Sabour, each with co-authors."""
