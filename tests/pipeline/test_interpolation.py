"""Interpolation: its ends, its way, its files, and wrong arguments."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import InvalidInput
from fewstep.pipeline import Pipeline, load
from fewstep.pipeline.images import pixels_of
from fewstep.pipeline.interpolation import slerp
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, sd

__all__ = ["sd"]
Models = Callable[..., Twins]
QUICK: dict[str, Any] = {"steps": 2, "guidance": 3.0, "batch": 1, **SIZE}


def test_a_great_circle_keeps_the_norm_and_turns_evenly() -> None:
    a, b = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2))
    a, b = a / a.norm(), b / b.norm()
    way = [slerp(a, b, u) for u in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert torch.allclose(way[0], a, atol=1e-7)
    assert torch.allclose(way[-1], b, atol=1e-7)
    for point in way:
        assert float(point.norm()) == pytest.approx(1, abs=1e-6)
    angles = [float((x * y).sum().double().arccos()) for x, y in pairwise(way)]
    assert angles == pytest.approx([angles[0]] * 4, abs=1e-4)
    assert torch.equal(slerp(a, a, 0.3), a)


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux", "pixart"])
def test_the_ends_are_what_the_model_draws(models: Models, name: str) -> None:
    native = load(models(name).folder)
    frames = native.interpolate(["a red circle", "blue square"], seeds=[3, 9], frames=3, **QUICK)
    assert frames.shares == (0.0, 0.5, 1.0)
    for frame, words, seed in ((0, "a red circle", 3), (2, "blue square", 9)):
        drawn = native(words, seed=seed, **QUICK)
        assert (frames.tensor[frame] - drawn.tensor[0]).abs().max() < 1e-5
        assert frames.nfe == drawn.nfe
    middle = frames.tensor[1]
    assert (middle - frames.tensor[0]).abs().max() > 1e-3
    assert (middle - frames.tensor[2]).abs().max() > 1e-3


def test_frames_do_not_depend_on_the_batch(sd: Pipeline) -> None:
    one, three = (
        sd.interpolate("lion", seeds=[1, 2], frames=5, **{**QUICK, "batch": batch, "sampler": "ddpm"}).tensor
        for batch in (1, 3)
    )
    assert (one - three).abs().max() < 1e-5


def test_frames_become_a_sheet_or_an_animation(sd: Pipeline, tmp_path: Path) -> None:
    frames = sd.interpolate("lion", seeds=[1, 2], frames=5, **QUICK)
    with Image.open(frames.save(tmp_path / "new" / "a.gif", milliseconds=50)) as moving:
        assert (moving.n_frames, moving.info["duration"], moving.size) == (5, 50, (24, 16))
    with Image.open(frames.save(tmp_path / "a.png", columns=3)) as sheet:
        assert sheet.size == ((3 * 25 + 1) * 2, (2 * 17 + 1) * 2)
    assert np.array_equal(np.asarray(frames.images[4]), pixels_of(frames.tensor, (-1, 1))[4])
    for path, options, words in [
        ("a.mp4", {}, "as .png or .gif"),
        ("a.gif", {"columns": 2}, "has no columns"),
        ("a.gif", {"milliseconds": 1}, "from 10 to 60000"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            frames.save(tmp_path / path, **options)


@pytest.mark.parametrize(
    ("prompts", "wrong", "words"),
    [
        ("lion", {}, "are the same"),
        (["lion", "lion"], {"seeds": [1, 1]}, "are the same"),
        (["a", "b", "c"], {}, "give one prompt, or two"),
        ("lion", {"seeds": [1, 2, 3]}, "give one seed, or two"),
        (["a", "b"], {"frames": 1}, "from 2 to 1000"),
        (["a", "b"], {"frames": 2.0}, "from 2 to 1000"),
        (["a", "b"], {"seeds": -1}, "seed"),
        ([], {}, "there are no prompts|give one prompt, or two"),
    ],
)
def test_ways_that_lead_nowhere_are_refused(sd: Pipeline, prompts: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        sd.interpolate(prompts, **{**QUICK, **wrong})
