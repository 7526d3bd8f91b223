"""The harness itself: what it reads off a peer is linear, marginal-preserving, and alike in two libraries."""

import math
from typing import Any

import numpy as np
import pytest

from .diffusers_cases import SCHEDULES, diffusers_cases
from .diffusers_peer import diffusers_peer, diffusers_response
from .k_diffusion_peer import k_diffusion_cases, k_diffusion_peer, k_diffusion_response, karras
from .peers import Peer, Response

STABLE_DIFFUSION = SCHEDULES["scaled_linear"]
PEERS = diffusers_cases() + k_diffusion_cases()


def _of_each_kind(peers: list[Peer]) -> list[Peer]:
    """The longest run of each scheduler and algorithm."""
    kinds: dict[tuple[Any, ...], Peer] = {}
    for peer in peers:
        config = peer.settings.get("config", {})
        kind = (peer.settings.get("scheduler", peer.settings.get("function")), config.get("algorithm_type"))
        kinds[kind] = peer
    return list(kinds.values())


def _names(peer: Peer) -> str:
    return peer.name


def test_every_case_has_its_own_name() -> None:
    names = [peer.name for peer in PEERS]
    assert len(names) == len(set(names))
    assert len(names) > 500


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.marginals], ids=_names)
def test_a_well_behaved_peer_keeps_the_marginals_it_claims(peer: Peer) -> None:
    assert peer.response().marginal_error() < 1e-12


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.marginals], ids=_names)
def test_a_peer_that_is_said_to_leave_the_marginals_does_so_and_says_why(peer: Peer) -> None:
    assert peer.note
    assert peer.response().marginal_error() > 1e-10


@pytest.mark.parametrize("peer", _of_each_kind(PEERS), ids=_names)
def test_the_table_applied_to_numbers_is_the_run_on_those_numbers(peer: Peer) -> None:
    assert peer.superposition_error(seed=3) < 1e-12


@pytest.mark.parametrize("peer", _of_each_kind(diffusers_cases("float32")), ids=_names)
def test_the_float32_run_is_the_float64_run_rounded(peer: Peer) -> None:
    settings = dict(peer.settings)
    steps = settings.pop("num_inference_steps", None)
    scheduler, config = settings.pop("scheduler"), settings.pop("config")
    wide = diffusers_response(scheduler, config, steps=steps, **settings)
    narrow = peer.response()
    assert (narrow.precision, wide.precision) == ("float32", "float64")
    assert narrow.states.shape == wide.states.shape
    assert np.abs(narrow.states - wide.states).max() / np.abs(wide.states).max() < 2e-4
    assert not np.array_equal(narrow.states, wide.states)


def test_clipping_shows_as_a_broken_superposition() -> None:
    clipped = diffusers_peer("DDIM", STABLE_DIFFUSION | {"clip_sample": True, "clip_sample_range": 0.5}, 5)
    assert clipped.superposition_error() > 1e-2


# --- against formulas ---------------------------------------------------------------------------------------


def test_two_steps_of_ddim_are_the_formula() -> None:
    table = diffusers_response("DDIM", STABLE_DIFFUSION | {"timestep_spacing": "leading"}, steps=2)
    (a0, s0), (a1, s1) = table.levels[:2]
    assert list(table.times) == [500.0, 0.0]
    assert np.allclose(table.inputs[0], [1, 0, 0], atol=0)
    assert np.allclose(table.inputs[1], [s1 / s0, a1 - a0 * s1 / s0, 0], atol=1e-15)
    assert np.allclose(table.final, [0, 0, 1], atol=1e-15)


def test_ddpm_noise_has_the_posterior_variance() -> None:
    table = diffusers_response("DDPM", STABLE_DIFFUSION, steps=2)
    (a0, s0), (a1, s1) = table.levels[:2]
    beta = 1 - (a0 / a1) ** 2
    assert [draw.after for draw in table.draws] == [1]
    assert table.inputs[1, 3] == pytest.approx(math.sqrt(s1**2 / s0**2 * beta), rel=1e-12)


