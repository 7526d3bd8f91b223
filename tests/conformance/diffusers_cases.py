"""The diffusers schedulers that the conformance test goes through, with their options and step counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .diffusers_peer import diffusers_peer
from .peers import Peer, Precision

SCHEDULES: dict[str, dict[str, Any]] = {
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
_FEW = (1, 2, 3, 10)
_ON = {"on": "scaled_linear"}
_ENDS = {"final_sigmas_type": "sigma_min"}
_SPACINGS = ("leading", "trailing", "linspace")
_LARGE = "the variance beta_t is larger than the posterior's, so the state is noisier than the schedule"
_STRIDE = "steps by a constant stride of timesteps // steps, not to the grid's neighbour"
_NOISE_SDE = "an SDE step in the noise prediction keeps the marginals only in the limit of small steps"


def diffusers_cases(precision: Precision = "float64") -> list[Peer]:
    """The schedulers of the conformance test, each over its options and a few step counts."""
    cases: list[Peer] = []

    def add(
        scheduler: str,
        steps: Sequence[int] = (10,),
        options: Any = None,
        on: str | None = None,
        **config: Any,
    ) -> None:
        extra = {key: config.pop(key) for key in ("marginals", "note", "sigmas", "begin_index") if key in config}
        tau = config.get("tau_func")
        words = [scheduler, *([on] if on and on != "scaled_linear" else [])]
        shown = config | (options or {}) | ({"tau_func": tau.__name__} if tau else {})
        label = "-".join([*words, *(f"{key}={value}" for key, value in shown.items())])
        full = (SCHEDULES[on] if on else {}) | config
        same = {"options": options, "precision": precision, "name": label} | extra
        counts = [None] if "sigmas" in extra else steps
        cases.extend(diffusers_peer(scheduler, full, count, **same) for count in counts)

    for group in (_add_first_order, _add_karras_family, _add_dpm_solver, _add_unipc, _add_grids):
        group(add)
    for group in (_add_sa_solver, _add_consistency, _add_flow):
        group(add)
    return cases


def _add_first_order(add: Callable[..., None]) -> None:
    for spacing in _SPACINGS:
        grid = {"on": "scaled_linear", "timestep_spacing": spacing}
        strided = {"marginals": False, "note": _STRIDE} if spacing == "linspace" else {}
        add("DDPM", (1, 2, 5, 10), **grid)
        add("DDPMParallel", **grid)
        add("DDPM", variance_type="fixed_large", marginals=False, note=_LARGE, **grid)
        for eta in (0.0, 0.5, 1.0):
            add("DDIM", (1,), {"eta": eta}, **grid)
            add("DDIM", (2, 5, 10), {"eta": eta}, **grid, **strided)
        add("PNDM", (5, 10), skip_prk_steps=True, **grid, **strided)
        add("PNDM", (5, 10), skip_prk_steps=False, **grid, **strided)
    for schedule in ("linear", "cosine"):
        add("DDIM", (5, 10), {"eta": 0.5}, on=schedule)
    add("DDIM", on="scaled_linear", set_alpha_to_one=False, steps_offset=1)
    for spacing in ("leading", "trailing"):
        add("CogVideoXDDIM", (5, 10), on="scaled_linear", timestep_spacing=spacing)
    add("DDIMParallel", (5, 10), {"eta": 0.5}, on="scaled_linear")
    for spacing in ("leading", "trailing"):
        add("DDIMInverse", (5, 10), on="scaled_linear", set_alpha_to_one=False, timestep_spacing=spacing)
    add(
        "IPNDM",
        (2, 5),
        marginals=False,
        note="its grid starts at alpha = 0, where its first step drops the network",
    )
    add("IPNDM", (9,), trained_betas=[0.99, 0.95, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0])


def _add_karras_family(add: Callable[..., None]) -> None:
    plain = [
        "EulerDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
        "KDPM2AncestralDiscrete",
        "LMSDiscrete",
        "DPMSolverSDE",
    ]
    for name in plain:
        add(name, _FEW, on="scaled_linear", timestep_spacing="linspace")
        add(name, on="scaled_linear", timestep_spacing="trailing")
        add(name, on="scaled_linear", use_karras_sigmas=True)
    add("EulerAncestralDiscrete", _FEW, on="scaled_linear", timestep_spacing="linspace")
    add("EulerAncestralDiscrete", on="scaled_linear", timestep_spacing="trailing")
    for kind in ("exponential", "beta"):
        add("EulerDiscrete", on="scaled_linear", **{f"use_{kind}_sigmas": True})
    add("EulerDiscrete", on="scaled_linear", final_sigmas_type="sigma_min")
    add("EulerDiscrete", on="scaled_linear", sigmas=[10.0, 5.0, 2.0, 0.5, 0.0])
    add("EulerDiscrete", (3, 10), {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 10.0}, on="scaled_linear")
    for order in (1, 2, 3):
        add("LMSDiscrete", (5, 10), {"order": order}, on="scaled_linear")
    add("EDMEuler", _FEW)
    add("EDMEuler", sigma_schedule="exponential")
    for order in (1, 2, 3):
        for steps, kind in (((*_FEW, 20), "midpoint"), ((10,), "heun")):
            add("EDMDPMSolverMultistep", steps, solver_order=order, solver_type=kind)
        if order < 3:
            add("EDMDPMSolverMultistep", solver_order=order, algorithm_type="sde-dpmsolver++")
            for kind in ("midpoint", "heun"):
                add("CosineDPMSolverMultistep", (*_FEW, 20), solver_order=order, solver_type=kind)


def _add_dpm_solver(add: Callable[..., None]) -> None:
    multi, single = "DPMSolverMultistep", "DPMSolverSinglestep"
    full = {"lower_order_final": False}
    for order in (1, 2, 3):
        for kind in ("midpoint", "heun"):
            some = {"solver_order": order, "solver_type": kind} | _ON
            for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
                add(multi, (*_FEW, 20), algorithm_type=algorithm, **some)
                add(multi, (10, 20), algorithm_type=algorithm, **full, **some, **_ENDS)
                add(single, (*_FEW, 9), algorithm_type=algorithm, **some)
            add(multi, (10, 20), algorithm_type="dpmsolver", **some, **_ENDS)
            add(multi, (10,), algorithm_type="dpmsolver", **full, **some, **_ENDS)
            add(single, (9, 10), algorithm_type="dpmsolver", **some, **_ENDS)
            if order < 3:
                noisy = {"algorithm_type": "sde-dpmsolver", "marginals": False, "note": _NOISE_SDE}
                add(multi, **noisy, **some, **_ENDS)
        add(multi, (20,), solver_order=order, euler_at_final=True, **_ENDS, **_ON)
        for spacing in _SPACINGS:
            counts = (2, 10) if spacing == "trailing" else (2, 10, 20)  # NaN at order 3: its last level is repeated
            add("DPMSolverMultistepInverse", counts, solver_order=order, timestep_spacing=spacing, **_ON)
        add("DEISMultistep", (*_FEW, 20), solver_order=order, **_ON)
        add("DEISMultistep", solver_order=order, **full, **_ON)


def _add_unipc(add: Callable[..., None]) -> None:
    name = "UniPCMultistep"
    for order in (1, 2, 3, 4):
        add(name, (*_FEW, 5), solver_order=order, **_ON)
        for kind in ("bh1", "bh2"):
            for data in (True, False):
                some = {"solver_order": order, "solver_type": kind, "predict_x0": data}
                add(name, (5, 10), **some, **_ENDS, **_ON)
        add(name, solver_order=order, lower_order_final=False, **_ENDS, **_ON)
    add(name, solver_order=3, disable_corrector=[0, 1, 2], **_ON)


def _add_grids(add: Callable[..., None]) -> None:
    for name in ("DPMSolverMultistep", "UniPCMultistep"):
        for kind in ("karras_sigmas", "exponential_sigmas", "beta_sigmas"):
            add(name, begin_index=0, **{f"use_{kind}": True}, **_ON)
        for spacing in ("leading", "trailing"):
            add(name, timestep_spacing=spacing, **_ON)
        for schedule in ("linear", "cosine"):
            add(name, on=schedule)
    add("DPMSolverMultistep", begin_index=0, use_lu_lambdas=True, **_ON)


def tau_half(_t: Any) -> float:
    """Stochasticity 1/2 at every time, for `SASolver`."""
    return 0.5


def tau_one(_t: Any) -> float:
    """The reverse SDE, for `SASolver`."""
    return 1.0


def tau_zero(_t: Any) -> float:
    """The ODE, for `SASolver`."""
    return 0.0


def _add_sa_solver(add: Callable[..., None]) -> None:
    for orders in ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4)):
        some = {"predictor_order": orders[0], "corrector_order": orders[1]} | _ON
        for tau in (tau_zero, tau_half, tau_one):
            add("SASolver", (3, 10), tau_func=tau, **some)
        add("SASolver", tau_func=tau_zero, algorithm_type="noise_prediction", **some)
    add("SASolver", (1, 2, 10, 20), **_ON)
    noisy = {"algorithm_type": "noise_prediction", "marginals": False, "note": _NOISE_SDE}
    add("SASolver", tau_func=tau_one, **noisy, **_ON)


def _add_consistency(add: Callable[..., None]) -> None:
    skips = "the boundary scaling keeps c_skip = 0.25 / ((10 t)^2 + 0.25) of the state"
    add("LCM", (1, 2, 4, 8), marginals=False, note=skips)
    for eta in (0.0, 0.3, 1.0):
        add("TCD", (1, 2, 4, 8), {"eta": eta})
    low = "the function's output is taken as data at sigma_min: the state carries sqrt(sigma^2 - sigma_min^2)"
    add("CMStochasticIterative", (1, 2, 4), marginals=False, note=low)


def _add_flow(add: Callable[..., None]) -> None:
    for shift in (1.0, 3.0):
        for name in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM"):
            add(name, _FEW, shift=shift)
        add("FlowMatchEulerDiscrete", (4,), shift=shift, stochastic_sampling=True)
        add("FlowMatchEulerDiscrete", shift=shift, sigmas=[1.0, 0.75, 0.5, 0.25])
        for name in ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep"):
            for order in (2, 3):
                add(name, (3, 10), use_flow_sigmas=True, flow_shift=shift, solver_order=order)
        add("SASolver", (3, 10), use_flow_sigmas=True, flow_shift=shift)
        stochastic = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
        add("DPMSolverMultistep", use_flow_sigmas=True, flow_shift=shift, **stochastic)
