"""What a model runs in: every part in the dtype that was asked for, by whichever way its files are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fewstep.pipeline import Pipeline, load

from .tiny_diffusers import FAMILIES, Twins

TABLES = {"pos_embed.pos_embed", "rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "embed_tokens.embed_scale"}
"""What DiT, PixArt and Gemma compute themselves and save in no file."""


def parts(pipe: Pipeline) -> Iterator[tuple[str, Any]]:
    """The modules of a model, by part."""
    model: Any = pipe.model
    yield "network", model.module
    if hasattr(model.codec, "vae"):
        yield "vae", model.codec.vae
    if hasattr(model.conditioner, "encoder"):
        yield from ((name, reader.model) for name, reader in model.conditioner.encoder.readers.items())


def others(module: Any, dtype: torch.dtype) -> set[str]:
    """The floating parameters and buffers of a module that are of another dtype, but for tables in float32."""
    saved = module.state_dict()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.dtype is not dtype and (name in saved or name not in TABLES)
    }


def pickled(folder: Path, target: Path) -> Path:
    """A copy of a folder whose weights are pickles, as early models were shared."""
    shutil.copytree(folder, target)
    for file in target.rglob("*.safetensors"):
        name = "pytorch_model.bin" if file.name == "model.safetensors" else f"{file.stem}.bin"
        torch.save(safetensors.torch.load_file(file), file.with_name(name))
        file.unlink()
    return target


def draw(pipe: Pipeline) -> torch.Tensor:
    subject: Any = "red circle" if pipe.model.conditioner.field == "prompts" else [None]
    return pipe(subject, steps=1).tensor


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_is_in_the_dtype_that_was_asked_for(models: Callable[..., Twins], tmp_path: Path, name: str) -> None:
    folder = models(name).folder
    pipes = [load(source, dtype="bfloat16", allow_pickle=True) for source in (folder, pickled(folder, tmp_path / name))]
    for pipe in pipes:
        assert [(part, others(module, torch.bfloat16)) for part, module in parts(pipe)] == [
            (part, set()) for part, _ in parts(pipe)
        ]
    assert torch.equal(draw(pipes[0]), draw(pipes[1]))


def test_what_overflows_in_float16_stays_in_float32(models: Callable[..., Twins], tmp_path: Path) -> None:
    folder = models("sd3").folder
    for source in (folder, pickled(folder, tmp_path / "sd3")):
        found = {
            name: others(module, torch.float16)
            for name, module in parts(load(source, dtype="float16", allow_pickle=True))
        }
        assert found.pop("text_encoder_3") == {f"encoder.block.{i}.layer.1.DenseReluDense.wo.weight" for i in (0, 1)}
        assert len(found.pop("vae")) == 124  # all of it: its configuration says force_upcast
        assert found == {"network": set(), "text_encoder": set(), "text_encoder_2": set()}


def test_tables_that_a_class_computes_are_not_rounded(models: Callable[..., Twins]) -> None:
    whole, half = (
        dict(parts(load(models("sana").folder, dtype=dtype)))["text_encoder"] for dtype in (None, "bfloat16")
    )
    assert half.rotary_emb.inv_freq.dtype is torch.float32
    assert torch.equal(half.rotary_emb.inv_freq, whole.rotary_emb.inv_freq)
    assert half.embed_tokens.weight.dtype is torch.bfloat16