def test_a_brownian_path_is_cut_into_disjoint_pieces() -> None:
    sigmas = (10.0, 2.5, 0.0)
    table = k_diffusion_response("dpmpp_sde", sigmas)
    middle = 5.0
    assert [draw.interval for draw in table.draws] == [
        pytest.approx((10.0, middle), rel=1e-12),
        pytest.approx((middle, 2.5), rel=1e-12),
    ]
    up = 2.5 * math.sqrt(1 - 2.5**2 / 10.0**2)  # of the whole step, spread over its two pieces by their length
    assert table.inputs[2, table.noises] == pytest.approx(
        [up * math.sqrt(5 / 7.5), up * math.sqrt(2.5 / 7.5)], rel=1e-12
    )


def test_noise_multiplied_by_zero_has_no_column() -> None:
    table = diffusers_response("EulerAncestralDiscrete", STABLE_DIFFUSION, steps=3)
    assert (len(table.draws), table.silent) == (2, 1)
    assert table.inputs.shape == (3, 1 + 3 + 2)


@pytest.mark.parametrize("peer", _of_each_kind(diffusers_cases()), ids=_names)
def test_the_level_read_from_a_scheduler_is_the_one_it_scales_the_input_by(peer: Peer) -> None:
    table = peer.response()
    name = peer.settings["scheduler"]
    if peer.coordinates != "ve":
        want = np.ones(len(table.inputs))
    else:
        spread = 0.5 if name.startswith(("EDM", "CM")) else 1.0
        want = 1 / np.hypot(table.sigmas, spread)
    assert table.scales == pytest.approx(want, rel=1e-12)


# --- between the libraries ----------------------------------------------------------------------------------

_STEPS = 8
_ODE3 = {"solver_order": 3, "solver_type": "heun"}
_SDE2 = {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}
_SDE3 = _ODE3 | {"algorithm_type": "sde-dpmsolver++"}
_SAME: list[tuple[str, dict[str, Any], dict[str, Any], str, dict[str, Any]]] = [
    ("EulerDiscrete", {}, {}, "euler", {}),
    ("EulerAncestralDiscrete", {}, {}, "euler_ancestral", {}),
    ("HeunDiscrete", {}, {}, "heun", {}),
    ("KDPM2Discrete", {}, {}, "dpm_2", {}),
    ("KDPM2AncestralDiscrete", {}, {}, "dpm_2_ancestral", {}),
    ("LMSDiscrete", {}, {"order": 2}, "lms", {"order": 2}),
    ("LMSDiscrete", {}, {"order": 4}, "lms", {"order": 4}),
    ("DPMSolverSDE", {}, {}, "dpmpp_sde", {}),
    ("DPMSolverMultistep", {"solver_order": 2}, {}, "dpmpp_2m", {}),
    ("DPMSolverMultistep", _SDE2, {}, "dpmpp_2m_sde", {}),
    ("DPMSolverMultistep", _SDE2 | {"solver_type": "heun"}, {}, "dpmpp_2m_sde", {"solver_type": "heun"}),
    ("DPMSolverMultistep", _ODE3 | {"lower_order_final": False}, {}, "dpmpp_3m_sde", {"eta": 0.0}),
    ("EDMDPMSolverMultistep", {"solver_order": 2}, {}, "dpmpp_2m", {}),
    ("EDMEuler", {}, {}, "euler", {}),
]


def _stage_starts(table: Response) -> tuple[float, ...]:
    """The grid of a table in VE coordinates: of two stages a step (2 N - 1 evaluations), the first ones."""
    stages = 1 if len(table.inputs) == _STEPS else 2
    return (*table.sigmas[::stages], table.end[1])


