"""Pictures of prompts draw themselves again, and say why where they cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep.drawing import Stamp, read
from fewstep.pipeline import Pipeline, Run, load
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]


def told(pipe: Pipeline) -> bool:
    conditioner: Any = pipe.model.conditioner
    return conditioner.facts.distilled


QUICK: dict[str, Any] = {"steps": 2, "height": 16, "width": 16}


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_a_saved_picture_is_drawn_again_to_the_same_pixels(models: Models, tmp_path: Path, name: str) -> None:
    pipe = models(name).native
    guided: dict[str, Any] = {} if told(pipe) else {"negative": ["blue", "lion"], "guidance": 3.0}
    images = pipe(
        ["a red circle", "green \u2713 square\nabove"],
        seed=9,
        batch=1,
        decode=fs.Decode(tiled=True),
        height=32,
        width=16,
        steps=3,
        **guided,
    )
    stamp = read(images.save(tmp_path / "x.png"))
    drawing = stamp.drawing
    assert drawing == images.drawing
    assert (drawing.subjects[1], drawing.height) == ("green \u2713 square\nabove", 32)
    assert stamp.made.model_digest == pipe.model.digest
    assert drawing.negative == (("blue", "lion") if guided else (None,))
    again = load(models(name).folder).redraw(stamp)
    assert torch.equal(again.tensor, images.tensor)
    assert again.digest == stamp.made.pixels


def test_one_of_several_is_drawn_again_from_its_own_file(models: Models, tmp_path: Path) -> None:
    sd: Pipeline = models("sd").native
    images = sd(["red circle", "blue lion", "green square"], batch=2, **QUICK)
    paths = images.save_each(tmp_path)
    assert [path.name for path in paths] == ["0000-red-circle.png", "0001-blue-lion.png", "0002-green-square.png"]
    again = sd.redraw(read(paths[1]))
    assert torch.equal(again.tensor, images.tensor[1:2])
    with Image.open(paths[1]) as picture:
        assert np.array_equal(np.asarray(picture), images.pixels[1])


def test_recipes_of_another_kind_are_refused(models: Models, pipe: fs.Pipeline) -> None:
    picture = pipe([0], steps=2)
    sd = models("sd").native
    with pytest.raises(fs.InvalidInput, match="drawn by the model 'tiny'"):
        sd.redraw(picture)
    images = sd("lion", **QUICK)
    with pytest.raises(fs.InvalidInput, match="drawn by the model 'sd'"):
        pipe.redraw(images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts has to have at least 1 item"),
        ({"prompts": ["a", 3]}, r"prompts\.1 has to be a valid string, got 3"),
        ({"prompts": ["a", "b" * 20_001]}, r"prompts\.1 .* at most 20000 characters"),
        ({"prompts": ["a" * 20_000] * 26}, "more than 500,000 characters"),
        ({"negative": "blue"}, "negative has to be a valid tuple, got 'blue'"),
        ({"negative": [None, "a", "b"]}, "one for each of the 2 subjects, got 3"),
        ({"negative": [4.5]}, r"negative\.0"),
        ({"height": 0}, "height has to be greater than or equal to 1, got 0"),
        ({"width": 16.5}, "width .*, got 16.5"),
        ({"clip_skip": "1"}, "clip_skip has to be a valid integer, got '1'"),
        ({"decode": {"tiled": 1, "sliced": False}}, r"decode\.tiled has to be a valid boolean, got 1"),
        ({"extra": 1}, "unknown field of the drawing 'extra'"),
        ({"labels": [None]}, "prompts, or labels, and not both"),
    ],
)
def test_a_hostile_drawing_is_refused_by_field(models: Models, changes: dict[str, Any], message: str) -> None:
    content = models("sd").native.order(["lion", "red"], **QUICK).drawing.to_json()
    assert fs.Drawing.of(content).to_json() == content
    with pytest.raises(fs.InvalidInput, match=message):
        fs.Drawing.of({**content, **changes})


def test_a_drawing_cannot_ask_for_what_the_model_cannot_make(models: Models) -> None:
    sd = models("sd").native
    images = sd("lion", **QUICK)
    for changes, message in (({"height": 17}, "height is 17"), ({"clip_skip": 50}, "clip_skip must be")):
        drawing = images.drawing.but(**changes)
        with pytest.raises(fs.InvalidInput, match=message):
            sd.redraw(images.stamp().but(drawing=drawing))
        with pytest.raises(fs.InvalidInput, match=message):
            sd.draw(drawing)


def test_a_complete_drawing_is_drawn_as_the_call_that_made_it(models: Models) -> None:
    sd = models("sd").native
    images = sd(["lion", "red"], negative="blue", seed=5, batch=2, **QUICK)
    again = sd.draw(fs.Drawing.read(images.drawing.text), run=Run(2))
    assert torch.equal(again.tensor, images.tensor)
    assert again.drawing.digest == images.drawing.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 7]}, "no label 7"),
        ({"negative": [7]}, "no label 7"),
        ({"height": 5}, "tiny makes only images of 4 x 4 pixels"),
        (
            {"sampling": {"sampler": "ddim", "steps": 2, "grid": "trailing", "options": {"nonsense": 1}}},
            "unknown option",
        ),
        ({"labels": None, "prompts": ["a", "b"]}, "draws classes"),
        ({"clip_skip": 1}, "needs a model that takes prompts"),
    ],
)
def test_a_sound_recipe_that_cannot_be_drawn_says_why(pipe: Pipeline, changes: dict[str, Any], message: str) -> None:
    images = pipe([0, 1], steps=2)
    stamp = images.stamp()
    edited = Stamp.of({**stamp.to_json(), "drawing": {**stamp.drawing.to_json(), **changes}})
    with pytest.raises(fs.InvalidInput, match=message):
        pipe.redraw(edited)
    with pytest.raises(fs.InvalidInput, match=r"keep must name some of the images 0 \.\. 1"):
        pipe.redraw(stamp.but(made=stamp.made.but(keep=(2,))))
