"""One `Model` for every checkpoint: what differs lies in its parts, which all answer the same questions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.models import Model
from fewstep.models.model import ImageSizes
from fewstep.pipeline import Pipeline, load

from .tiny_diffusers import FAMILIES, Twins

Models = Callable[..., Twins]
NEUTRAL: dict[str, tuple[str, tuple[Any, ...]]] = {"dit": ("labels", tuple(range(1000))), "ddpm": ("labels", (None,))}
"""By family: the field that says what to draw, and what is drawn where nobody says it."""


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_a_model_with_the_same_parts(models: Models, name: str) -> None:
    pipe = models(name).native
    model = pipe.model
    assert type(pipe) is Pipeline
    assert type(model) is Model
    field, subjects = NEUTRAL.get(name, ("prompts", ()))
    assert (model.conditioner.field, model.conditioner.subjects) == (field, subjects)
    order = pipe.order("a lion" if field == "prompts" else [subjects[0]])
    drawing = order.drawing
    assert (drawing.height, drawing.width) == (model.sizes.height, model.sizes.width) == pipe.pixel_shape()[1:]
    assert drawing.guidance.scale == model.conditioner.usual_scale == model.recommended["guidance"]["scale"]
    assert fs.Drawing.read(drawing.text) == drawing
    assert order.plan == pipe.plan() == drawing.sampling.compile(pipe.schedule_at())
    assert order.run.batch == model.batch
    assert model.module is not None
    channels, height, width = pipe.state_shape()
    assert (channels, height * model.codec.factor) == (model.sizes.channels, model.sizes.height)
    pictures = pipe.decode(torch.zeros(2, channels, height, width))
    assert (tuple(pictures.shape), pictures.dtype) == ((2, *pipe.pixel_shape()), torch.float32)
    assert pipe.value_range == model.codec.value_range == (-1.0, 1.0)


def test_a_callable_and_a_trained_file_are_models_too(pipe: Pipeline) -> None:
    spec = fs.NetworkSpec(fs.schedules.flow(), "flow", (3, 8, 8), classes=4)
    for found, classes in ((load(lambda x, t, label: x, spec=spec), 4), (pipe, 3)):
        assert type(found.model) is Model
        assert found.model.conditioner.subjects == tuple(range(classes))
        assert found.model.digest == found.model.weights == found.model.identity.weights


def test_sizes_are_refused_by_name_with_what_is_allowed() -> None:
    fixed, free = ImageSizes(3, 8, 8), ImageSizes(4, 64, 64, factor=8, multiple=16, most=128)
    fixed.check("tiny", 8, 8)
    free.check("sd", 128, 16)
    for sizes, size, message in (
        (fixed, (8, 9), "tiny makes only images of 8 x 8 pixels: leave the size out"),
        (free, (64, 72), "width is 72; tiny makes multiples of 16 up to 128 pixels"),
        (free, (144, 64), "height is 144"),
        (free, (0, 64), "height is 0"),
        (free, (True, 64), "height is True"),
        (replace(free, most=1 << 20), (1 << 14, 1 << 13), "more than 67,108,864: use fewer"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            sizes.check("tiny", *size)


def test_conditions_are_placed_in_the_dtype_but_for_whole_numbers_and_the_told_scale(models: Models) -> None:
    model = replace(models("sd").native.model, dtype=torch.bfloat16)
    rows = [
        {"text": torch.zeros(1, 2), "mask": torch.ones(1, 2, dtype=torch.long), "guidance": torch.tensor([7.5])}
    ] * 2
    placed = model.placed(rows)
    assert {name: value.dtype for name, value in placed.items()} == {
        "text": torch.bfloat16,
        "mask": torch.long,
        "guidance": torch.float32,
    }
    assert placed["text"].shape == (2, 2)


def test_the_shift_of_a_flow_grows_with_the_image(models: Models) -> None:
    flux = models("flux").native
    small, large = flux.schedule_at(32, 32), flux.schedule_at(64, 64)
    assert 1 < small.spec["shift"] < large.spec["shift"]
    assert flux.plan("euler", steps=2, height=64, width=64).recipe.schedule == large.spec
    sd3 = models("sd3").native
    assert sd3.schedule_at(16, 16) is sd3.model.schedule