@pytest.mark.parametrize(("scheduler", "config", "options", "function", "arguments"), _SAME)
def test_two_libraries_give_the_same_table(
    scheduler: str, config: dict[str, Any], options: dict[str, Any], function: str, arguments: dict[str, Any]
) -> None:
    base = {} if scheduler.startswith("EDM") else STABLE_DIFFUSION
    table = diffusers_response(scheduler, base | config, steps=_STEPS, options=options)
    first = table if table.coordinates == "ve" else table.in_ve()
    second = k_diffusion_response(function, _stage_starts(first), **arguments)
    assert first.states.shape == second.states.shape
    assert np.abs(first.states - second.states).max() < 1e-12 * max(1.0, np.abs(second.states).max())


def test_the_third_order_sde_step_of_diffusers_has_a_wrong_sign_that_k_diffusion_has_not() -> None:
    config = STABLE_DIFFUSION | _SDE3 | {"lower_order_final": False}
    first = diffusers_response("DPMSolverMultistep", config, steps=_STEPS).in_ve()
    second = k_diffusion_response("dpmpp_3m_sde", _stage_starts(first))
    h = np.diff(-np.log([*first.sigmas[1:4]]))
    r0, r1 = h[0] / h[1], -np.log(first.sigmas[1] / first.sigmas[0]) / h[1]
    # the first full-order step leads to state 3; the two differ by D2 = (D1_0 - D1_1) / (r0 + r1) times -1
    oldest = 1 / (r1 * (r0 + r1))
    difference = first.states[3, 1] - second.states[3, 1]
    assert np.abs(first.states[:3] - second.states[:3]).max() < 1e-12
    assert difference == pytest.approx(-oldest, rel=1e-9)


def test_ve_coordinates_refuse_a_run_that_starts_at_alpha_zero() -> None:
    with pytest.raises(ValueError, match="alpha is 0"):
        diffusers_response("FlowMatchEulerDiscrete", steps=3).in_ve()


def test_an_unknown_scheduler_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no way to talk to scheduler 'Euler'"):
        diffusers_peer("Euler", steps=3)


def test_third_order_multistep_peers_give_half_the_second_derivative() -> None:
    """Both libraries' 3M weigh D2 by phi_3 where h^2 x0''/2 needs 2 phi_3, so they converge at order 2."""
    table = k_diffusion_response("dpmpp_3m_sde", karras(8), eta=0.0)
    old, new = 4, 5
    carried = table.states[new, 0] / table.states[old, 0]
    step = (table.states[new] - carried * table.states[old])[table.evaluations]
    time = -np.log(table.sigmas)
    weighed = [float(step @ (time - time[old]) ** degree) for degree in (0, 1, 2)]
    h = time[new] - time[old]
    exact = [1 - math.exp(-h), h - 1 + math.exp(-h), h**2 - 2 * (h - 1 + math.exp(-h))]  # int e^(l-h) l^k dl
    assert weighed[:2] == pytest.approx(exact[:2], rel=1e-10)
    assert weighed[2] == pytest.approx(exact[2] / 2, rel=1e-10)


# --- known breakage of the peers, so that a repaired release is noticed -------------------------------------


@pytest.mark.parametrize("function", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_k_diffusion_multistep_sde_cannot_make_a_single_step(function: str) -> None:
    with pytest.raises(UnboundLocalError):
        k_diffusion_peer(function, karras(1)).response()


def test_unipc_bh1_ends_in_nan_at_sigma_zero() -> None:
    table = diffusers_response("UniPCMultistep", STABLE_DIFFUSION | {"solver_type": "bh1"}, steps=5)
    assert np.isfinite(table.inputs).all()
    assert np.isnan(table.final).all()


def test_repeated_timesteps_shift_the_index_unless_begin_index_is_set() -> None:
    cosine = SCHEDULES["cosine"] | {"use_karras_sigmas": True}
    with pytest.raises(IndexError):
        diffusers_response("DPMSolverMultistep", cosine, steps=20, precision="float32")
    table = diffusers_response("DPMSolverMultistep", cosine, steps=20, precision="float32", begin_index=0)
    assert len(table.inputs) == 20
