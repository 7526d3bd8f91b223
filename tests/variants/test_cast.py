"""A model in lower precision draws next to the same pictures, and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput, variants
from fewstep.pipeline import Pipeline


def test_a_network_in_bfloat16_draws_nearly_the_same(pipe: Pipeline) -> None:
    lower = Pipeline(variants.cast(pipe.model, "bfloat16"))
    assert {p.dtype for p in lower.model.module.parameters()} == {torch.bfloat16}  # type: ignore[union-attr]
    assert {p.dtype for p in pipe.model.module.parameters()} == {torch.float32}  # type: ignore[union-attr]
    own, theirs = (one([0, 1], steps=6, seed=3).tensor for one in (lower, pipe))
    far = float((own - theirs).square().mean().sqrt())
    assert 0 < far < 0.05
    assert lower.model.weights == pipe.model.weights
    assert lower.model.digest != pipe.model.digest
    assert lower([0], steps=2, seed=1).made.dtype == "bfloat16"


def test_a_vae_alone_is_cast(models: Callable[..., Any]) -> None:
    pipe = fs.load(models("sd").folder)
    lower = Pipeline(variants.cast_codec(pipe.model, "bfloat16"))
    assert next(lower.model.codec.vae.parameters()).dtype is torch.bfloat16  # type: ignore[attr-defined]
    assert next(pipe.model.codec.vae.parameters()).dtype is torch.float32  # type: ignore[attr-defined]
    assert lower.model.dtypes == {torch.float32}
    states = torch.randn(2, *pipe.state_shape(), generator=torch.Generator().manual_seed(0))
    own, theirs = lower.decode(states), pipe.decode(states)
    assert own.dtype is torch.float32
    assert 0 < float((own - theirs).abs().max()) < 0.1
    assert lower.model.digest != pipe.model.digest


def test_what_cannot_be_cast_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(InvalidInput, match=r"unknown dtype 'int8': .*known are bfloat16, float16"):
        variants.cast(pipe.model, "int8")
    with pytest.raises(InvalidInput, match="is in bfloat16: cast one that is in float32"):
        variants.cast(variants.cast(pipe.model, "bfloat16"), "float16")
    with pytest.raises(InvalidInput, match="draws pixels, which no VAE decodes"):
        variants.cast_codec(pipe.model, "float16")
    spec = fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 2, 2), digest="a")
    shown = fs.load(lambda x, t: x, spec=spec)
    with pytest.raises(InvalidInput, match="of no known dtype"):
        variants.cast(shown.model, "float16")


def test_a_variant_is_read_back_and_says_what_it_is(tmp_path: Path) -> None:
    variant = variants.Variant("bfloat16", None, compiled=True)
    assert variant.to_json() == {"network": "bfloat16", "compiled": True}
    assert variants.Variant.from_json(variant.to_json()) == variant
    assert str(variant) == "network in bfloat16, network compiled"
    assert str(variants.Variant()) == "as it is"
    for document, words in (
        ({"netwrk": "bfloat16"}, "did you mean 'network'"),
        ({"network": "float64"}, "unknown dtype of the network 'float64'"),
        ({"compiled": 1}, "compiled must be true or false, got 1"),
    ):
        with pytest.raises(InvalidInput, match=words):
            variants.Variant.from_json(document)
