"""Where a diffusers scheduler puts its times, and what the arguments of its `set_timesteps` mean.

The grids of `fewstep.GRIDS` are named after what they do. Schedulers of diffusers differ under one name: the multistep
family counts N + 1 times and drops the last, `linspace` is rounded or not, Karras' sigmas end at the last noisy time of
the spacing or of training. A pipeline whose scheduler is replaced, but whose grid is not, keeps its times exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewstep.adapters.hosts import SIGMA_SPACE
from fewstep.core import (
    BetaSchedule,
    Float,
    FlowSchedule,
    InvalidInput,
    Schedule,
    beta_quantile,
    given_times,
    grid_times,
    one_of,
)

Settings = Mapping[str, Any]

MULTISTEP = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver")
CONTINUOUS = SIGMA_SPACE
PRECONDITIONED = ("EDMEuler", "EDMDPMSolverMultistep", "CosineDPMSolverMultistep")
STILL = 1e-13
"""Where a scheduler ends at the level where it already is, the last step is this long."""


class Points(NamedTuple):
    """The N + 1 times of N steps, and the N times that the network is told instead of them, or None."""

    times: Float
    told: Float | None = None


def beta_points(schedule: BetaSchedule, host: str | None, settings: Settings, steps: int) -> Points:
    """The times of `host` on a beta schedule."""
    if host in ("LCM", "TCD"):
        raise AssertionError("use skipping_points")
    spaced = _spaced(schedule, host, settings, steps)
    sigma_end = ends_noisy(host, settings)
    log_linear = host == "EulerDiscrete" and settings.get("interpolation_type") == "log_linear"
    names = ("karras", "exponential", "beta")
    curve = next((name for name in names if settings.get(f"use_{name}_sigmas")), None)
    if settings.get("use_lu_lambdas"):
        curve = "exponential"
    told: Float | None = None
    if curve is not None:
        ends = schedule.ratio(np.array([schedule.t_max, 0.0] if host in MULTISTEP or log_linear else spaced[[0, -1]]))
        if host in ("EulerDiscrete", "UniPCMultistep"):
            ends = _own_ends(schedule, settings, ends)
        times = _times_of_ratio(schedule, _curve(curve, ends, steps))
    elif log_linear:  # N + 1 levels that end at the least noise of training, while the times told are the spacing's
        ends = schedule.ratio(np.array([schedule.t_max, 0.0]))
        times, told, sigma_end = _times_of_ratio(schedule, _curve("exponential", ends, steps + 1)[:-1]), spaced, True
    elif host in CONTINUOUS and not np.all(spaced == np.round(spaced)):
        ratios = np.interp(spaced, np.arange(schedule.t_max + 1), schedule.ratio(np.arange(schedule.t_max + 1)))
        times, told = _times_of_ratio(schedule, ratios), spaced  # sigma, not lambda, is linear between integers there
    else:
        times = spaced
    return Points(_ended(times, 0.0 if sigma_end else schedule.t_clean), told)


def ends_noisy(host: str | None, settings: Settings) -> bool:
    """Whether a run of `host` on a beta schedule ends at the least noise of training, and not at clean data."""
    if host in ("DEISMultistep", "SASolver") or settings.get("final_sigmas_type", "zero") == "sigma_min":
        return True
    return host not in ("LCM", "TCD") and not settings.get("set_alpha_to_one", host != "PNDM")


def skipping_points(
    schedule: BetaSchedule, host: str, settings: Settings, steps: int, original: int | None, strength: float
) -> Points:
    """The times that LCM and TCD were distilled at: Luo et al. 2023, arXiv 2310.04378, section 4.3."""
    total = settings.get("original_inference_steps") or 50 if original is None else original
    stride = len(schedule.alphas_cumprod) // total
    times = np.arange(1, int(total * strength) + 1)[::-1] * stride - 1
    if stride < 1 or not 1 <= steps <= len(times):
        raise InvalidInput(
            f"{steps} steps do not fit in the {len(times)} times that the network was distilled at "
            f"(original_inference_steps={total}, strength={strength:g}): use 1 to {len(times)} steps or name a grid"
        )
    chosen = times[np.floor(np.linspace(0, len(times), steps, endpoint=False)).astype(int)]
    return Points(_ended(chosen.astype(np.float64), 0.0 if host == "TCD" else schedule.t_clean))


def edm_points(schedule: Schedule, host: str | None, settings: Settings, steps: int) -> Points:
    """The times of EDM's schedulers, and of consistency models, whose grid is on `num_train_timesteps` levels."""
    rho = settings.get("rho", 7.0)
    if host == "CMStochasticIterative":
        levels = settings["num_train_timesteps"]
        return consistency_points(schedule, settings, np.arange(steps)[::-1] * (levels // steps))
    usual = "exponential" if host == "CosineDPMSolverMultistep" else "karras"
    exponential = settings.get("sigma_schedule", usual) == "exponential" or settings.get("use_exponential_sigmas")
    name, options = ("exponential", {}) if exponential else ("karras", {"rho": rho})
    if settings.get("use_beta_sigmas"):
        name, options = "beta", {}
    if settings.get("final_sigmas_type") == "sigma_min":
        times = grid_times(name, schedule, steps, **options)
        return Points(_ended(times[:-1], schedule.t_min))
    return Points(grid_times(name, schedule, steps, **options))


def consistency_points(schedule: Schedule, settings: Settings, positions: Sequence[int] | Float) -> Points:
    """Levels by their positions, decreasing, of the `num_train_timesteps` that a consistency model was trained at."""
    levels, rho = settings["num_train_timesteps"], settings.get("rho", 7.0)
    at = np.asarray(positions, np.float64)
    if at.ndim != 1 or not at.size or at.min() < 0 or at.max() >= levels or np.any(np.diff(at) >= 0):
        raise InvalidInput(
            f"timesteps of a consistency model decrease within 0 .. {levels - 1}, got {positions!r:.100}"
        )
    ends = np.array([schedule.t_max, schedule.t_min])
    times = _power(ends, at[::-1] / (levels - 1), rho)
    return Points(_ended(times, schedule.t_clean))


def flow_points(
    schedule: FlowSchedule, host: str | None, settings: Settings, steps: int, given: Float | None, mu: float | None
) -> Points:
    """The times of a flow scheduler: `given` sigmas, or its own, shifted as it shifts them.

    A static shift is applied to what is given, too, and to the end of the scheduler's own range, as in diffusers.
    """
    if settings.get("invert_sigmas"):
        raise InvalidInput("invert_sigmas=True asks for a flow that runs the other way, which fewstep does not have")
    n, least = steps, 1 / settings.get("num_train_timesteps", 1000)
    shift = shift_of(schedule, settings, mu)
    if settings.get("use_flow_sigmas"):  # the multistep family
        sigmas = 1 - np.linspace(1, least, n + 1)[::-1][:-1] if given is None else given
        if host == "UniPCMultistep" and given is None:
            sigmas = np.linspace(1, least, n + 1)[:-1]
    else:
        static = not settings.get("use_dynamic_shifting")
        sigmas = np.linspace(1, float(shift(np.array(least))) if static else least, n) if given is None else given
    sigmas = shift(sigmas)
    if settings.get("shift_terminal"):
        sigmas = 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - settings["shift_terminal"]))
    curve = next((name for name in ("karras", "exponential", "beta") if settings.get(f"use_{name}_sigmas")), None)
    if curve is not None and settings.get("use_flow_sigmas"):
        raise InvalidInput(f"use_flow_sigmas with use_{curve}_sigmas has no meaning here: give a grid, grid={curve!r}")
    if curve is not None:
        sigmas = _curve(curve, sigmas[[0, -1]], len(sigmas))
    if host == "UniPCMultistep" and abs(sigmas[0] - 1) < 1e-6:
        sigmas = np.append(sigmas[0] - 1e-6, sigmas[1:])  # where its lambda is finite
    if settings.get("final_sigmas_type", "zero") == "sigma_min" and sigmas[-1] > 0:
        if host != "UniPCMultistep":
            raise InvalidInput("final_sigmas_type='sigma_min' has no meaning on flow sigmas here: give 'zero'")
        return Points(np.append(sigmas, sigmas[-1] * (1 - STILL)))
    return Points(sigmas if sigmas[-1] == 0 else np.append(sigmas, 0.0))


