"""By what a model is known: its weights in any dtype, what was made of them, and nothing where that cannot be seen."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.models import Identity, check_tuned_for
from fewstep.models.identity import in_dtype, of_callable
from fewstep.pipeline import Pipeline, load

from .by_hand import fitted
from .tiny import network
from .tiny_diffusers import Twins


def test_the_digest_is_that_of_the_weights_unless_something_was_made_of_them() -> None:
    plain = Identity("m", "0123456789abcdef")
    assert plain.digest == plain.weights
    half = replace(plain, variant={"dtype": "float16"})
    assert half.digest != plain.digest
    assert half.digest == Identity("other name", plain.weights, {"dtype": "float16"}).digest
    assert half.digest != replace(plain, variant={"dtype": "bfloat16"}).digest
    assert replace(half, weights="0" * 16).digest != half.digest
    assert (in_dtype(None), in_dtype(torch.float32), in_dtype(torch.bfloat16)) == ({}, {}, {"dtype": "bfloat16"})


@pytest.mark.parametrize("name", ["sd", "dit", "ddpm"])
def test_weights_are_the_same_in_every_dtype_and_the_digest_is_not(models: Callable[..., Twins], name: str) -> None:
    folder = models(name).folder
    loaded = [load(folder, dtype=dtype).model for dtype in ("float32", "float16", "bfloat16")]
    assert len({model.weights for model in loaded}) == 1
    assert len({model.digest for model in loaded}) == 3
    assert loaded[0].digest == loaded[0].weights


def test_a_trained_file_is_known_in_every_dtype(pipe: Pipeline) -> None:
    half, whole = load("digits", dtype="bfloat16").model, load("digits").model
    assert (half.weights, half.digest != whole.digest) == (whole.weights, True)


def test_a_plan_of_other_weights_is_refused_with_both_digests(pipe: Pipeline) -> None:
    plan = pipe.plan("ddim", steps=3)
    identity = pipe.model.identity
    check_tuned_for(plan, identity, "tune")
    check_tuned_for(fitted(plan, model=identity.weights), identity, "tune")
    check_tuned_for(replace(plan, tuned_for=TunedFor("")), identity, "tune")
    with pytest.raises(
        fs.InvalidInput, match=f"digest {'0' * 16}, this is 'tiny' with digest {identity.weights}: tune"
    ):
        check_tuned_for(fitted(plan, model="0" * 16), identity, "tune")


def test_a_plan_fits_its_model_in_another_dtype() -> None:
    whole, half = load("digits"), load("digits", dtype="bfloat16")
    plan = fitted(whole.plan("ddim", steps=2), model=whole.model.weights)
    check_tuned_for(plan, half.model.identity, "tune")
    assert len(half([3], sampler=plan)) == 1


def test_only_a_callable_that_cannot_be_seen_is_anonymous() -> None:
    net = network()
    assert not of_callable("net", net, None).anonymous
    assert of_callable("net", net, None).weights == of_callable("other", net, None).weights
    assert of_callable("net", net, "a").weights != of_callable("net", net, "b").weights
    hidden = of_callable("f", lambda x, t: x, None)
    assert hidden.anonymous
    assert hidden.weights != of_callable("f", lambda x, t: x, None).weights
    assert "another model each time it is loaded" in hidden.hint
    assert of_callable("f", lambda x, t: x, "v1").hint == ""
    for wrong in ("", 7, b"x", "x" * 1001):
        with pytest.raises(fs.InvalidInput, match="digest must be a text of 1 to 1000 characters"):
            of_callable("f", lambda x, t: x, wrong)  # type: ignore[arg-type]
