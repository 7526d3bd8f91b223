"""Inversion and editing: what comes back, how near, and what cannot be inverted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep import InvalidInput
from fewstep.drawing import read
from fewstep.pipeline import Pipeline, load
from fewstep.pipeline.inversion import psnr
from fewstep.run.eager import Cancelled
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, latents, picture, sd

__all__ = ["latents", "sd"]
Models = Callable[..., Twins]


@pytest.fixture
def tame(sd: Pipeline) -> Pipeline:
    """A network that knows its data, a Gaussian of variance 0.3, but for a tenth of what a random one says."""
    model = sd.model
    schedule, random = model.schedule, model.network

    def network(x: torch.Tensor, t: torch.Tensor, **condition: Any) -> torch.Tensor:
        alpha, sigma = (
            torch.from_numpy(f(t.double().numpy())).float().reshape(-1, 1, 1, 1)
            for f in (schedule.alpha, schedule.sigma)
        )
        return sigma * x / (0.3 * alpha**2 + sigma**2) + 0.1 * alpha * random(x, t, **condition)

    return Pipeline(replace(model, network=network))


def test_ddim_comes_back_to_30_decibels_in_50_steps_and_is_of_first_order(tame: Pipeline) -> None:
    found = tame.invert(picture(), "a red circle", **SIZE)
    assert (len(found.up.rows), len(found.down.rows)) == (50, 50)
    assert found.psnr_latents > 30
    fine = tame.invert(picture(), "a red circle", steps=200, **SIZE)
    assert fine.psnr_latents - found.psnr_latents == pytest.approx(20 * np.log10(4), abs=1.5)
    assert found.psnr_pixels == pytest.approx(found.psnr_vae, abs=0.5)  # of this VAE little comes back


@pytest.mark.parametrize("name", ["sd", "sd2", "sd3"])
def test_an_invertible_sampler_comes_back_to_rounding(models: Models, name: str) -> None:
    native = load(models(name).folder)
    found = native.invert(picture(), "a red circle", sampler="belm", **SIZE)
    assert len(found.noise) == 2
    assert found.error < 1e-4
    assert found.error < native.invert(picture(), "a red circle", **SIZE).error


def test_figures_are_of_what_is_there(sd: Pipeline, tmp_path: Path) -> None:
    found = sd.invert(picture(), "lion", steps=10, **SIZE)
    assert found.psnr_latents == pytest.approx(
        10 * np.log10(float(np.ptp(found.latents.numpy()) ** 2 / ((found.found - found.latents) ** 2).mean()))
    )
    assert found.psnr_pixels == pytest.approx(10 * np.log10(4 / float(((found.drawn - found.pixels) ** 2).mean())))
    through = sd.decode(found.latents).clamp(-1, 1)
    assert found.psnr_vae == pytest.approx(psnr(through, found.pixels, 2.0))
    assert found.error == float((found.found - found.latents).abs().max())
    assert psnr(found.pixels, found.pixels, 2.0) == float("inf")
    again = fs.sample(found.down, sd.denoiser("lion", guidance=1.0, **SIZE), start=found.noise[0])
    assert torch.allclose(again.float(), found.found, atol=1e-6)
    with Image.open(found.save(tmp_path / "both.png")) as both:
        assert both.size == (2 * 24 + 3, 16 + 2)


def test_the_way_up_visits_the_times_of_the_way_down(sd: Pipeline) -> None:
    found = sd.invert(picture(), "lion", steps=6, sampler="belm", **SIZE)
    assert found.up.recipe.times == found.down.recipe.times[::-1]
    assert (found.down.recipe.times[0], found.down.recipe.times[-1]) == (999.0, 0.0)
    given = sd.invert(picture(), "lion", sampling={"times": [800, 300, 20, -1]}, **SIZE)
    assert given.down.recipe.times == (800.0, 300.0, 20.0)


def test_each_row_of_both_runs_is_seen_and_may_stop_it(sd: Pipeline) -> None:
    rows: list[int] = []
    sd.invert(picture(), "lion", steps=3, on_row=lambda row: rows.append(row.index), **SIZE)
    assert rows == [0, 1, 2, 0, 1, 2]
    with pytest.raises(Cancelled, match="cancelled after 1 of 3"):
        sd.invert(picture(), "lion", steps=3, on_row=lambda row: True, **SIZE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sampler": "euler-a"}, "draws noise on its way"),
        ({"sampler": "ddim", "sampling": {"options": {"eta": 0.5}}}, "draws noise on its way"),
        ({"sampling": {"times": [500, -1]}}, "at least 2 noisy times"),
        ({"sampler": "ddin"}, "did you mean 'ddim'"),
        ({"prompt": ["a", "b"]}, "one picture has one prompt"),
        ({"fit": "exact", "height": 8}, "24 x 16 pixels and 24 x 8"),
    ],
)
def test_what_cannot_be_inverted_is_refused(sd: Pipeline, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        sd.invert(picture(), **{**SIZE, **wrong})
    if "prompt" not in wrong:
        with pytest.raises(InvalidInput, match=words):
            sd.edit(picture(), "lion", "circle", **{**SIZE, **wrong})


def test_a_plan_alone_cannot_be_inverted(sd: Pipeline) -> None:
    plan = fs.compile("ddim", schedule=sd.model.schedule, steps=4)
    with pytest.raises(InvalidInput, match="give its name and its grid"):
        sd.edit(picture(), "lion", "circle", sampler=plan, **SIZE)


@pytest.mark.parametrize("sampler", ["ddim", "belm"])
def test_an_edit_with_the_same_words_is_the_picture_and_with_others_is_not(
    sd: Pipeline, latents: list[torch.Tensor], sampler: str
) -> None:
    settings: dict[str, Any] = {"sampler": sampler, "steps": 20, **SIZE}
    found = sd.invert(picture(), "a red circle", **settings).found
    latents.clear()
    sd.edit(picture(), "a red circle", "a red circle", guidance=1.0, **settings)
    images = sd.edit(picture(), "a red circle", ["blue square", "green lion"], guidance=3.0, batch=2, **settings)
    assert (latents[0] - found).abs().max() < 1e-6
    assert (latents[1] - found).abs().flatten(1).amax(dim=1).min() > 1e-3
    assert (latents[1][0] - latents[1][1]).abs().max() > 1e-3
    assert images.drawing.source is not None
    assert (images.drawing.source.prompt, len(images)) == ("a red circle", 2)


def test_less_strength_keeps_more(sd: Pipeline, latents: list[torch.Tensor]) -> None:
    away = []
    for strength in (0.2, 1.0):
        sd.edit(picture(), "a red circle", "blue square", strength=strength, steps=10, guidance=5.0, **SIZE)
        known = sd.invert(picture(), "a red circle", steps=10, **SIZE).latents
        away.append(float((latents[-3] - known).abs().mean()))
    assert away[0] < away[1]


def test_an_edit_is_drawn_again_from_its_file(sd: Pipeline, tmp_path: Path) -> None:
    images = sd.edit(picture(), "a red circle", "lion", steps=5, guidance=3.0, **SIZE)
    assert set(images.timings) == {"picture", "invert", "encode", "denoise", "decode"}
    stamp = read(images.save(tmp_path / "out.png"))
    assert sd.redraw(stamp, image=picture()).digest == stamp.made.pixels
    with pytest.raises(InvalidInput, match="give the picture, and no mask"):
        sd.redraw(stamp, image=picture(), mask=picture())
