"""The four stages: values in, values out, over any images, wherever they run."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.pipeline import Images, Order, Pipeline
from fewstep.pipeline.draw import draw
from fewstep.pipeline.stages import Conditioned, check, decode, denoise, denoiser_of, encode, start
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]
CALL: dict[str, Any] = {"sampler": "dpmpp-2m", "steps": 3, "guidance": 4.0, "height": 16, "width": 16}
PROMPTS = ["a red circle", "blue lion", "green square", "photo"]


def staged(pipe: Pipeline, order: Order, kept: Sequence[int]) -> torch.Tensor:
    """Some images of an order, stage by stage."""
    images = [list(order.drawing.each)[i] for i in kept]
    rows = encode(pipe.model, images, order.weaker)
    conditions = Conditioned.of(pipe.model, rows, order.weaker)
    denoiser = denoiser_of(
        pipe.model, order.drawing.guidance, conditions, order.plan, weaker=order.weaker, estimate=order.drawing.estimate
    )
    states = denoise(order, denoiser, images, start(pipe.model, order.plan, images))
    return decode(pipe.model, states, order.drawing)


def test_the_stages_one_after_the_other_are_the_call(models: Models) -> None:
    sd = models("sd").native
    order = sd.order(PROMPTS, negative=["blue", None, "red", None], seed=[7, 3, 3, 8], **CALL)
    whole = sd(PROMPTS, negative=["blue", None, "red", None], seed=[7, 3, 3, 8], **CALL)
    assert torch.equal(staged(sd, order, range(4)), whole.tensor)


@pytest.mark.parametrize("kept", [[0], [3], [1, 3], [3, 0, 2], [2, 2]])
def test_any_images_of_a_drawing_go_through_the_stages_alone(models: Models, kept: list[int]) -> None:
    sd = models("sd").native
    order = sd.order(PROMPTS, negative=["blue", None, "red", None], seed=5, **CALL)
    whole = draw(sd.model, order)
    found = staged(sd, order, kept)
    assert (found - whole.tensor[kept]).abs().max() < 1e-5
    batch = Images(found, whole.value_range, whole.drawing, whole.made, whole.nfe, whole.seconds)
    assert batch.pixels.shape == (len(kept), 16, 16, 3)


def test_images_of_several_drawings_are_encoded_at_once_and_each_text_once(models: Models) -> None:
    sd = fs.load(models("sd").folder)
    first, second = (sd.order(words, **CALL).drawing for words in (["red", "blue"], ["blue", "red", "lion"]))
    rows = encode(sd.model, [*first.each, *second.each])
    assert len(rows) == 5
    assert torch.equal(rows[1].positive["text"], rows[2].positive["text"])
    assert sd.cache.encodes == 4  # three words and none


def test_the_start_of_an_image_is_that_of_its_own_seed(pipe: Pipeline) -> None:
    order = pipe.order([0, 1, 2], seed=[9, 4, 9], steps=2)
    images = list(order.drawing.each)
    states: Any = start(pipe.model, order.plan, images)
    assert torch.equal(states[0], states[2])
    assert torch.equal(start(pipe.model, order.plan, images[1:2]), states[1:2])  # type: ignore[arg-type]
    assert states.std() == pytest.approx(order.plan.entry[1], rel=0.3)


def test_images_without_a_negative_branch_share_a_batch_with_those_that_have_one(pipe: Pipeline) -> None:
    order = pipe.order([0, 1, 2], negative=[1, 1, 1], guidance=3.0, steps=2)
    conditions = Conditioned.of(pipe.model, encode(pipe.model, list(order.drawing.each)))
    assert conditions.acting == (True, False, True)
    assert conditions.negative is not None
    assert conditions.negative["label"].tolist() == [1, 1, 1]
    assert Conditioned.of(pipe.model, encode(pipe.model, [list(order.drawing.each)[1]])).negative is None


def test_the_check_refuses_before_anything_is_encoded(models: Models) -> None:
    sd = fs.load(models("sd").folder)
    for guidance, message in (
        ({"method": "pag", "options": {"layers": "middle"}}, "no self-attention layer is named 'middle'"),
        ({"method": "cfg-zero"}, "predicts flow"),
        ([1.0, 2.0], "2 guidance weights were given by row"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            check(sd.model, sd.order("lion", **{**CALL, "guidance": guidance}))
    assert sd.cache.encodes == 0


def test_what_takes_too_long_or_too_much_memory_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    sd = models("sd").native
    with pytest.raises(fs.InvalidInput, match=r"30 images of \(4, 2048, 2048\) take more than 4 GiB|30 images of"):
        check(sd.model, sd.order("lion", count=30, height=4096, width=4096))
    monkeypatch.setattr("fewstep.pipeline.stages.MAX_ROWS", 5)
    check(sd.model, sd.order("lion", **{**CALL, "steps": 5}))
    with pytest.raises(fs.InvalidInput, match="the plan has 6 rows, at most 5 are drawn: use fewer steps"):
        check(sd.model, sd.order("lion", **{**CALL, "steps": 6}))
