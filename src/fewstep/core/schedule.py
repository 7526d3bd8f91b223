"""Noise schedules: alpha and sigma as functions of a continuous time, in float64.

A noisy state is x_t = alpha(t) x0 + sigma(t) eps. Everything else follows from the two functions:

    lambda(t) = log(alpha / sigma)          half the log signal-to-noise ratio (Kingma et al. 2021, arXiv 2107.00630)
    ratio(t)  = sigma / alpha               what k-diffusion calls sigma

Times are the schedule's own: 0 .. T-1 for beta schedules (and -1 for clean data), sigma itself for `edm`, and
t in [0, 1] for `flow`. A larger time is always a noisier one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewstep.core.errors import InvalidInput, unknown_name

Float = NDArray[np.float64]

RATIO_CAP = 4096.0
"""Stands for an infinite sigma / alpha where a grid needs a finite one: alpha_cumprod = 2**-24 at zero terminal SNR."""


@dataclass(frozen=True)
class Schedule:
    """What every noise schedule has. `t_clean < t_min < t_max`; sigma(t_clean) = 0 and alpha(t_clean) = 1.

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
        """Standard deviation of the noise at times `t`."""
        raise NotImplementedError

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        """(d alpha / dt, d sigma / dt) at times `t`, the right-hand one where a beta schedule has a kink."""
        raise NotImplementedError

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        """The inverse of `lam`."""
        raise NotImplementedError

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        """Time of the sigma that the schedule's users write: sigma / alpha for `beta` schedules, else sigma."""
        raise NotImplementedError

    def given_sigma(self, t: ArrayLike) -> Float:
        """The inverse of `time_of_sigma`."""
        raise NotImplementedError

    def lam(self, t: ArrayLike) -> Float:
        """log(alpha / sigma) at times `t`: +inf where clean, -inf where nothing of the data is left."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def ratio(self, t: ArrayLike) -> Float:
        """sigma / alpha at times `t`: 0 where clean, inf where nothing of the data is left."""
        with np.errstate(divide="ignore"):
            return self.sigma(t) / self.alpha(t)

    def warp(self, t: ArrayLike) -> Float:
        """Applied to the times of grids that are uniform in time: the shift of `flow`; elsewhere the identity."""
        return np.asarray(t, np.float64)

    @property
    def spec(self) -> dict[str, Any]:
        """The schedule as JSON-serialisable data; `from_spec` is the inverse."""
        return {"kind": self.kind, **dict(self.params)}

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the functions alpha(t) and sigma(t), however they were specified."""
        return hashlib.sha256(json.dumps(self._functions()).encode()).hexdigest()[:16]

    def _functions(self) -> Any:
        """What alpha(t) and sigma(t) depend on; where grids put their times is not part of it."""
        return type(self).__name__

    def check_times(self, t: Float) -> None:
        """Raise `InvalidInput` for times outside [t_clean, t_max] or not finite."""
        bad = t[~((t >= self.t_clean) & (t <= self.t_max))]
        if bad.size:
            raise InvalidInput(
                f"time {bad[0]:g} is outside the {self.kind} schedule, which allows "
                f"{self.t_clean:g} (clean) to {self.t_max:g} (noisiest)"
            )


