"""Every sampler of diffusers and k-diffusion has our table at its own times, or is a named departure."""

from collections import Counter
from functools import cache
from pathlib import Path

import diffusers.schedulers
import numpy as np
import pytest

import fewstep as fs
from fewstep.measure.impulse import impulse

from .catalogue import peers
from .departures import DEPARTURES, NOT_COMPARED, departure_of, sampler_of
from .diffusers_cases import SCHEDULES
from .diffusers_peer import diffusers_response
from .hosted_report import without
from .k_diffusion_peer import k_diffusion_sampling
from .report import BARS, Verdict, page, verdict

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
PEERS = list(peers())
STABLE_DIFFUSION = SCHEDULES["scaled_linear"]


@cache
def outcome(name: str, precision: str) -> list[Verdict]:
    return [verdict(peer) for peer in PEERS if (sampler_of(peer), peer.precision) == (name, precision)]


@pytest.mark.parametrize(("name", "precision"), sorted({(sampler_of(peer), peer.precision) for peer in PEERS}))
def test_tables_are_equal_or_a_named_departure_really_shows(name: str, precision: str) -> None:
    wrong = [(v.peer.name, v.ours, v.difference, v.bound, v.error) for v in outcome(name, precision) if not v.ok]
    assert wrong == []


def test_no_bound_is_above_the_bar() -> None:
    for peer in PEERS:
        for v in outcome(sampler_of(peer), peer.precision):
            assert v.departure or v.bound <= BARS[peer.precision]


def test_every_departure_covers_a_case_and_says_why() -> None:
    covered = Counter(departure.name for peer in PEERS if (departure := departure_of(peer)))
    assert set(covered) == {departure.name for departure in DEPARTURES}
    assert all(departure.reason for departure in DEPARTURES)
    assert covered.total() < 0.15 * len(PEERS)


def test_only_rounding_departs_in_float32_and_not_in_float64() -> None:
    for peer in PEERS:
        departure = departure_of(peer)
        if departure and departure.kind == "rounding":
            assert peer.precision == "float32"


def test_every_sampler_of_the_peers_is_compared_or_listed_with_a_reason() -> None:
    schedulers = {name for name in dir(diffusers.schedulers) if name.endswith("Scheduler")}
    samplers = {name for name in vars(k_diffusion_sampling()) if name.startswith("sample_")}
    compared = {
        f"sample_{sampler_of(peer)}" if "function" in peer.settings else f"{sampler_of(peer)}Scheduler"
        for peer in PEERS
    }
    assert schedulers | samplers == compared | set(NOT_COMPARED)
    assert not compared & set(NOT_COMPARED)


def test_every_case_has_its_own_name_in_each_precision() -> None:
    names = Counter((peer.name, peer.precision) for peer in PEERS)
    assert max(names.values()) == 1
    assert len(names) > 1400


def test_the_page_is_up_to_date() -> None:
    now = page([v for peer in PEERS for v in outcome(sampler_of(peer), peer.precision) if v.peer is peer])
    assert without(PAGE.read_text(encoding="utf-8")) == now, "run `python docs/generate_conformance.py`"


def test_another_option_is_another_table() -> None:
    """The comparison can fail: a step of `heun` weighs the second-order term otherwise than one of `midpoint`."""
    peer = next(p for p in PEERS if p.name.startswith("k_diffusion:dpmpp_2m_sde-solver_type=heun-eta=0.5-3"))
    sigmas = peer.settings["sigmas"]
    theirs = peer.response().states
    schedule = fs.schedules.edm(sigma_max=100.0)
    for variant, equal in (("heun", True), ("midpoint", False)):
        options = {"variant": variant, "eta": 0.5, "lower_order_final": False}
        ours = impulse(fs.compile("sde-dpmpp-2m", schedule=schedule, sigmas=sigmas, **options)).states
        assert np.allclose(ours, theirs, rtol=0, atol=1e-9) is equal


# --- what the page says of peers that have no table ---------------------------------------------------------


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "DPMSolverMultistepInverse"])
def test_a_repeated_last_sigma_is_nan_at_order_three(name: str) -> None:
    grids = {
        "DPMSolverMultistep": {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        "DPMSolverMultistepInverse": {"timestep_spacing": "trailing"},
    }
    config = STABLE_DIFFUSION | grids[name] | {"solver_order": 3}
    table = diffusers_response(name, config, steps=20, precision="float32")
    assert np.isfinite(table.inputs).all()
    assert np.isnan(table.final).any()


def test_unipc_in_the_noise_is_nan_at_sigma_zero() -> None:
    table = diffusers_response("UniPCMultistep", STABLE_DIFFUSION | {"predict_x0": False}, steps=5)
    assert np.isnan(table.final).any()
