"""Students that are told the guidance scale, and latent consistency students, as models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.distillation import (
    Adapter,
    GuidanceInput,
    LatentConsistency,
    Progressive,
    Regression,
    Settings,
    Source,
    distill,
)
from fewstep.run.noise import key_of, unit_noise
from models import tiny
from models.test_families import PROMPTS, SIZE, apart, noise
from models.tiny_diffusers import write

from .test_lora import drawn_by

QUICK = Settings(steps=20, batch=16, rate=5e-3, state_every=10, log_every=10)
SOURCE = Source(count=32, steps=4, held_out=16, guidance=2.0)
WORDS = Source(subjects=("red circle", "blue square"), count=16, held_out=16, steps=3, guidance=3.0)
FEW = Settings(steps=4, batch=8, rate=5e-3, state_every=4, log_every=4)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of a model of classes that is told guidance from 1 to 4."""
    folder = tmp_path_factory.mktemp("told")
    teacher = tiny.write(folder / "tiny.safetensors")
    return distill(teacher, GuidanceInput(highest=4, rows=3), folder / "run", settings=QUICK, source=SOURCE).path


def test_it_is_guided_at_one_evaluation_a_row(told: Path) -> None:
    pipe = fs.load(told)
    found = {scale: pipe([1], guidance=scale, seed=2) for scale in (1.0, 2.0, 3.0)}
    assert {images.nfe for images in found.values()} == {3}
    assert (found[3.0].tensor - found[1.0].tensor).abs().max() > 1e-4
    images = pipe([1], seed=2)
    assert images.drawing.guidance.scale == 2.0
    assert torch.equal(images.tensor, found[2.0].tensor)
    mixed = fs.sample(pipe.plan(), pipe.denoiser([1, 2], guidance=3.0), start=noise((2, 1, 4, 4)))
    alone = fs.sample(pipe.plan(), pipe.denoiser([2], guidance=3.0), start=noise((2, 1, 4, 4))[1:])
    assert torch.allclose(mixed[1:], alone, atol=1e-5)


@pytest.mark.parametrize(
    "asked",
    [
        {"guidance": 4.5},
        {"guidance": 0.5},
        {"negative": 0},
        {"guidance": fs.Guidance(2.0, interval=(0.1, 3.0))},
        {"guidance": fs.Guidance(2.0, true_cfg=3.0)},
    ],
)
def test_it_refuses_what_it_was_not_told_and_names_its_teacher(told: Path, asked: dict[str, Any]) -> None:
    said = (
        r"told its guidance scale, from 1 to 4, and has no negative branch: draw with guidance from 1 to 4 and no neg"
    )
    with pytest.raises(InvalidInput, match=said + ".*use its teacher, tiny, for other"):
        fs.load(told)([1], **asked)
    with pytest.raises(InvalidInput, match=r"student is told its guidance scale, and (was )?|told its guidance scale"):
        fs.load(told)([1], guidance=(2.0, 2.0, 3.0))


def test_progressive_halves_its_steps_and_it_is_still_told(told: Path, tmp_path: Path) -> None:
    source = replace(SOURCE, guidance=3.0, steps=None)
    found = distill(told, Progressive(begin=4, end=2), tmp_path / "run", settings=QUICK, source=source)
    pipe = fs.load(found.path)
    assert pipe([1], guidance=4.0).nfe == 2
    assert (pipe([1], guidance=4.0, seed=1).tensor - pipe([1], guidance=1.0, seed=1).tensor).abs().max() > 1e-4
    assert pipe.model.teacher is not None
    assert (pipe.model.teacher.name, pipe.model.teacher.scales) == ("tiny", (1.0, 4.0))
    with pytest.raises(InvalidInput, match="was distilled already: give the model that it was made from, or halve"):
        distill(told, Regression(), tmp_path / "other", settings=QUICK, source=source)


@pytest.mark.parametrize(
    ("method", "source", "options", "said"),
    [
        (GuidanceInput(), replace(SOURCE, guidance=1.0), {}, "at guidance 1 has none to learn from: give guidance abo"),
        (GuidanceInput(), replace(SOURCE, guidance=7.0), {}, "told guidance from 1 to 5, and the teacher's .* have 7"),
        (LatentConsistency(lowest=2, highest=4), replace(SOURCE, guidance=1.5), {}, "from 2 to 4, .* have 1.5"),
        (
            GuidanceInput(),
            SOURCE,
            {"adapter": Adapter(rank=2)},
            "as a new input needs weights of its own: leave the Lo",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_written(
    tmp_path: Path, method: Any, source: Source, options: dict[str, Any], said: str
) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    with pytest.raises(InvalidInput, match=said):
        distill(teacher, method, tmp_path / "run", settings=replace(FEW, **options), source=source)
    assert not (tmp_path / "run").exists()


def test_a_student_in_the_format_of_diffusers_is_told_the_scale_there_too(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    write("sd", tmp_path / "sd")
    found = distill(tmp_path / "sd", GuidanceInput(rows=3), tmp_path / "run", settings=FEW, source=WORDS)
    config = json.loads((found.path / "unet/config.json").read_text())
    assert config["time_cond_proj_dim"] == 256
    pipe, plan = fs.load(found.path), found.pipe.plan()
    assert pipe(PROMPTS[0], guidance=4.5).nfe == 3
    own = StableDiffusionPipeline.from_pretrained(found.path, safety_checker=None)
    start = noise((2, *pipe.state_shape(**SIZE)))
    for scale in (1.0, 4.5):
        ours = fs.sample(plan, pipe.denoiser(PROMPTS, guidance=scale, **SIZE), start=start)
        assert apart(ours, drawn_by(own, plan, scale)) < 1e-5


def test_lcm_scheduler_draws_with_the_lora_what_the_student_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At guidance 1, in four steps with the same noise between them."""
    from diffusers import LCMScheduler, StableDiffusionPipeline
    from diffusers.schedulers import scheduling_lcm

    write("sd", tmp_path / "sd")
    found = distill(
        tmp_path / "sd",
        LatentConsistency(),
        tmp_path / "run",
        settings=replace(FEW, adapter=Adapter(rank=4)),
        source=WORDS,
    )
    assert found.lora is not None
    pipe, plan, seeds = fs.load(found.path), found.pipe.plan(), [3, 4]
    assert [row.t for row in plan.rows] == [999.0, 759.0, 499.0, 259.0]
    start = noise((2, *pipe.state_shape(**SIZE)))
    ours = fs.sample(plan, pipe.denoiser(PROMPTS, guidance=1.0, **SIZE), start=start, seed=seeds)
    own = StableDiffusionPipeline.from_pretrained(tmp_path / "sd", safety_checker=None)
    own.set_progress_bar_config(disable=True)
    own.scheduler = LCMScheduler.from_config(own.scheduler.config)
    own.load_lora_weights(found.lora.parent)
    draws = iter([unit_noise(seeds, key_of(row.noise), start) for row in plan.rows if row.noise is not None])
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: next(draws))
    settings = {"num_inference_steps": 4, "output_type": "latent", "guidance_scale": 1.0}
    theirs = own(PROMPTS, latents=start, **settings, **SIZE).images
    assert apart(ours, theirs) < 1e-4
    assert next(draws, None) is None