@dataclass(frozen=True)
class BetaSchedule(Schedule):
    """Variance preserving, alpha^2 + sigma^2 = 1, from T values of alpha_cumprod at the times 0 .. T-1.

    Between integers lambda is linear in time, as the samplers of k-diffusion and diffusers interpolate it. Two stretches have
    an infinite end: [-1, 0], where sigma falls linearly to 0, and, at zero terminal SNR, [T-2, T-1], where alpha does.
    """

    alphas_cumprod: tuple[float, ...] = field(repr=False)
    _lam: Float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ac = np.array(self.alphas_cumprod, np.float64)
        if ac.ndim != 1 or ac.size < 2:
            raise InvalidInput(f"a beta schedule needs at least 2 values of alphas_cumprod, got {ac.size}")
        if not (np.all(np.diff(ac) < 0) and 0 <= ac[-1] and ac[0] < 1):
            raise InvalidInput(
                f"alphas_cumprod must decrease strictly inside (0, 1), the last may be 0: got {ac[0]:g} .. {ac[-1]:g}. "
                "Betas must lie in (0, 1), the last may be 1"
            )
        with np.errstate(divide="ignore"):
            lam = 0.5 * (np.log(ac) - np.log1p(-ac))
        lam.setflags(write=False)
        object.__setattr__(self, "_lam", lam)

    def _functions(self) -> Any:
        return self.alphas_cumprod

    @property
    def _last(self) -> int:
        """The last index with a finite lambda."""
        return len(self._lam) - 1 - int(np.isneginf(self._lam[-1]))

    @property
    def _ends(self) -> tuple[float, float]:
        """(sigma at time 0, alpha at the last finite index)."""
        first, last = self.alphas_cumprod[0], self.alphas_cumprod[self._last]
        return math.sqrt(1 - first), math.sqrt(last)

    def _parts(self, t: ArrayLike) -> tuple[Float, Float, Float, Float]:
        """Times, lambda in the middle stretch, and linear weights of the first and the last stretch (nan outside)."""
        t = np.asarray(t, np.float64)
        self.check_times(np.atleast_1d(t))
        lam = np.interp(t, np.arange(self._last + 1.0), self._lam[: self._last + 1])
        low = np.where(t < 0, t + 1, np.nan)
        high = np.where(t > self._last, self.t_max - t, np.nan)
        return t, lam, low, high

    def alpha(self, t: ArrayLike) -> Float:
        _, lam, low, high = self._parts(t)
        sigma0, alpha_last = self._ends
        middle = 1 / np.sqrt(1 + np.exp(-2 * lam))
        return np.where(
            low >= 0, np.sqrt(1 - (sigma0 * low) ** 2), np.where(high >= 0, alpha_last * high, middle)
        )

    def sigma(self, t: ArrayLike) -> Float:
        _, lam, low, high = self._parts(t)
        sigma0, alpha_last = self._ends
        middle = 1 / np.sqrt(1 + np.exp(2 * lam))
        return np.where(
            low >= 0, sigma0 * low, np.where(high >= 0, np.sqrt(1 - (alpha_last * high) ** 2), middle)
        )

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        t, _, low, high = self._parts(t)
        sigma0, alpha_last = self._ends
        alpha, sigma = self.alpha(t), self.sigma(t)
        index = np.clip(np.floor(t).astype(int), 0, self._last - 1)
        slope = np.diff(self._lam[: self._last + 1])[index]
        with np.errstate(divide="ignore", invalid="ignore"):
            dalpha = np.where(
                low >= 0, -sigma * sigma0 / alpha, np.where(high >= 0, -alpha_last, alpha * sigma**2 * slope)
            )
            dsigma = np.where(
                low >= 0, sigma0, np.where(high >= 0, alpha * alpha_last / sigma, -sigma * alpha**2 * slope)
            )
        return dalpha, dsigma

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        lam = np.asarray(lam, np.float64)
        sigma0, alpha_last = self._ends
        knots = self._lam[: self._last + 1]
        middle = np.interp(-lam, -knots, np.arange(self._last + 1.0))
        with np.errstate(over="ignore"):
            sigma, alpha = 1 / np.sqrt(1 + np.exp(2 * lam)), 1 / np.sqrt(1 + np.exp(-2 * lam))
        if self._last == len(self._lam) - 1 and np.any(lam < knots[-1] - 1e-9):
            raise InvalidInput(
                f"lambda {np.min(lam):g} is noisier than the schedule's noisiest, {knots[-1]:g} "
                f"(sigma / alpha {math.exp(-knots[-1]):g}): use less noise, or a schedule with zero terminal SNR"
            )
        return np.where(
            lam > knots[0],
            sigma / sigma0 - 1,
            np.where(lam < knots[-1], np.minimum(self.t_max - alpha / alpha_last, self.t_max), middle),
        )

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        with np.errstate(divide="ignore"):
            return self.time_of_lambda(-np.log(np.asarray(sigma, np.float64)))

    def given_sigma(self, t: ArrayLike) -> Float:
        return self.ratio(t)


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """alpha = 1, sigma = t (Karras et al. 2022, arXiv 2206.00364)."""

    def alpha(self, t: ArrayLike) -> Float:
        return np.ones_like(self.sigma(t))

    def sigma(self, t: ArrayLike) -> Float:
        t = np.asarray(t, np.float64)
        self.check_times(np.atleast_1d(t))
        return t

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        return np.zeros_like(self.sigma(t)), np.ones_like(self.sigma(t))

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        return np.exp(-np.asarray(lam, np.float64))

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        return np.asarray(sigma, np.float64)

    def given_sigma(self, t: ArrayLike) -> Float:
        return self.sigma(t)


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """alpha = 1 - t, sigma = t: rectified flow and flow matching (Liu et al. 2022, arXiv 2209.03003).

    The shift s of SD3 (Esser et al. 2024, arXiv 2403.03206, eq. 23) maps uniform times u to s u / (1 + (s - 1) u). It
    moves where grids put their times and nothing else: given times and sigmas stay as they are.
    """

    shift: float = 1.0

    def alpha(self, t: ArrayLike) -> Float:
        return 1 - self.sigma(t)

    def sigma(self, t: ArrayLike) -> Float:
        t = np.asarray(t, np.float64)
        self.check_times(np.atleast_1d(t))
        return t

    def derivatives(self, t: ArrayLike) -> tuple[Float, Float]:
        return -np.ones_like(self.sigma(t)), np.ones_like(self.sigma(t))

    def time_of_lambda(self, lam: ArrayLike) -> Float:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(np.asarray(lam, np.float64)))

    def time_of_sigma(self, sigma: ArrayLike) -> Float:
        return np.asarray(sigma, np.float64)

    def given_sigma(self, t: ArrayLike) -> Float:
        return self.sigma(t)

    def warp(self, t: ArrayLike) -> Float:
        t = np.asarray(t, np.float64)
        return self.shift * t / (1 + (self.shift - 1) * t)


