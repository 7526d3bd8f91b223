"""Noise schedules: alpha and sigma as functions of a continuous time, in float64.

A noisy state is x_t = alpha(t) x0 + sigma(t) eps. Everything else follows from the two functions:

    lambda(t) = log(alpha / sigma)          half the log signal-to-noise ratio (Kingma et al. 2021, arXiv 2107.00630)
    ratio(t)  = sigma / alpha               what k-diffusion calls sigma

Times are the schedule's own: 0 .. T-1 for beta schedules (and -1 for clean data), sigma itself for `edm`, and t in [0,
1] for `flow`. A larger time is always a noisier one.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewstep.core.errors import InvalidInput

Float = NDArray[np.float64]

RATIO_CAP = 4096.0
"""Replaces an infinite sigma / alpha where a grid needs a finite one: alpha_cumprod = 2**-24 at zero terminal SNR."""


@dataclass(frozen=True)
class Schedule:
    """A noise schedule, with `t_clean < t_min < t_max`, sigma(t_clean) = 0 and alpha(t_clean) = 1.

    `t_min` is the last noisy time that grids visit before they end. `kind` and `params` rebuild the schedule.
    """

    kind: str
    params: tuple[tuple[str, Any], ...]
    t_clean: float
    t_min: float
    t_max: float

    def alpha(self, t: ArrayLike) -> Float:
        """Coefficient of the data at times `t`, in [0, 1]."""
        raise NotImplementedError

    def sigma(self, t: ArrayLike) -> Float:
        """Standard deviation of the noise at times `t`: the time itself, except on `beta` schedules."""
        return self.checked(t)

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        """(d alpha / dt, d sigma / dt) at times `t`, the right-hand one where a beta schedule has a kink."""
        raise NotImplementedError

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        """The inverse of `lam`."""
        raise NotImplementedError

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        """The time of what the schedule's users call sigma: sigma / alpha for `beta` schedules, else sigma."""
        return np.asarray(sigma, np.float64)

    def given_sigma(self, t: ArrayLike) -> Float:
        """The inverse of `time_of_sigma`."""
        return self.sigma(t)

    def lam(self, t: ArrayLike) -> Float:
        """log(alpha / sigma) at times `t`: +inf where clean, -inf where nothing of the data is left."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def ratio(self, t: ArrayLike) -> Float:
        """sigma / alpha at times `t`: 0 where clean, inf where nothing of the data is left."""
        with np.errstate(divide="ignore"):
            return self.sigma(t) / self.alpha(t)

    def warp(self, t: ArrayLike) -> Float:
        """The times of a grid that is uniform in time: shifted on `flow`, unchanged elsewhere."""
        return np.asarray(t, np.float64)

    @property
    def spec(self) -> dict[str, Any]:
        """The schedule as JSON-serialisable data; `from_spec` is the inverse."""
        return {"kind": self.kind, **dict(self.params)}

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the functions alpha(t) and sigma(t), however they were specified."""
        return hashlib.sha256(json.dumps(self._functions()).encode()).hexdigest()[:16]

    def _functions(self) -> Any:
        """What alpha(t) and sigma(t) depend on, and nothing else, such as where grids put their times."""
        return type(self).__name__

    def checked(self, t: ArrayLike) -> Float:
        """`t` as float64; raises `InvalidInput` for times outside [t_clean, t_max] or not finite."""
        t = np.asarray(t, np.float64)
        bad = t[~((t >= self.t_clean) & (t <= self.t_max))]
        if bad.size:
            raise InvalidInput(
                f"time {bad[0]:g} is outside the {self.kind} schedule, which allows "
                f"{self.t_clean:g} (clean) to {self.t_max:g} (noisiest)"
            )
        return t


