"""A model with a variant is written beside what was made of it, and loads like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fewstep as fs
from fewstep import InvalidInput, variants
from fewstep.run.machine import machine_of
from fewstep.variants import MeasuredElsewhere, Variant
from fewstep.variants.folder import FACTS
from models import tiny

LOWER = Variant("bfloat16", "bfloat16")


@pytest.fixture
def optimised(models: Callable[..., Any], tmp_path: Path) -> Path:
    """The tiny model of Stable Diffusion in half precision."""
    source = models("sd").folder
    variants.write(tmp_path / "lower", variants.files_of(source), fs.load(source).model, LOWER, (1, 2))
    return tmp_path / "lower"


def changed(folder: Path, **facts: Any) -> None:
    """The facts of a folder with others in their place."""
    path = folder / FACTS
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_a_folder_draws_what_the_variant_draws(optimised: Path, models: Callable[..., Any]) -> None:
    pipe = fs.load(models("sd").folder)
    made, loaded = fs.Pipeline(LOWER.of(pipe.model)), fs.load(optimised)
    own, theirs = (one("red circle", steps=2, seed=5).tensor for one in (loaded, made))
    assert torch.equal(own, theirs)
    assert loaded.model.weights == pipe.model.weights
    assert loaded.model.digest == made.model.digest
    assert loaded.name == "lower"
    weights = load_file(optimised / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_diffusers_loads_the_folder(optimised: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(optimised, dtype=torch.bfloat16, safety_checker=None)
    assert pipe.unet.dtype is torch.bfloat16


def test_a_model_of_one_file_keeps_what_it_recommends_and_its_plans(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "tiny.safetensors")
    pipe = fs.load(source)
    plans = source.with_suffix(".plans")
    plans.mkdir()
    pipe.plan(steps=3).save(plans / "3.json")
    variants.write(tmp_path / "lower", source, pipe.model, Variant("bfloat16"), (1,))
    loaded = fs.load(tmp_path / "lower")
    assert loaded.model.recommended == pipe.model.recommended
    assert loaded([1], sampler="tuned", steps=3, seed=0).nfe == pipe([1], sampler="tuned", steps=3, seed=0).nfe
    made = fs.Pipeline(variants.cast(pipe.model, "bfloat16"))
    assert torch.equal(loaded([0, 2], steps=3).tensor, made([0, 2], steps=3).tensor)


def test_the_student_of_the_scenes_is_written_whole(tmp_path: Path) -> None:
    source = fs.load("scenes-turbo")
    variants.write(tmp_path / "turbo", variants.files_of("scenes-turbo"), source.model, Variant(codec="bfloat16"), (1,))
    loaded = fs.load(tmp_path / "turbo")
    assert loaded.model.teacher == source.model.teacher
    own, theirs = (one("a red circle", seed=2, steps=2) for one in (loaded, source))
    assert own.nfe == theirs.nfe == 2
    assert float((own.tensor - theirs.tensor).abs().mean()) < 0.01


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dtype": "float16"}, "says its own: leave dtype out"),
        ({"prediction": "epsilon"}, "says its own: leave prediction or zero_snr out"),
        ({"spec": fs.NetworkSpec(prediction="epsilon")}, "says its own: leave spec out"),
    ],
)
def test_what_the_folder_says_is_not_said_again(given: dict[str, Any], words: str, optimised: Path) -> None:
    with pytest.raises(InvalidInput, match=words):
        fs.load(optimised, **given)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"format": 2}, "has format 2, this is 1: optimise again"),
        ({"variant": {"network": "float8"}}, "unknown dtype of the network 'float8'"),
        ({"variant": {"networks": "float16"}}, "did you mean 'network'"),
        ({"batches": []}, "does not say what was made of the model"),
        ({"batches": ["1"]}, "does not say what was made of the model"),
        ({"model": {"name": "a"}}, "does not say what was made of the model"),
        ({"machine": {"processor": "a"}}, "does not say what was made of the model"),
        ({"recommended": 3}, "does not say what was made of the model"),
    ],
)
def test_a_damaged_file_of_facts_is_refused(facts: dict[str, Any], words: str, optimised: Path) -> None:
    changed(optimised, **facts)
    with pytest.raises(InvalidInput, match=words):
        fs.load(optimised)


def test_other_weights_than_were_written_are_refused(optimised: Path) -> None:
    path = optimised / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({name: tensor * 2 for name, tensor in weights.items()}, path)
    with pytest.raises(InvalidInput, match=r"are not those that were written there: optimise .* again"):
        fs.load(optimised)


def test_another_machine_is_told_and_another_kind_of_device_refused(optimised: Path) -> None:
    here = machine_of("cpu")
    changed(optimised, machine=here._replace(processor="another")._asdict())
    with pytest.warns(MeasuredElsewhere, match="measured on another machine \\(another, "):
        fs.load(optimised)
    changed(optimised, machine=here._replace(device="cuda (a card)")._asdict())
    with pytest.raises(InvalidInput, match="was optimised for cuda \\(a card\\), and the device is cpu"):
        fs.load(optimised)


def test_what_is_optimised_is_not_optimised_again(optimised: Path) -> None:
    with pytest.raises(InvalidInput, match="is optimised already: optimise what it was made of"):
        variants.files_of(optimised)


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "tiny.safetensors")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    with pytest.raises(InvalidInput, match="holds no optimised model: name another folder"):
        variants.write(tmp_path / "mine", source, fs.load(source).model, Variant("bfloat16"), (1,))
    assert (tmp_path / "mine" / "file").read_text() == "kept"


def test_a_fault_while_writing_leaves_the_model_that_was_there(
    optimised: Path, models: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fs.load(optimised)("red", steps=1, seed=1).tensor

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewstep.variants.folder.Facts.write", full)
    source = models("sd").folder
    with pytest.raises(OSError, match="No space left"):
        variants.write(optimised, source, fs.load(source).model, Variant("float16"), (1,))
    monkeypatch.undo()
    assert torch.equal(fs.load(optimised)("red", steps=1, seed=1).tensor, before)
    assert [path.name for path in optimised.parent.iterdir() if path.name.startswith(".")] == []
    shutil.rmtree(optimised)
