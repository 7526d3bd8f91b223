"""Time grids: the N + 1 decreasing times that N steps of a solver visit.

A grid is positions u in [0, 1] times a curve. The positions are uniform (0 is the noisiest, 1 the end), `bias` warps them,
and the curve carries them to times of the schedule:

    u_i  ->  k u / (1 + (k - 1) u), k = exp(bias)  ->  time

Curves are mostly straight lines, or powers of them, in one of the spaces of `SPACES`. `GRIDS` lists them all.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import RATIO_CAP, BetaSchedule, Float, FlowSchedule, Schedule, positive

MAX_STEPS = 100_000
MAX_BIAS = 20.0
SPACES = ("time", "sigma", "ratio", "lambda")
FINALS = ("clean", "sigma_min")

AYS_RATIOS = {
    "sd15": (6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}
"""sigma / alpha between the ten steps that Align Your Steps found; before and after them lie the ends of the schedule."""


def grid_times(
    name: str, schedule: Schedule, steps: int, *, bias: float = 0.0, final: str = "clean", **options: Any
) -> Float:
    """The times of grid `name` (a key of `GRIDS`): float64, shape (steps + 1,), strictly decreasing.

    The first is `schedule.t_max` (but see `leading`). The last is `schedule.t_clean`, reached from the last noisy time of the
    curve, mostly `t_min`; with `final="sigma_min"` the grid stops at that noisy time, still after `steps` transitions.

    `bias` in [-20, 20] warps the positions by u -> k u / (1 + (k - 1) u) with k = exp(bias): above 0 more steps at low noise,
    below 0 more at high noise. It is the map of a flow's shift: on `flow`, -log(s) does to `trailing` what a shift s does.
    Where sigma / alpha is infinite at t_max, curves in spaces that need it begin at RATIO_CAP; the first time is t_max all the
    same. Raises `InvalidInput` for unknown names and options, and where the times would not decrease strictly.
    """
    if name not in GRIDS:
        raise unknown_name("grid", str(name), GRIDS)
    grid = GRIDS[name]
    for option in options:
        if option not in grid.options:
            raise unknown_name(f"option of grid {name!r}", option, [*grid.options, "bias", "final"])
    if final not in FINALS:
        raise unknown_name("final", str(final), FINALS)
    steps, clean = step_count(steps), final == "clean"
    points = steps if clean else steps + 1
    if grid.positions == "leading":
        u = np.arange(1, points + 1) / points
    elif grid.positions == "trailing":
        u = np.arange(steps + 1) / steps
    else:
        u = np.arange(points) / max(points - 1, 1)
    low = schedule.t_clean if clean and grid.positions == "trailing" else schedule.t_min
    times = grid.curve(schedule, _biased(u, bias), low, **options)
    if clean:
        times = np.append(times[:steps], schedule.t_clean)
    stuck = np.flatnonzero(~(np.diff(times) < 0))
    if stuck.size:
        rounds = "integer" in grid.options and _rounds(schedule, options.get("integer"))
        raise InvalidInput(
            f"grid {name!r} with {steps} steps does not decrease on the {schedule.kind} schedule: {times[stuck[0]]:g} is "
            f"followed by {times[stuck[0] + 1]:g}. "
            + (
                f"Rounded to integers, {schedule.t_max + 1:g} steps fit at most (fewer with a bias): use fewer, or integer=False"
                if rounds
                else "Use fewer steps, or less extreme options"
            )
        )
    return times


def given_times(
    schedule: Schedule,
    *,
    times: Sequence[float] | Float | None = None,
    sigmas: Sequence[float] | Float | None = None,
) -> Float:
    """Times of the caller's own, taken as they are: N + 1 values for N steps, strictly decreasing, the end included.

    Give `times`, or `sigmas` as the schedule's users write them (sigma / alpha for beta schedules; 0 is clean). No shift, bias or
    rounding is applied. Only a first sigma that exceeds the largest by less than 1e-4 of it stands for the largest, because
    published tables are rounded. Raises `InvalidInput`, naming the index, for values that repeat, increase or lie outside.
    """
    if (times is None) == (sigmas is None):
        raise InvalidInput("give the grid either as times or as sigmas, one of the two and not both")
    what, given = ("times", times) if sigmas is None else ("sigmas", sigmas)
    try:
        values = np.array(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} must be a list of numbers, got {given!r}") from error
    if values.ndim != 1 or values.size < 2:
        raise InvalidInput(
            f"{what} must be a list of at least 2 numbers (N + 1 for N steps), got shape {values.shape}"
        )
    if sigmas is None:
        low, high = schedule.t_clean, schedule.t_max
    else:
        low, high = (float(s) for s in schedule.given_sigma(np.array([schedule.t_clean, schedule.t_max])))
        if high < values[0] <= high * (1 + 1e-4):
            values[0] = high
    for i, value in enumerate(values):
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidInput(
                f"{what}[{i}] = {value:g} is outside the {schedule.kind} schedule, "
                f"which allows {low:g} (clean) to {high:g} (noisiest)"
            )
    result = (
        values if sigmas is None else np.where(values >= high, schedule.t_max, schedule.time_of_sigma(values))
    )
    stuck = np.flatnonzero(np.diff(result) >= 0)
    if stuck.size:
        i = int(stuck[0])
        raise InvalidInput(
            f"{what} must decrease strictly, from noise to data: {what}[{i + 1}] = {values[i + 1]:.10g} follows "
            f"{what}[{i}] = {values[i]:.10g}. Reverse the list, or drop repeated values"
        )
    return result


def tail(times: Float, *, share: float | None = None, start: float | None = None) -> Float:
    """The end of a grid, for image to image: the last `share` in (0, 1] of its steps, or all from the time `start` on.

    A share keeps at least one step and rounds down, as the strength of diffusers does. A `start` between two times of the grid
    becomes the first time, and the grid's next lower one follows.
    """
    if (share is None) == (start is None):
        raise InvalidInput("give either a share of the steps or a start time, one of the two and not both")
    if share is not None:
        if not 0 < share <= 1:
            raise InvalidInput(f"share must lie in (0, 1], got {share!r}: 1 keeps the whole grid")
        steps = len(times) - 1
        return times[steps - max(1, math.floor(steps * share + 1e-9)) :]
    if not times[-1] < start <= times[0]:
        raise InvalidInput(f"start must lie above {times[-1]:g} and not above {times[0]:g}, got {start!r}")
    return np.concatenate([[float(start)], times[times < start]])


def step_count(steps: int) -> int:
    """`steps` as an int in 1 .. 100000, or `InvalidInput`."""
    try:
        count = 0 if isinstance(steps, bool) else operator.index(steps)
    except TypeError:
        count = 0
    if not 1 <= count <= MAX_STEPS:
        raise InvalidInput(f"steps must be an integer in 1 .. {MAX_STEPS}, got {steps!r}")
    return count


def _biased(u: Float, bias: float) -> Float:
    """u -> k u / (1 + (k - 1) u), k = exp(bias), written so that 0 and 1 stay exactly; no bias leaves every bit."""
    if isinstance(bias, bool) or not isinstance(bias, (int, float, np.number)) or not abs(bias) <= MAX_BIAS:
        raise InvalidInput(f"bias must be a number in [-{MAX_BIAS:g}, {MAX_BIAS:g}], got {bias!r}: 0 is none")
    k = math.exp(bias)
    return u if bias == 0 else k * u / (k * u + (1 - u))


def _pinned(schedule: Schedule, u: Float, times: Float, end: float) -> Float:
    """`times` with exact ends: t_max at u = 0, `end` at u = 1, and nothing beyond them by a rounding error."""
    return np.where(u == 0, schedule.t_max, np.where(u == 1, end, np.clip(times, end, schedule.t_max)))


def _space(schedule: Schedule, name: str | None) -> tuple[float, float, Callable[[Float], Float]]:
    """Coordinates of t_max and t_min in a space, both at least 0, and the way from a coordinate back to a time.

    "time" is the time before the shift of a flow; "lambda" and "log sigma" count from t_min towards the noise. None is what each
    kind's users expect of a grid in sigma: sigma itself for `flow`, else sigma / alpha.
    """
    name = name or ("sigma" if isinstance(schedule, FlowSchedule) else "ratio")
    ends = np.array([schedule.t_max, schedule.t_min])
    ratio = schedule.ratio(ends)
    ratio_max, ratio_min = (float(r) if math.isfinite(r) else RATIO_CAP for r in ratio)
    sigma_max, sigma_min = (float(s) for s in schedule.sigma(ends))

    def of_ratio(r: Float) -> Float:
        return schedule.time_of_lambda(-np.log(np.clip(r, ratio_min, ratio[0])))

    def of_sigma(sigma: Float) -> Float:
        if not isinstance(schedule, BetaSchedule):
            return schedule.time_of_sigma(sigma)
        with np.errstate(divide="ignore"):
            return of_ratio(sigma / np.sqrt((1 - sigma) * (1 + sigma)))

    if name == "time":
        return schedule.t_max, schedule.t_min, schedule.warp
    if name == "sigma":
        return sigma_max, sigma_min, lambda c: of_sigma(np.clip(c, sigma_min, sigma_max))
    if name == "ratio":
        return ratio_max, ratio_min, of_ratio
    if name == "lambda":
        return math.log(ratio_max / ratio_min), 0.0, lambda c: of_ratio(ratio_min * np.exp(c))
    if name == "log sigma":
        return (
            math.log(sigma_max / sigma_min),
            0.0,
            lambda c: of_sigma(np.clip(sigma_min * np.exp(c), sigma_min, sigma_max)),
        )
    raise unknown_name("space", str(name), SPACES)


def _power(schedule: Schedule, u: Float, space: str | None, power: float) -> Float:
    """Straight in the p-th root of the coordinate: c = (c_max^(1/p) + u (c_min^(1/p) - c_max^(1/p)))^p."""
    high, low, time_of = _space(schedule, space)
    p = positive("power", power)
    with np.errstate(over="ignore", invalid="ignore"):
        top, bottom = np.float64(high) ** (1 / p), np.float64(low) ** (1 / p)
        coordinate = np.maximum(top + u * (bottom - top), 0.0) ** p
    if not np.all(np.isfinite(coordinate)):
        raise InvalidInput(
            f"power {p:g} takes the numbers of the {schedule.kind} schedule out of range: use one nearer to 1"
        )
    end = float(schedule.warp(schedule.t_min)) if space == "time" else schedule.t_min
    return _pinned(schedule, u, time_of(coordinate), end)


def _rounds(schedule: Schedule, integer: bool | None) -> bool:
    """Whether times are rounded: by default where the network was trained on integers, that is on beta schedules."""
    if integer and not isinstance(schedule, BetaSchedule):
        raise InvalidInput(
            f"integer=True is for beta schedules: the times of the {schedule.kind} schedule are not integers"
        )
    return isinstance(schedule, BetaSchedule) and integer is not False


def _uniform(schedule: Schedule, u: Float, low: float, *, integer: bool | None = None) -> Float:
    """t = low + (1 - u) (t_max - low), through the schedule's warp; rounding counts from `low`, as diffusers does."""
    span = (1 - u) * (schedule.t_max - low)
    if _rounds(schedule, integer):
        span = np.round(span)
    return _pinned(schedule, u, schedule.warp(low + span), float(schedule.warp(low)))