def positive(name: str, value: float, allow_zero: bool = False) -> float:
    """`value` as a float, or `InvalidInput` when it is not a finite number above zero."""
    number = float(value)
    if not (math.isfinite(number) and (number > 0 or (allow_zero and number == 0))):
        raise InvalidInput(f"{name} must be a finite number above zero, got {value!r}")
    return number


def _beta(kind: str, params: dict[str, Any], alphas_cumprod: Float, zero_snr: bool) -> BetaSchedule:
    if zero_snr:
        alphas_cumprod = _zero_terminal_snr(alphas_cumprod)
    values = tuple(float(a) for a in alphas_cumprod)
    named = tuple(sorted({**params, "zero_snr": bool(zero_snr)}.items()))
    return BetaSchedule(kind, named, t_clean=-1.0, t_min=0.0, t_max=len(values) - 1.0, alphas_cumprod=values)


def _zero_terminal_snr(alphas_cumprod: Float) -> Float:
    """Shift and scale sqrt(alphas_cumprod) so that the last is 0 and the first stays (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
    root = np.sqrt(alphas_cumprod)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def _count(num_train_timesteps: int) -> int:
    if not 2 <= int(num_train_timesteps) <= 100_000:
        raise InvalidInput(f"num_train_timesteps must lie in 2 .. 100000, got {num_train_timesteps}")
    return int(num_train_timesteps)


def linear(
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    num_train_timesteps: int = 1000,
    *,
    zero_snr: bool = False,
) -> BetaSchedule:
    """Betas uniform from `beta_start` to `beta_end` (Ho et al. 2020, arXiv 2006.11239)."""
    n = _count(num_train_timesteps)
    betas = np.linspace(positive("beta_start", beta_start), positive("beta_end", beta_end), n)
    params = {"beta_start": float(beta_start), "beta_end": float(beta_end), "num_train_timesteps": n}
    return _beta("linear", params, np.cumprod(1 - betas), zero_snr)


def scaled_linear(
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    num_train_timesteps: int = 1000,
    *,
    zero_snr: bool = False,
) -> BetaSchedule:
    """Square roots of the betas uniform: the schedule of latent and Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752)."""
    n = _count(num_train_timesteps)
    betas = (
        np.linspace(positive("beta_start", beta_start) ** 0.5, positive("beta_end", beta_end) ** 0.5, n) ** 2
    )
    params = {"beta_start": float(beta_start), "beta_end": float(beta_end), "num_train_timesteps": n}
    return _beta("scaled_linear", params, np.cumprod(1 - betas), zero_snr)


def cosine(
    num_train_timesteps: int = 1000, *, max_beta: float = 0.999, zero_snr: bool = False
) -> BetaSchedule:
    """alpha_cumprod = cos^2 of time, betas capped at `max_beta` (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    n = _count(num_train_timesteps)
    bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], positive("max_beta", max_beta))
    return _beta(
        "cosine", {"num_train_timesteps": n, "max_beta": float(max_beta)}, np.cumprod(1 - betas), zero_snr
    )


