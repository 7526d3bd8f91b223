"""What pipelines hand to `step`: honoured as their own scheduler does, or refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .pipelines import PIPELINES, draw
from .tiny import SD

CONFIG = {**SD, "prediction_type": "epsilon"}


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(("kind", "sampler"), [(diffusers.DDIMScheduler, "ddim"), (diffusers.TCDScheduler, "tcd")])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_pipelines_eta_does_what_it_does_with_its_own_scheduler(kind: Any, sampler: str, eta: float) -> None:
    own = kind.from_config(PIPELINES["StableDiffusion"][0]().scheduler.config, clip_sample=False)
    for ours in (PlanScheduler.from_config(own), PlanScheduler.from_config(own, sampler=sampler)):
        theirs = draw("StableDiffusion", own, eta=eta)
        assert apart(draw("StableDiffusion", ours, eta=eta), theirs) < 1e-5
        assert apart(draw("StableDiffusion", ours, eta=0.2), theirs) > 1e-3


def test_an_eta_of_the_scheduler_stays_where_the_pipeline_gives_its_default() -> None:
    own = PIPELINES["StableDiffusion"][0]().scheduler
    fixed = PlanScheduler.from_config(own, sampler="ddim", eta=0.5)
    assert torch.equal(draw("StableDiffusion", fixed), draw("StableDiffusion", fixed, eta=0.5))
    assert apart(draw("StableDiffusion", fixed), draw("StableDiffusion", own, eta=0.5)) < 1e-5
    with pytest.raises(fs.InvalidInput, match=r"the call gives eta=1\.0, and the scheduler was made with eta=0\.5"):
        draw("StableDiffusion", fixed, eta=1.0)


def test_an_eta_that_a_sampler_takes_from_the_start_only_is_refused_in_a_call() -> None:
    own = PIPELINES["StableDiffusion"][0]().scheduler
    ancestral = PlanScheduler.from_config(own, sampler="euler-a")
    assert torch.equal(draw("StableDiffusion", ancestral), draw("StableDiffusion", ancestral, eta=1.0))  # its own
    plan = fs.compile("ddim", schedule=fs.schedules.from_diffusers(own.config), steps=4)
    for scheduler in (
        ancestral, PlanScheduler.from_config(own, sampler="unipc-3"), PlanScheduler.from_plan(plan, own),
    ):  # fmt: skip
        with pytest.raises(fs.InvalidInput, match=r"step does not take eta=0.5"):
            draw("StableDiffusion", scheduler, eta=0.5)


def stepped(scheduler: Any, **more: Any) -> torch.Tensor:
    scheduler.set_timesteps(5)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        x = scheduler.step(torch.tanh(x), t, x, **more).prev_sample
    return x


def test_eta_may_change_from_step_to_step() -> None:
    own, results = diffusers.DDIMScheduler(**SD, clip_sample=False), []
    for scheduler in (own, PlanScheduler.from_config(own)):
        scheduler.set_timesteps(5)
        x, generator = torch.ones(1, 3, 4, 4), torch.Generator().manual_seed(1)
        for eta, t in zip((0.0, 1.0, 0.5, 0.0, 0.2), scheduler.timesteps, strict=True):
            x = scheduler.step(torch.tanh(x), t, x, eta=eta, generator=generator).prev_sample
        results.append(x)
    assert apart(*results) < 1e-5


def test_the_noise_may_be_taken_from_the_clipped_estimate() -> None:
    own = diffusers.DDIMScheduler(**SD, clip_sample=True)
    ours = PlanScheduler.from_config(own)
    plain, clipped = (stepped(own, use_clipped_model_output=on) for on in (False, True))
    assert apart(stepped(ours, use_clipped_model_output=True), clipped) < 1e-5
    assert apart(plain, clipped) > 1e-3
    with pytest.raises(fs.InvalidInput, match="is for sampler='ddim'"):
        stepped(PlanScheduler.from_config(own, sampler="unipc-3"), use_clipped_model_output=True)


@pytest.mark.parametrize(
    ("own", "more"),
    [
        (diffusers.DDIMScheduler(**SD, clip_sample=False), {"eta": 1.0}),
        (diffusers.DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++"), {}),
    ],
)
def test_noise_that_is_given_takes_the_place_of_drawn_noise(own: Any, more: dict[str, Any]) -> None:
    z = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    ours = PlanScheduler.from_config(own)
    assert apart(stepped(ours, variance_noise=z, **more), stepped(own, variance_noise=z, **more)) < 1e-5
    with pytest.raises(fs.InvalidInput, match="variance_noise has the shape"):
        stepped(ours, variance_noise=z[..., :2], **more)


@pytest.mark.parametrize(
    ("sampler", "more", "message"),
    [
        ("lms-3", {"order": 4}, "sampler='lms-4'"),
        ("euler", {"order": 2}, "sampler='lms-2'"),
        ("euler", {"s_churn": 4.0}, r"step does not take s_churn=4.0"),
        ("euler", {"per_token_timesteps": torch.ones(3)}, "per_token_timesteps"),
        ("euler", {"eta": -1.0}, r"step does not take eta=-1.0"),
        ("ddim", {"eta": 1.5}, "eta must lie in"),
        ("ddim", {"etaa": 1.0}, "did you mean 'eta'"),
    ],
)
def test_an_argument_that_asks_for_something_else_is_refused(sampler: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        stepped(PlanScheduler.from_config(CONFIG, sampler=sampler), **more)


def test_arguments_at_the_values_that_ask_for_nothing_do_nothing() -> None:
    idle = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": float("inf"), "s_noise": 1.0, "per_token_timesteps": None}
    lms = PlanScheduler.from_config(CONFIG, sampler="lms-3")
    assert torch.equal(stepped(lms, **idle, eta=0.0, order=3), stepped(lms))
