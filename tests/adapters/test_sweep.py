"""A generated sweep: no option of a sampler and no setting of diffusers is silently dropped by `from_config`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch

import fewstep as fs
from conformance.hosted_cases import VALUES
from fewstep.adapters.diffusers import PlanScheduler
from fewstep.adapters.peers import defaults_of, peer_of
from fewstep.solvers import solver_of

from .tiny import SD

V = {**SD, "prediction_type": "v_prediction"}
HOSTS = {
    "DDIM": diffusers.DDIMScheduler(**V, clip_sample=False),
    "DPMSolverMultistep": diffusers.DPMSolverMultistepScheduler(**V),
    "UniPCMultistep": diffusers.UniPCMultistepScheduler(**V),
    "LCM": diffusers.LCMScheduler(**V),
    "CMStochasticIterative": diffusers.CMStochasticIterativeScheduler(),
    "FlowMatchEulerDiscrete": diffusers.FlowMatchEulerDiscreteScheduler(),
}

OPTIONS: dict[str, list[Any]] = {
    "variance": ["fixed_large"], "eta": [0.5], "r1": [0.4], "r2": [0.7], "curvature": ["exact"],
    "variant": ["heun", "midpoint", "bh1", "exact", "leading", "paper"], "lower_order_final": [True, False],
    "euler_at_final": [True], "s_noise": [0.9], "prediction": ["noise"], "order": [2], "variable": ["rho"],
    "warmup": ["multistep"], "corrector": [False], "disable_corrector": [[1]], "r": [0.4], "s_churn": [3.0],
    "s_tmin": [0.1], "s_tmax": [20.0], "restart_min": [0.2], "restart_max": [1.0], "restarts": [2],
    "restart_steps": [3], "predictor_order": [3], "corrector_order": [3], "tau": [0.5], "tau_min": [1.0],
    "tau_max": [1.0], "sigma_min": [0.01], "boundary": [False], "timestep_scaling": [5.0], "path": [1.0],
    "start": ["pair"],
}  # fmt: skip
"""Other values of every option that a sampler has."""


@pytest.mark.parametrize("host", HOSTS)
def test_an_option_reaches_the_sampler_or_is_refused_whatever_keys_the_host_has(host: str) -> None:
    kinds = Counter[str]()
    for sampler in fs.SAMPLERS:
        for name in solver_of(sampler)[1]:
            for value in OPTIONS[name]:
                try:
                    options = PlanScheduler.from_config(HOSTS[host], sampler=sampler, **{name: value}).config["options"]
                except fs.InvalidInput:
                    kinds["refused"] += 1
                    continue
                # diffusers' own True lets the order fall below 15 steps only, which is None here
                falls = (
                    name == "lower_order_final" and value is True and name in defaults_of(peer_of(sampler, host) or "")
                )
                alone = sampler.endswith("-1")  # of one order, which cannot fall
                found = options.get(name, None if falls or alone else "dropped")
                fast = sampler.endswith("-fast") and name == "lower_order_final"  # True to clean data, as in diffusers
                assert found == value or ((falls or alone) and found is None) or fast, (sampler, name, value)
                kinds["reached"] += 1
    assert kinds["reached"] > 150


SAMPLERS = ("ddpm", "ddim", "euler", "heun", "dpmpp-2m", "dpmpp-fast", "unipc-2", "deis-2", "lcm", "tcd", "sa", "rk4")
HARMLESS = {
    # what they go with is off, so diffusers reads them as little
    "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type",
    "sigma_data", "clip_denoised", "rho", "snr_shift_scale", "variance_type", "noise_sampler_seed",
    # or they are the usual value already, or mean it
    "prediction_type", "solver_type", "algorithm_type", "timestep_type", "beta_schedule", "lambda_min_clipped",
}  # fmt: skip


def behaviour(scheduler: PlanScheduler) -> tuple[Any, ...]:
    """All that a scheduler would do with any network."""
    scheduler.set_timesteps(16, mu=0.5 if scheduler.config.get("use_dynamic_shifting") else None)
    plan, probe = scheduler.plan, torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(1, 24)
    projected = None if scheduler._project is None else scheduler._project(probe).reshape(-1).tolist()
    read = [scheduler._prediction.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows]
    tables = [getattr(plan, name).tobytes() for name in ("init", "A", "B", "s")]
    return tables, scheduler.timesteps.tolist(), scheduler.init_noise_sigma, projected, read, plan.exit


def given(host: str) -> Iterator[tuple[str, str, Any]]:
    known = {name for name in VALUES if name not in ("solver_p", "scale_factors")}
    for sampler in SAMPLERS:
        for name in sorted(known):
            for value in VALUES[name]:
                yield sampler, name, value


@pytest.mark.parametrize("host", ["DDIM", "DPMSolverMultistep", "FlowMatchEulerDiscrete"])
def test_a_setting_of_a_call_changes_what_is_done_or_is_refused_or_is_idle_in_its_own_class_too(host: str) -> None:
    kinds, silent = Counter[str](), []
    usual = {sampler: behaviour(PlanScheduler.from_config(HOSTS[host], sampler=sampler)) for sampler in SAMPLERS}
    for sampler, name, value in given(host):
        try:
            scheduler = PlanScheduler.from_config(HOSTS[host], sampler=sampler, **{name: value})
            same = behaviour(scheduler) == usual[sampler]
        except fs.InvalidInput:
            kinds["refused"] += 1
            continue
        kinds["same" if same else "changed"] += 1
        theirs = defaults_of(peer_of(sampler, host) or "") | dict(HOSTS[host].config)
        idle = value is False or name in HARMLESS or name in solver_of(sampler)[1]
        if same and not idle and name not in theirs:
            silent.append((sampler, name, value))
    assert silent == []
    assert kinds["changed"] > 100
    assert kinds["refused"] > 100