def shift_of(schedule: FlowSchedule, settings: Settings, mu: float | None) -> Callable[[Float], Float]:
    """The shift of uniform flow times: static, or by the `mu` that pipelines derive from the resolution."""
    factor = schedule.shift
    if settings.get("use_dynamic_shifting"):
        if mu is None:
            raise InvalidInput("use_dynamic_shifting needs mu, as the pipelines of such models give it")
        factor = float(mu) if settings.get("time_shift_type") == "linear" else float(np.exp(mu))
    return lambda t: factor * t / (1 + (factor - 1) * t)


def first_scale(entry: float, schedule: Schedule, host: str | None, spaced: str | None, settings: Settings) -> float:
    """What diffusers' own scheduler multiplies the first noise by, in the schedule's coordinates.

    `entry` is sigma of the first time, and `spaced` the class that placed it, None where a named grid did.
    """
    if isinstance(schedule, FlowSchedule):
        return 1.0
    if isinstance(schedule, BetaSchedule):
        ends = spaced in CONTINUOUS and settings.get("timestep_spacing", "linspace") in ("linspace", "trailing")
        return entry if ends else 1.0
    if host == "CMStochasticIterative":
        return schedule.t_max
    return math.hypot(entry, 1.0) if host in PRECONDITIONED else entry


