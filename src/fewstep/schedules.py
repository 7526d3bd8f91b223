"""The noise schedules, as `fewstep.schedules`: `linear`, `scaled_linear`, `cosine`, given betas, `edm` and `flow`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewstep.core.errors import InvalidInput, number, positive, shown, unknown_name
from fewstep.core.schedule import BetaSchedule, EDMSchedule, Float, FlowSchedule, Schedule

__all__ = [
    "Schedule",
    "cosine",
    "edm",
    "flow",
    "flow_shift",
    "from_alphas_cumprod",
    "from_betas",
    "from_diffusers",
    "from_spec",
    "linear",
    "scaled_linear",
]


def _beta(kind: str, params: dict[str, Any], alphas_cumprod: Float, zero_snr: bool) -> BetaSchedule:
    if zero_snr and np.all(np.diff(alphas_cumprod) < 0):  # others are refused below
        alphas_cumprod = _zero_terminal_snr(alphas_cumprod)
    values = tuple(alphas_cumprod.tolist())
    named = tuple(sorted({**params, "zero_snr": bool(zero_snr)}.items()))
    return BetaSchedule(kind, named, t_clean=-1.0, t_min=0.0, t_max=len(values) - 1.0, alphas_cumprod=values)


def _zero_terminal_snr(alphas_cumprod: Float) -> Float:
    """Square roots shifted and scaled: the last is 0, the first stays (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
    root = np.sqrt(alphas_cumprod)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def _column(name: str, values: Sequence[float] | Float) -> Float:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} must be a list of numbers, got {shown(values)}") from error
    if array.ndim != 1 or not 2 <= array.size <= 100_000:
        raise InvalidInput(f"{name} must be a list of 2 to 100000 numbers, got shape {array.shape}")
    return array


def _count(num_train_timesteps: int) -> int:
    if not isinstance(num_train_timesteps, int) or not 2 <= num_train_timesteps <= 100_000:
        raise InvalidInput(f"num_train_timesteps must be an integer in 2 .. 100000, got {shown(num_train_timesteps)}")
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
    return _beta("linear", params, np.cumprod(1 - betas, dtype=np.float64), zero_snr)


def scaled_linear(
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    num_train_timesteps: int = 1000,
    *,
    zero_snr: bool = False,
) -> BetaSchedule:
    """Square roots of the betas uniform: Stable Diffusion's schedule (Rombach et al. 2022, arXiv 2112.10752)."""
    n = _count(num_train_timesteps)
    betas = np.linspace(positive("beta_start", beta_start) ** 0.5, positive("beta_end", beta_end) ** 0.5, n) ** 2
    params = {"beta_start": float(beta_start), "beta_end": float(beta_end), "num_train_timesteps": n}
    return _beta("scaled_linear", params, np.cumprod(1 - betas, dtype=np.float64), zero_snr)


def cosine(num_train_timesteps: int = 1000, *, max_beta: float = 0.999, zero_snr: bool = False) -> BetaSchedule:
    """alpha_cumprod = cos^2 of time, betas capped at `max_beta` (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    n = _count(num_train_timesteps)
    bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], positive("max_beta", max_beta))
    return _beta(
        "cosine",
        {"num_train_timesteps": n, "max_beta": float(max_beta)},
        np.cumprod(1 - betas, dtype=np.float64),
        zero_snr,
    )


def from_betas(betas: Sequence[float] | Float, *, zero_snr: bool = False) -> BetaSchedule:
    """Any betas in (0, 1), one for each training step; the last may be 1 (zero terminal SNR)."""
    values = _column("betas", betas)
    return _beta("betas", {"betas": tuple(values.tolist())}, np.cumprod(1 - values, dtype=np.float64), zero_snr)


def from_alphas_cumprod(alphas_cumprod: Sequence[float] | Float, *, zero_snr: bool = False) -> BetaSchedule:
    """Any products of (1 - beta): strictly decreasing in (0, 1); the last may be 0 (zero terminal SNR)."""
    values = _column("alphas_cumprod", alphas_cumprod)
    return _beta("alphas_cumprod", {"alphas_cumprod": tuple(values.tolist())}, values, zero_snr)


def edm(sigma_max: float = 80.0, sigma_min: float = 0.002) -> EDMSchedule:
    """sigma = t on [0, sigma_max]; grids end their noisy part at `sigma_min`."""
    low, high = positive("sigma_min", sigma_min), positive("sigma_max", sigma_max)
    if low >= high:
        raise InvalidInput(f"sigma_min {low:g} must be below sigma_max {high:g}")
    return EDMSchedule("edm", (("sigma_max", high), ("sigma_min", low)), t_clean=0.0, t_min=low, t_max=high)


def flow(shift: float = 1.0, *, t_min: float = 1e-3) -> FlowSchedule:
    """Rectified flow with a `shift` above 0 (SD3 uses 3); `flow_shift` gives one that depends on the resolution."""
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
    """The shift for a picture of `image_tokens` latent patches; its log is linear in their number, as in FLUX.1."""
    low, high = positive("base_tokens", base_tokens), positive("max_tokens", max_tokens)
    least, most = number("base_log_shift", base_log_shift), number("max_log_shift", max_log_shift)
    if low >= high or not max(abs(least), abs(most)) <= 50:
        raise InvalidInput(
            f"a shift grows from base_tokens to more max_tokens, and its log lies in -50 .. 50: got {low:g} and "
            f"{high:g}, {least:g} and {most:g}"
        )
    slope = (most - least) / (high - low)
    return math.exp(least + slope * (positive("image_tokens", image_tokens) - low))


KINDS = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "betas": from_betas,
    "alphas_cumprod": from_alphas_cumprod,
    "edm": edm,
    "flow": flow,
}


def from_spec(spec: Mapping[str, Any]) -> Schedule:
    """The inverse of `schedule.spec`. Raises `InvalidInput` for an unknown kind or parameter."""
    params = dict(spec)
    kind = params.pop("kind", None)
    if kind not in KINDS:
        raise unknown_name("noise schedule", str(kind), KINDS)
    try:
        return KINDS[kind](**params)
    except TypeError as error:
        raise InvalidInput(f"noise schedule {kind!r} does not take {sorted(params)}: {error}") from error


def from_diffusers(config: Mapping[str, Any]) -> Schedule:
    """The schedule that a diffusers scheduler configuration describes (a mapping; diffusers itself is not needed).

    A configuration in memory does not name its class, so flow and EDM schedulers are recognised by settings that only
    they have.
    """
    name, n = str(config.get("_class_name", "")), config.get("num_train_timesteps", 1000)
    betas = config.get("beta_schedule")
    n = _count(n)
    flows = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flows or name.startswith("FlowMatch") or (betas is None and "shift" in config):
        return flow(shift=config.get("shift") or config.get("flow_shift") or 1.0, t_min=1 / n)
    if name.startswith("EDM") or (betas is None and "sigma_data" in config):
        return edm(config.get("sigma_max", 80.0), config.get("sigma_min", 0.002))
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    if config.get("trained_betas") is not None:
        return from_betas(config["trained_betas"], zero_snr=zero_snr)
    if betas == "squaredcos_cap_v2":
        return cosine(n, zero_snr=zero_snr)
    if betas in ("linear", "scaled_linear"):
        return KINDS[betas](config.get("beta_start", 1e-4), config.get("beta_end", 0.02), n, zero_snr=zero_snr)
    raise unknown_name("beta_schedule", str(betas), ["linear", "scaled_linear", "squaredcos_cap_v2"])