@dataclass(frozen=True)
class BetaSchedule(Schedule):
    """Variance preserving, alpha^2 + sigma^2 = 1, from T values of alpha_cumprod at the times 0 .. T-1.

    Between integers lambda is linear in time, as the samplers of k-diffusion and diffusers interpolate it. Two
    stretches have an infinite end: [-1, 0], where sigma falls linearly to 0, and, at zero terminal SNR, [T-2, T-1],
    where alpha does.
    """

    alphas_cumprod: tuple[float, ...] = field(repr=False)
    _lam: Float = field(init=False, repr=False, compare=False)
    # The last index with a finite lambda; beyond it, alpha falls linearly to 0.
    _last: int = field(init=False, repr=False, compare=False)
    # sigma at time 0, alpha at the last index
    _ends: tuple[float, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ac = np.array(self.alphas_cumprod, np.float64)
        if ac.ndim != 1 or ac.size < 2:
            raise InvalidInput(f"a beta schedule needs at least 2 values of alphas_cumprod, got {ac.size}")
        if not (np.all(np.diff(ac) < 0) and ac[-1] >= 0 and ac[0] < 1):
            raise InvalidInput(
                f"alphas_cumprod must decrease strictly inside (0, 1), the last may be 0: got {ac[0]:g} .. {ac[-1]:g}. "
                "Betas must lie in (0, 1), the last may be 1"
            )
        with np.errstate(divide="ignore"):
            lam = 0.5 * (np.log(ac) - np.log1p(-ac))
        lam.setflags(write=False)
        last = len(lam) - 1 - int(np.isneginf(lam[-1]))
        ends = math.sqrt(1 - self.alphas_cumprod[0]), math.sqrt(self.alphas_cumprod[last])
        for name, value in {"_lam": lam, "_last": last, "_ends": ends}.items():
            object.__setattr__(self, name, value)

    def _functions(self) -> Any:
        return self.alphas_cumprod

    def lam(self, t: ArrayLike) -> Float:
        t = self.checked(t)
        sigma0, alpha_last = self._ends
        middle = np.interp(t, np.arange(self._last + 1.0), self._lam[: self._last + 1])
        low, high = sigma0 * (np.minimum(t, 0) + 1), alpha_last * (self.t_max - np.maximum(t, self._last))
        with np.errstate(divide="ignore"):
            ends = (0.5 * np.log1p(-(low**2)) - np.log(low), np.log(high) - 0.5 * np.log1p(-(high**2)))
        return np.select([t < 0, t > self._last], ends, middle)

    def alpha(self, t: ArrayLike) -> Float:
        return 1 / np.sqrt(1 + np.exp(-2 * self.lam(t)))

    def sigma(self, t: ArrayLike) -> Float:
        return 1 / np.sqrt(1 + np.exp(2 * self.lam(t)))

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        t = self.checked(t)
        sigma0, alpha_last = self._ends
        alpha, sigma = self.alpha(t), self.sigma(t)
        slopes = np.append(np.diff(self._lam[: self._last + 1]), np.nan)  # nan: no middle beyond the last index
        slope = slopes[np.clip(np.floor(t).astype(int), 0, self._last - (self._last == self.t_max))]
        stretches = [t < 0, (t >= self._last) & (self._last < self.t_max)]
        with np.errstate(divide="ignore", invalid="ignore"):
            dalpha = np.select(stretches, [-sigma * sigma0 / alpha, -alpha_last], alpha * sigma**2 * slope)
            dsigma = np.select(stretches, [sigma0, alpha * alpha_last / sigma], -sigma * alpha**2 * slope)
        return dalpha, dsigma

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        lam = np.asarray(lam, np.float64)
        sigma0, alpha_last = self._ends
        knots = self._lam[: self._last + 1]
        if self._last == self.t_max:
            if np.any(lam < knots[-1] - 1e-9):
                raise InvalidInput(
                    f"lambda {np.min(lam):g} is noisier than the schedule's noisiest, {knots[-1]:g} "
                    f"(sigma / alpha {math.exp(-knots[-1]):g}): use less noise, or a schedule with zero terminal SNR"
                )
            lam = np.maximum(lam, knots[-1])
        middle = np.interp(-lam, -knots, np.arange(self._last + 1.0))
        with np.errstate(over="ignore"):
            low = 1 / np.sqrt(1 + np.exp(2 * lam)) / sigma0 - 1
            high = self.t_max - 1 / np.sqrt(1 + np.exp(-2 * lam)) / alpha_last
        return np.select([lam > knots[0], lam < knots[-1]], [low, high], middle)

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        with np.errstate(divide="ignore"):
            return self.time_of_lambda(-np.log(np.asarray(sigma, np.float64)))

    def given_sigma(self, t: ArrayLike) -> Float:
        return self.ratio(t)


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """alpha = 1, sigma = t (Karras et al. 2022, arXiv 2206.00364)."""

    def alpha(self, t: ArrayLike) -> Float:
        return np.ones_like(self.checked(t))

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        return np.zeros_like(self.checked(t)), np.ones_like(self.checked(t))

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        return np.exp(-np.asarray(lam, np.float64))


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """alpha = 1 - t, sigma = t: rectified flow and flow matching (Liu et al. 2022, arXiv 2209.03003).

    The shift s of SD3 (Esser et al. 2024, arXiv 2403.03206, eq. 23) maps uniform times u to s u / (1 + (s - 1) u). It
    moves where grids put their times and nothing else: given times and sigmas stay as they are.
    """

    shift: float = 1.0

    def alpha(self, t: ArrayLike) -> Float:
        return 1 - self.checked(t)

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        return -np.ones_like(self.checked(t)), np.ones_like(self.checked(t))

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(np.asarray(lam, np.float64)))

    def warp(self, t: ArrayLike) -> Float:
        t = np.asarray(t, np.float64)
        return self.shift * t / (1 + (self.shift - 1) * t)