def from_betas(betas: Sequence[float] | Float, *, zero_snr: bool = False) -> BetaSchedule:
    """Any betas in (0, 1), one for each training step; the last may be 1 (zero terminal SNR)."""
    values = np.asarray(betas, np.float64)
    return _beta("betas", {"betas": [float(b) for b in values]}, np.cumprod(1 - values), zero_snr)


def from_alphas_cumprod(alphas_cumprod: Sequence[float] | Float, *, zero_snr: bool = False) -> BetaSchedule:
    """Any products of (1 - beta): strictly decreasing in (0, 1); the last may be 0 (zero terminal SNR)."""
    values = np.asarray(alphas_cumprod, np.float64)
    return _beta("alphas_cumprod", {"alphas_cumprod": [float(a) for a in values]}, values, zero_snr)


def edm(sigma_max: float = 80.0, sigma_min: float = 0.002) -> EDMSchedule:
    """sigma = t on [0, sigma_max]; grids end their noisy part at `sigma_min`."""
    low, high = positive("sigma_min", sigma_min), positive("sigma_max", sigma_max)
    if low >= high:
        raise InvalidInput(f"sigma_min {low:g} must be below sigma_max {high:g}")
    return EDMSchedule("edm", (("sigma_max", high), ("sigma_min", low)), t_clean=0.0, t_min=low, t_max=high)


def flow(shift: float = 1.0, *, t_min: float = 1e-3) -> FlowSchedule:
    """Rectified flow with a static `shift` above 0 (SD3 uses 3); see `flow_shift` for one that depends on the resolution."""
    s, low = positive("shift", shift), positive("t_min", t_min)
    if low >= 1:
        raise InvalidInput(f"t_min must be below 1, got {low:g}")
    return FlowSchedule("flow", (("shift", s), ("t_min", low)), t_clean=0.0, t_min=low, t_max=1.0, shift=s)


def flow_shift(
    image_tokens: int,
    *,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_log_shift: float = 0.5,
    max_log_shift: float = 1.15,
) -> float:
    """Shift for a picture of `image_tokens` latent patches: its logarithm is linear in their number, as FLUX.1 has it."""
    slope = (max_log_shift - base_log_shift) / (max_tokens - base_tokens)
    return math.exp(base_log_shift + slope * (positive("image_tokens", image_tokens) - base_tokens))


KINDS = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "betas": from_betas,
    "alphas_cumprod": from_alphas_cumprod,
    "edm": edm,
    "flow": flow,
}


def from_spec(spec: dict[str, Any]) -> Schedule:
    """The schedule of which `spec` is `schedule.spec`. Raises `InvalidInput` for an unknown kind or parameter."""
    params = dict(spec)
    kind = params.pop("kind", None)
    if kind not in KINDS:
        raise unknown_name("noise schedule", str(kind), KINDS)
    try:
        return KINDS[kind](**params)
    except TypeError as error:
        raise InvalidInput(f"noise schedule {kind!r} does not take {sorted(params)}: {error}") from error


def from_diffusers(config: dict[str, Any]) -> Schedule:
    """The schedule that a diffusers scheduler configuration describes (a mapping; diffusers itself is not needed)."""
    n = config.get("num_train_timesteps", 1000)
    name = str(config.get("_class_name", ""))
    if (
        name.startswith("FlowMatch")
        or config.get("use_flow_sigmas")
        or config.get("prediction_type") == "flow_prediction"
    ):
        return flow(shift=config.get("shift", config.get("flow_shift", 1.0)) or 1.0, t_min=1 / n)
    if name.startswith("EDM"):
        return edm(config.get("sigma_max", 80.0), config.get("sigma_min", 0.002))
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    if config.get("trained_betas") is not None:
        return from_betas(config["trained_betas"], zero_snr=zero_snr)
    kind = config.get("beta_schedule", "linear")
    if kind == "squaredcos_cap_v2":
        return cosine(n, zero_snr=zero_snr)
    if kind in ("linear", "scaled_linear"):
        return KINDS[kind](config.get("beta_start", 1e-4), config.get("beta_end", 0.02), n, zero_snr=zero_snr)
    raise unknown_name("beta_schedule", str(kind), ["linear", "scaled_linear", "squaredcos_cap_v2"])