def _leading(
    schedule: Schedule, u: Float, low: float, *, integer: bool | None = None, steps_offset: int = 0
) -> Float:
    """Multiples of T // n, the least first: i (T // n) + steps_offset for i = n - 1 .. 0, so t_max itself is not visited.

    A single step therefore starts at `steps_offset`, next to the data. On `edm` and `flow`: t_min + (t_max - t_min) i / n.
    """
    n, beta = len(u), isinstance(schedule, BetaSchedule)
    if isinstance(steps_offset, bool) or not isinstance(steps_offset, (int, np.integer)) or steps_offset < 0:
        raise InvalidInput(f"steps_offset must be an integer of at least 0, got {steps_offset!r}")
    if steps_offset and not beta:
        raise InvalidInput(
            f"steps_offset is for beta schedules: got {steps_offset} on the {schedule.kind} schedule"
        )
    span = schedule.t_max - (schedule.t_clean if beta else low)
    if _rounds(schedule, integer):
        times = np.round((1 - u) * n * (span // n))
    else:
        times = (1 - u) * span
    times = low + times + steps_offset
    if times[0] > schedule.t_max:
        raise InvalidInput(
            f"grid 'leading' with {n} noisy times and steps_offset {steps_offset} starts at {times[0]:g}, beyond the "
            f"schedule's noisiest {schedule.t_max:g}: use fewer steps or a smaller steps_offset"
        )
    return schedule.warp(times)


def _quadratic(schedule: Schedule, u: Float, low: float) -> Float:
    return _power(schedule, u, "time", 2.0)


def _polynomial(
    schedule: Schedule, u: Float, low: float, *, space: str | None = None, power: float = 2.0
) -> Float:
    if space is not None and space not in SPACES:
        raise unknown_name("space", str(space), SPACES)
    return _power(schedule, u, space, power)


def _karras(schedule: Schedule, u: Float, low: float, *, rho: float = 7.0) -> Float:
    return _power(schedule, u, None, positive("rho", rho))


def _exponential(schedule: Schedule, u: Float, low: float, *, space: str = "lambda") -> Float:
    if space not in ("lambda", "sigma"):
        raise unknown_name("space of grid 'exponential'", str(space), ("lambda", "sigma"))
    return _power(schedule, u, "lambda" if space == "lambda" else "log sigma", 1.0)


def _beta(
    schedule: Schedule, u: Float, low: float, *, a: float = 0.6, b: float = 0.6, space: str | None = None
) -> Float:
    if space is not None and space not in SPACES:
        raise unknown_name("space", str(space), SPACES)
    c_max, c_min, time_of = _space(schedule, space)
    times = time_of(c_min + (c_max - c_min) * beta_quantile(1 - u, a, b))
    end = float(schedule.warp(schedule.t_min)) if space == "time" else schedule.t_min
    return _pinned(schedule, u, times, end)


def _ays(schedule: Schedule, u: Float, low: float, *, model: str = "sd15") -> Float:
    """Logarithms of sigma / alpha interpolated between the table's, whose two ends are the schedule's own."""
    if model not in AYS_RATIOS:
        raise unknown_name("model of grid 'ays'", str(model), AYS_RATIOS)
    table = AYS_RATIOS[model]
    c_max, c_min, time_of = _space(schedule, "ratio")
    if not c_max > table[0] > table[-1] > c_min:
        raise InvalidInput(
            f"grid 'ays' of {model!r} has sigma / alpha {table[0]:g} .. {table[-1]:g} between its ends, and the "
            f"{schedule.kind} schedule {c_max:g} .. {c_min:g}: use another model of {', '.join(AYS_RATIOS)}, or another grid"
        )
    logs = np.log([c_max, *table, c_min])
    return _pinned(
        schedule, u, time_of(np.exp(np.interp(u, np.linspace(0, 1, len(logs)), logs))), schedule.t_min
    )


def beta_quantile(p: Float, a: float, b: float) -> Float:
    """The x in [0, 1] at which the regularised incomplete beta function I_x(a, b) is `p`; a and b in (0, 100].

    The smaller tail is bisected, on x <= 1/2, where the series of DLMF 8.17.8 has positive terms and converges fast:
    I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) sum_n (a + b)_n / (a + 1)_n x^n.
    """
    a, b = positive("a", a), positive("b", b)
    if max(a, b) > 100:
        raise InvalidInput(f"a and b of a Beta distribution must lie in (0, 100], got {a:g} and {b:g}")

    def cumulative(x: Float, a: float, b: float) -> Float:
        front = np.exp(
            a * np.log(x) + b * np.log1p(-x) + math.lgamma(a + b) - math.lgamma(a + 1) - math.lgamma(b)
        )
        term, total, n = np.ones_like(x), np.ones_like(x), 0
        while np.any(term > 1e-17 * total):
            term = term * x * (a + b + n) / (a + 1 + n)
            total, n = total + term, n + 1
        return front * total

    def lower(p: Float, a: float, b: float) -> Float:
        left, right = np.zeros_like(p), np.full_like(p, 0.5)
        for _ in range(62):
            middle = (left + right) / 2
            below = cumulative(middle, a, b) < p
            left, right = np.where(below, middle, left), np.where(below, right, middle)
        return left

    p = np.asarray(p, np.float64)
    half = cumulative(np.full(1, 0.5), a, b)[0]
    return np.where(p <= half, lower(np.minimum(p, half), a, b), 1 - lower(np.minimum(1 - p, 1 - half), b, a))


class Grid(NamedTuple):
    """A line of `GRIDS`. `curve(schedule, u, low, **options)` gives the times at the positions u; `low` is that of u = 1."""

    curve: Callable[..., Float]
    summary: str
    source: str
    positions: str = "both ends"

    @property
    def options(self) -> dict[str, Any]:
        """Names and default values of the options, beside `bias` and `final`, which every grid has."""
        parameters = inspect.signature(self.curve).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


_LIN = "Lin et al. 2023, arXiv 2305.08891, table 2"
GRIDS: dict[str, Grid] = {
    "leading": Grid(_leading, "uniform in time, starts one stride below the noisiest", _LIN, "leading"),
    "trailing": Grid(_uniform, "uniform in time, from the noisiest to clean data", _LIN, "trailing"),
    "linspace": Grid(_uniform, "uniform in time, from the noisiest to the last noisy time", _LIN),
    "quadratic": Grid(
        _quadratic, "square root of time uniform", "Song et al. 2020, arXiv 2010.02502, appendix D.2"
    ),
    "karras": Grid(_karras, "rho-th root of sigma uniform", "Karras et al. 2022, arXiv 2206.00364, eq. 5"),
    "polynomial": Grid(
        _polynomial, "a root of time, sigma, sigma/alpha or lambda uniform", "as karras, in any space"
    ),
    "exponential": Grid(
        _exponential, "log of sigma/alpha, or of sigma, uniform", "Lu et al. 2022, arXiv 2206.00927"
    ),
    "beta": Grid(
        _beta, "quantiles of a Beta distribution: steps at both ends", "Lee et al. 2024, arXiv 2407.12173"
    ),
    "ays": Grid(
        _ays,
        "Align Your Steps, found for sd15, sdxl or svd",
        "Sabour et al. 2024, arXiv 2404.14507",
        "trailing",
    ),
}
"""Every grid by name."""