def verbatim(schedule: Schedule, *, sigmas: Any = None, times: Any = None, end: float | None = None) -> Points:
    """The caller's own grid as it is. Sigmas end where the run ends; times end at time `end`, or at clean data."""
    if sigmas is not None:
        values = np.asarray(sigmas, np.float64).reshape(-1)
        if isinstance(schedule, FlowSchedule) and values.size and values[-1] != 0:
            values = np.append(values, 0.0)
        return Points(given_times(schedule, sigmas=values))
    values = np.asarray(times, np.float64).reshape(-1)
    if end is not None and values.size:
        return Points(given_times(schedule, times=_ended(values, end)))
    return Points(given_times(schedule, times=np.append(values, schedule.t_clean)))


def _spaced(schedule: BetaSchedule, host: str | None, settings: Settings, steps: int) -> Float:
    """N decreasing times by `timestep_spacing`: Lin et al. 2023, arXiv 2305.08891, table 2."""
    usual = "linspace" if host in (*MULTISTEP, *CONTINUOUS) else "leading"
    spacing, offset = settings.get("timestep_spacing", usual), settings.get("steps_offset", 0) or 0
    one_of("timestep_spacing", spacing, ("leading", "linspace", "trailing"))
    total = len(schedule.alphas_cumprod)
    if not 1 <= steps <= total:
        raise InvalidInput(f"num_inference_steps must lie in 1 .. {total}, got {steps}: or give sigmas or a grid")
    lowest, extra = settings.get("lambda_min_clipped"), host in MULTISTEP
    last = total
    if lowest is not None and np.isfinite(lowest):
        last = int(np.sum(schedule.lam(np.arange(float(total))) >= lowest))
    if spacing == "leading":
        times = np.arange(steps + extra)[::-1][:steps] * (last // (steps + extra)) + offset
    elif spacing == "trailing":
        times = np.round(np.arange(last, 0, -total / steps))[:steps] - 1
    else:
        times = np.linspace(0, last - 1, steps + extra)[::-1][:steps]
        times = times if host in CONTINUOUS else np.round(times)
    if times[0] > schedule.t_max:
        raise InvalidInput(
            f"timestep_spacing='leading' with steps_offset={offset} and {steps} steps starts at {times[0]:g}, above "
            f"{schedule.t_max:g}, the noisiest: use fewer steps or another grid"
        )
    return times.astype(np.float64)


def _curve(name: str, ends: Float, steps: int) -> Float:
    """`steps` sigmas from ends[0] down to ends[1]."""
    u = np.arange(steps) / max(steps - 1, 1)
    if name == "karras":
        return _power(ends, u, 7.0)
    if name == "exponential":
        return np.exp(np.log(ends[0]) + u * np.log(ends[1] / ends[0]))
    return ends[1] + (ends[0] - ends[1]) * beta_quantile(1 - u, 0.6, 0.6)


def _own_ends(schedule: BetaSchedule, settings: Settings, ends: Float) -> Float:
    """The ends of a curve of sigmas, where `sigma_max` and `sigma_min` are given."""
    high, low = (settings.get(name) for name in ("sigma_max", "sigma_min"))
    ends = np.array([ends[0] if high is None else high, ends[1] if low is None else low], np.float64)
    most = float(schedule.ratio(schedule.t_max))
    if not 0 < ends[1] < ends[0] <= most * (1 + 1e-9):
        raise InvalidInput(
            f"sigma_max={ends[0]:g} and sigma_min={ends[1]:g} must decrease, above 0 and up to {most:g}, the noisiest "
            "of the schedule"
        )
    return ends


def _power(ends: Float, u: Float, rho: float) -> Float:
    """Karras et al. 2022, arXiv 2206.00364, eq. 5."""
    top, bottom = ends ** (1 / rho)
    sigmas = (top + u * (bottom - top)) ** rho
    return np.where(u == 0, ends[0], np.where(u == 1, ends[1], sigmas))


def _times_of_ratio(schedule: BetaSchedule, ratios: Float) -> Float:
    highest = float(schedule.ratio(schedule.t_max))
    return np.where(
        ratios >= highest * (1 - 1e-12), schedule.t_max, schedule.time_of_sigma(np.minimum(ratios, highest))
    )


def _ended(times: Float, end: float) -> Float:
    return np.append(times, min(end, times[-1] - STILL))
