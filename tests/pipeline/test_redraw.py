"""Recipes of prompts: pictures that draw themselves again, and recipes from elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep.pipeline import TextPipeline, load, read
from fewstep.pipeline.recipe import recipe_from_json

from .conftest import Model

Models = Callable[..., Model]
QUICK: dict[str, Any] = {"steps": 2, "height": 16, "width": 16}


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_a_saved_picture_is_drawn_again_to_the_same_pixels(models: Models, tmp_path: Path, name: str) -> None:
    pipe = models(name).native
    guided: dict[str, Any] = {} if pipe.distilled else {"negative": ["blue", "lion"], "guidance": 3.0}
    images = pipe(
        ["a red circle", "green \u2713 square\nabove"],
        seed=9,
        batch=1,
        tiled=True,
        height=32,
        width=16,
        steps=3,
        **guided,
    )
    stamp = read(images.save(tmp_path / "x.png"))
    recipe: Any = stamp.recipe
    assert recipe == images.recipe
    assert (recipe.prompts[1], recipe.height, recipe.model_digest) == ("green \u2713 square\nabove", 32, pipe.digest)
    assert recipe.negatives == (("blue", "lion") if guided else (None,))
    again = load(models(name).folder).redraw(recipe)
    assert torch.equal(again.tensor, images.tensor)
    assert again.digest == stamp.made.pixels


def test_one_of_several_is_drawn_again_from_its_own_file(models: Models, tmp_path: Path) -> None:
    sd: TextPipeline = models("sd").native
    images = sd(["red circle", "blue lion", "green square"], batch=2, **QUICK)
    paths = images.save_each(tmp_path)
    assert [path.name for path in paths] == ["0000-red-circle.png", "0001-blue-lion.png", "0002-green-square.png"]
    again = sd.redraw(read(paths[1]).recipe)
    assert torch.equal(again.tensor, images.tensor[1:2])
    with Image.open(paths[1]) as picture:
        assert np.array_equal(np.asarray(picture), images.pixels[1])


def test_recipes_of_another_kind_are_refused(models: Models, pipe: fs.Pipeline) -> None:
    recipe = pipe([0], steps=2).recipe
    sd = models("sd").native
    with pytest.raises(fs.InvalidInput, match="drawn by the model 'tiny'"):
        sd.redraw(recipe)
    images = sd("lion", **QUICK)
    with pytest.raises(fs.InvalidInput, match="drawn by the model 'sd'"):
        pipe.redraw(images.recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts is .*; it has to be a list of 2 to 2 texts"),
        ({"prompts": ["a"]}, "a list of 2 to 2 texts"),
        ({"prompts": ["a", 3]}, "a list of 2 to 2 texts"),
        ({"prompts": ["a", "b" * 600_000]}, "texts of at most 500000 characters"),
        ({"prompts": ["a" * 300_000, "b" * 300_000]}, "more than 500,000 characters"),
        ({"negatives": "blue"}, "a list of texts or nulls"),
        ({"negatives": [None, "a", "b"]}, "a list of 1 to 2 texts"),
        ({"negatives": [4]}, "a list of 1 to 2 texts"),
        ({"height": 0}, "height is 0; it has to be a whole number from 1 to 16384"),
        ({"width": 16.5}, "width is 16.5"),
        ({"clip_skip": "1"}, "clip_skip is '1'"),
        ({"tiled": 1}, "tiled is 1; it has to be true or false"),
        ({"extra": 1}, r"unknown \['extra'\]"),
        ({"labels": [None]}, "prompts is .*; it has to be a list of 1 to 1 texts"),
    ],
)
def test_a_hostile_recipe_is_refused_by_field(models: Models, changes: dict[str, Any], message: str) -> None:
    content = models("sd").native(["lion", "red"], **QUICK).recipe.to_json()
    assert recipe_from_json(content).to_json() == content
    with pytest.raises(fs.InvalidInput, match=message):
        recipe_from_json({**content, **changes})


def test_a_recipe_cannot_ask_for_what_the_model_cannot_make(models: Models) -> None:
    sd = models("sd").native
    content = sd("lion", **QUICK).recipe.to_json()
    for changes, message in (({"height": 17}, "height is 17"), ({"clip_skip": 50}, "clip_skip must be")):
        with pytest.raises(fs.InvalidInput, match=message):
            sd.redraw(recipe_from_json({**content, **changes}))
