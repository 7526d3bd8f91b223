"""`--lora`: merged, kept in the picture, and asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fewstep as fs
from fewstep.cli.values import ScaledFile
from models.tiny_diffusers import Twins

from .conftest import Call


@pytest.fixture
def model(models: Callable[..., Twins], here: Path) -> Path:
    """A model of prompts, and a LoRA beside."""
    twins, draw = models("sd"), torch.Generator().manual_seed(0)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    width = twins.own.unet.get_submodule(name.removeprefix("unet.")).weight.shape[0]
    tensors = {f"{name}.lora_{letter}.weight": torch.randn(2, width, generator=draw) for letter in "AB"}
    tensors[f"{name}.lora_B.weight"] = tensors[f"{name}.lora_B.weight"].T.contiguous()
    save_file(tensors, "style.safetensors")
    return twins.folder


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5)),
        ("a:-2", ("a", -2.0)),
        ("C:\\a.safetensors", ("C:\\a.safetensors", 1.0)),
        ("a:b:1e-1", ("a:b", 0.1)),
    ],
)
def test_a_file_and_its_scale(word: str, expected: tuple[str, float]) -> None:
    assert ScaledFile().convert(word, None, None) == expected


def test_a_file_whose_name_ends_in_a_number_is_taken_whole(here: Path) -> None:
    Path("a:2").write_text("")
    assert ScaledFile().convert("a:2", None, None) == ("a:2", 1.0)


def test_a_lora_is_merged_and_asked_for_again(call: Call, model: Path) -> None:
    words = ("red circle", "--steps", 2)
    assert call("generate", model, *words, "--output", "plain.png").exit_code == 0
    result = call("generate", model, *words, "--lora", "style.safetensors:0.5", "--output", "a.png", "--json")
    assert result.exit_code == 0, result.stderr
    (kept,) = json.loads(result.stdout)["drawing"]["lora"]
    assert kept["scale"] == 0.5
    stamps = [fs.drawing.read(name) for name in ("a.png", "plain.png")]
    assert stamps[0].made.pixels != stamps[1].made.pixels
    again = call("redraw", "a.png", model, "--lora", "style.safetensors:0.5", "--output", "b.png")
    assert (again.exit_code, fs.drawing.read("b.png").made.pixels) == (0, stamps[0].made.pixels)
    for other in ((), ("--lora", "style.safetensors"), ("--lora", "style.safetensors:0.5") * 2):
        refused = call("redraw", "a.png", model, *other)
        assert refused.exit_code == 2
        assert f"drawn with the LoRA {kept['file']} at scale 0.5, and the model is loaded with" in refused.stderr


def test_a_lora_that_cannot_be_merged_is_one_line(call: Call, model: Path) -> None:
    for word, message in (
        ("absent.safetensors:0.5", "no file at absent.safetensors"),
        ("style.safetensors:nan", "the scale of a LoRA is a number from -100 to 100, got nan"),
        ("style.safetensors:101", "the scale of a LoRA is a number from -100 to 100, got 101"),
    ):
        result = call("generate", model, "lion", "--lora", word)
        errors = [line for line in result.stderr.splitlines() if not line.startswith("loading ")]
        assert (result.exit_code, len(errors)) == (2, 1)
        assert message in errors[0]
    result = call("generate", "digits", "--lora", "style.safetensors")
    assert result.exit_code == 2
    assert "digits takes no LoRA" in result.stderr


def test_a_bench_does_not_take_a_model_with_a_lora_for_the_plain_one(model: Path) -> None:
    lora = ("style.safetensors", 0.5)
    loading = fs.benchmark.Loading(lora=(lora,))
    assert loading.words == ["--lora", "style.safetensors:0.5"]
    subjects = [fs.benchmark.subject.Subject(model, loading=each) for each in (loading, fs.benchmark.Loading())]
    assert subjects[0].pipe.model.lora[0].scale == 0.5
    assert subjects[0].model.digest != subjects[1].model.digest
