"""k-diffusion 0.1.1 as a peer: x = x0 + sigma eps, called as model(x, sigma) -> x0, in float64."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from .peers import Overlay, Peer, Response, Trace, default_dtype, replaced


@functools.cache
def k_diffusion_sampling() -> ModuleType:
    """`k_diffusion.sampling`, and nothing else of the package.

    The package's `__init__` imports its models, metrics and trainers, and with them torchvision, clip,
    kornia, wandb and more, none of which sampling needs. So while `sampling` and the `utils` it imports are
    loaded, `sys.modules` holds

    - a bare `k_diffusion` package that knows its folder but has not run its `__init__`, and
    - an empty `torchvision.transforms.functional`, which `utils` names at import and uses for pictures only.

    Both are taken out again afterwards, so that other libraries do not take the empty torchvision for a real
    one.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("k-diffusion is not installed; install it without its dependencies: --no-deps k-diffusion")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    stubs = {"k_diffusion": package}
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        stubs[name] = ModuleType(name)
    vars(stubs["torchvision.transforms"])["functional"] = stubs["torchvision.transforms.functional"]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def k_diffusion_peer(
    function: str, sigmas: Sequence[float], *, marginals: bool = True, note: str = "", **options: Any
) -> Peer:
    """A sampler of k-diffusion at `sigmas`, N + 1 decreasing values of which the last is where sampling ends.

    function: the name with or without `sample_`. `dpm_fast` makes its own grid: give (sigma_max, sigma_min)
    and `n`.
    """
    short = function.removeprefix("sample_")

    def run(trace: Trace) -> tuple[torch.Tensor, tuple[float, float]]:
        sampling = k_diffusion_sampling()

        def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return trace.evaluate(x, sigma[0], (1.0, float(sigma[0])))

        def noise_sampler(_x: torch.Tensor) -> Any:
            return lambda first, second: trace.draw((float(first), float(second)))

        names = {
            "torch": Overlay(torch, randn_like=lambda _x: trace.draw()),
            "default_noise_sampler": noise_sampler,
            "BatchedBrownianTree": trace.brownian_tree,
        }
        with replaced(sampling, **names), default_dtype(torch.float64), torch.no_grad():
            sampler = getattr(sampling, f"sample_{short}")
            if short == "dpm_fast":
                result = sampler(model, trace.start(), sigmas[-1], sigmas[0], disable=True, **options)
            else:
                grid = torch.tensor(sigmas, dtype=torch.float64)
                result = sampler(model, trace.start(), grid, disable=True, **options)
        return result, (1.0, float(sigmas[-1]))

    settings = {"function": short, "sigmas": tuple(sigmas), "options": options}
    label = "-".join(
        [
            short,
            *(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items()),
            str(len(sigmas) - 1),
        ]
    )
    return Peer(f"k_diffusion:{label}", "ve", "float64", (1,), run, settings, marginals, note)


def k_diffusion_response(function: str, sigmas: Sequence[float], **options: Any) -> Response:
    """The table of `k_diffusion.sampling.sample_<function>(model, x, sigmas, **options)`."""
    return k_diffusion_peer(function, sigmas, **options).response()


def karras(steps: int, sigma_min: float = 0.05, sigma_max: float = 20.0, rho: float = 7.0) -> tuple[float, ...]:
    """Noise levels of Karras et al. 2022, eq. 5, then 0. In float64: the peer's own helper is float32."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels = ((high + i / max(1, steps - 1) * (low - high)) ** rho for i in range(steps))
    return (*levels, 0.0)


def k_diffusion_cases() -> list[Peer]:
    """Every fixed-step sampler of k-diffusion with its options, at several step counts."""
    churn = {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 10.0}
    options: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ("euler", "heun", "dpm_2", "dpmpp_2m")]
    options += [(name, churn) for name in ("euler", "heun", "dpm_2")]
    options += [("lms", {"order": order}) for order in (1, 2, 3, 4)]
    ancestral = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")
    options += [(name, {"eta": eta}) for name in ancestral for eta in (0.0, 0.5, 1.0)]
    options += [("dpmpp_sde", {"r": 1 / 3})]
    for kind in ("midpoint", "heun"):
        options += [("dpmpp_2m_sde", {"solver_type": kind, "eta": eta}) for eta in (0.0, 0.5, 1.0)]
    options += [("dpmpp_3m_sde", {"eta": eta}) for eta in (0.0, 0.5, 1.0)]
    cases = []
    for name, extra in options:
        fewest = 2 if name in ("dpmpp_2m_sde", "dpmpp_3m_sde") else 1  # one step is an error there
        cases += [k_diffusion_peer(name, karras(steps), **extra) for steps in (1, 2, 3, 5, 10) if steps >= fewest]
    louder = {"marginals": False, "note": "s_noise other than 1 adds more noise than the step takes away"}
    loud = [("euler", churn), ("heun", churn), ("dpm_2", churn), *((name, {}) for name in ancestral)]
    cases += [k_diffusion_peer(name, karras(10), s_noise=1.1, **louder, **extra) for name, extra in loud]
    for evaluations in (1, 2, 3, 4, 5, 6, 10):
        for eta in (0.0, 0.7):
            cases.append(k_diffusion_peer("dpm_fast", (20.0, 0.05), n=evaluations, eta=eta))
    return cases
