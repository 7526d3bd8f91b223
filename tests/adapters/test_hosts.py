"""Whose configuration it is: the class of the host, whether its times are understood, and what another class left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .tiny import SD

INVERSE = (diffusers.DDIMInverseScheduler, diffusers.DPMSolverMultistepInverseScheduler)
UNKNOWN = (
    diffusers.MiniMaxH3Scheduler,
    diffusers.PiflowScheduler,
    diffusers.SCMScheduler,
    diffusers.KarrasVeScheduler,
    diffusers.IPNDMScheduler,
)


@pytest.mark.parametrize("sampler", [None, "dpmpp-2m", "euler"])
@pytest.mark.parametrize("kind", [*INVERSE, *UNKNOWN])
def test_a_host_whose_times_or_direction_are_not_known_is_refused_by_name(kind: Any, sampler: str | None) -> None:
    message = "runs from data to noise" if kind in INVERSE else "does not know the times"
    for config in (kind(), {**kind().config, "_class_name": kind.__name__}, kind().config):
        with pytest.raises(fs.InvalidInput, match=f"{kind.__name__}.*") as raised:
            PlanScheduler.from_config(config, sampler=sampler)
        assert message in str(raised.value)


@pytest.mark.parametrize("sampler", [None, "dpmpp-2m", "heun"])
def test_stable_audio_is_told_the_times_that_its_network_knows(sampler: str | None) -> None:
    theirs = diffusers.CosineDPMSolverMultistepScheduler()
    ours = PlanScheduler.from_config(theirs, sampler=sampler)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(4)
    told = ours.timesteps if sampler != "heun" else ours.timesteps[[0, 1, 3, 5]]
    assert np.allclose(told, theirs.timesteps, atol=1e-6)
    assert ours.init_noise_sigma == pytest.approx(theirs.init_noise_sigma, rel=1e-6)
    assert (ours.timesteps[0], ours.timesteps[-1]) == (
        pytest.approx(0.998727, abs=1e-5),
        pytest.approx(0.18555, abs=1e-5),
    )


def test_left_overs_in_the_configuration_of_another_class_are_not_ones_own(tmp_path: Path) -> None:
    own = diffusers.EulerDiscreteScheduler(**SD)
    ours = PlanScheduler.from_config(own, sampler="unipc-3", grid="karras")
    dpm = diffusers.DPMSolverMultistepScheduler.from_config(ours.config)
    dpm.save_pretrained(tmp_path)
    saved = diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path)
    for config in (dpm, dpm.config, saved, saved.config, diffusers.DPMSolverMultistepScheduler.load_config(tmp_path)):
        again, named = PlanScheduler.from_config(config), PlanScheduler.from_config(config, sampler="ddim")
        assert (again.config["sampler"], again.config["grid"], again.config["options"]["variant"]) == (
            "dpmpp-2m", None, "midpoint",
        )  # fmt: skip
        assert (named.config["grid"], named.config["options"], named.config["host"]) == (None, {}, "DPMSolverMultistep")


def test_the_way_back_through_the_same_class_keeps_nothing_of_ours() -> None:
    own = diffusers.EulerDiscreteScheduler(**SD, use_karras_sigmas=True)
    ours = PlanScheduler.from_config(own, sampler="unipc-3", grid="exponential", init_noise="entry")
    back = diffusers.EulerDiscreteScheduler.from_config(ours.config)
    again = PlanScheduler.from_config(back.config)
    assert (again.config["sampler"], again.config["grid"], again.config["init_noise"]) == ("euler", None, "diffusers")
    assert again.config["use_karras_sigmas"] is True


def test_another_class_made_from_ours_skips_what_were_only_defaults_as_it_does_from_the_host() -> None:
    own = diffusers.DDPMScheduler()  # clips by default, which DDIM does too, and "leading" is the default of both
    ours = PlanScheduler.from_config(own, sampler="unipc-3")
    direct = diffusers.DPMSolverMultistepScheduler.from_config(own.config)
    through = diffusers.DPMSolverMultistepScheduler.from_config(ours.config)
    assert through.config["timestep_spacing"] == direct.config["timestep_spacing"] == "linspace"


def test_ones_own_configuration_is_known_in_memory_in_a_file_and_as_a_plain_mapping(tmp_path: Path) -> None:
    ours = PlanScheduler.from_config(diffusers.DDIMScheduler(**SD), sampler="unipc-3", grid="karras")
    ours.save_pretrained(tmp_path)
    for config in (ours, ours.config, {**ours.config}, PlanScheduler.load_config(tmp_path)):
        again = PlanScheduler.from_config(config)
        assert (again.config["sampler"], again.config["grid"], again.config["host"]) == ("unipc-3", "karras", "DDIM")
    assert torch.equal(again.alphas_cumprod, ours.alphas_cumprod)
