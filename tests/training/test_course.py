"""How training on data computes: place, forecast, sheets, loggers, and a LoRA in place of all weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import fewstep as fs
from data.pictures import write_folder
from fewstep import InvalidInput
from fewstep.models import lowrank
from fewstep.training import (
    Adapter,
    Anew,
    Forecast,
    New,
    Place,
    Settings,
    Watching,
    forecast_on,
    train_on,
)
from fewstep.training import forecast as forecasts
from fewstep.training.order import members
from models import tiny, tiny_diffusers

SMALL = New(widths=(8,), embedding=8, heads=1)
QUICK = Settings(steps=6, batch=4, rate=1e-2, state_every=2, log_every=2, seed=3)
LOW = replace(QUICK, adapter=Adapter(rank=2, alpha=4))


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Numbers of 4 x 4 pixels, first those of one class and then those of the other."""
    images = np.random.default_rng(0).random((20, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) // 10)
    return tmp_path / "a.npz"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Pictures with captions, beside a text-to-image model in the folder sd."""
    tiny_diffusers.write("sd", tmp_path / "sd")
    return write_folder(tmp_path / "words", captions=True)


def weights_of(path: Path) -> dict[str, Tensor]:
    module = fs.load(path).model.module
    assert module is not None
    return dict(module.named_parameters())


def test_activations_that_are_computed_again_give_the_same_bits(numbers: Path, tmp_path: Path) -> None:
    found = [
        train_on(numbers, SMALL, tmp_path / str(again), settings=QUICK, place=Place(checkpointing=again)).path
        for again in (False, True)
    ]
    assert found[0].read_bytes() == found[1].read_bytes()


def test_a_run_in_bfloat16_is_another_one_and_its_model_is_in_float32(numbers: Path, tmp_path: Path) -> None:
    low = train_on(numbers, SMALL, tmp_path / "low", settings=QUICK, place=Place(precision="bfloat16"))
    usual = train_on(numbers, SMALL, tmp_path / "usual", settings=QUICK)
    one, two = weights_of(low.path), weights_of(usual.path)
    assert {weight.dtype for weight in one.values()} == {torch.float32}
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert 0 < apart < 0.1
    assert fs.zoo.load(low.path).spec.training["precision"] == "bfloat16"
    with pytest.raises(InvalidInput, match="precision is 'bfloat16' there and None here"):
        train_on(numbers, SMALL, tmp_path / "low", settings=QUICK)


def test_a_forecast_counts_a_new_network_and_writes_nothing(numbers: Path, tmp_path: Path) -> None:
    found = forecast_on(numbers, SMALL, tmp_path / "run", settings=QUICK, mirror=True)
    size = 4 * sum(weight.numel() for weight in weights_of(SMALL.write(tmp_path / "b", source(numbers), 0)).values())
    assert (found.samples, found.data_bytes, found.data_seconds, found.steps) == (40, 0, 0.0, 6)
    assert (found.memory.gradients, found.memory.averages) == (size, 2 * size)
    assert found.seconds == pytest.approx(6 * (found.step_seconds or 0))
    assert not (tmp_path / "run").exists()


def source(path: Path) -> Any:
    return fs.data.open_data(path)


def test_a_forecast_of_latents_counts_their_files_and_the_time_to_encode_them(words: Path, tmp_path: Path) -> None:
    arguments = {"settings": QUICK, "mirror": True}
    found = forecast_on(words, tmp_path / "sd", tmp_path / "run", **arguments)  # type: ignore[arg-type]
    shape = fs.load(tmp_path / "sd").state_shape()
    assert (found.samples, found.data_bytes) == (12, 12 * 4 * int(np.prod(shape)))
    assert found.data_seconds > 0
    assert found.seconds == pytest.approx(found.data_seconds + 6 * (found.step_seconds or 0))
    low = forecast_on(words, tmp_path / "sd", tmp_path / "run", settings=LOW)
    assert low.memory.moments < 0.5 * found.memory.moments
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused_before_it_begins(
    numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Forecast] = []
    watch = Watching(forecast=told.append)
    with monkeypatch.context() as small:
        small.setattr(forecasts, "free_bytes", lambda device: 10)
        with pytest.raises(InvalidInput, match="are free: lower batch, raise accumulate, or use checkpointing"):
            train_on(numbers, SMALL, tmp_path / "run", settings=QUICK, watch=watch)
    assert not (tmp_path / "run/log.jsonl").exists()
    train_on(numbers, SMALL, tmp_path / "run", settings=QUICK, watch=watch)
    train_on(numbers, SMALL, tmp_path / "run", settings=QUICK, watch=watch)
    assert [one.memory.fits for one in told] == [False, True]  # and nothing where it goes on


class Kept:
    """A logger that keeps pictures."""

    def __init__(self) -> None:
        self.shown: dict[int, Tensor] = {}
        self.figures: list[int] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.figures.append(step)

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        assert name == "samples"
        self.shown[step] = images

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["numbers", "words", "low"])
def test_sheets_show_what_the_model_draws_of_the_data_and_change_nothing(
    kind: str, numbers: Path, words: Path, tmp_path: Path
) -> None:
    data, start = (numbers, SMALL) if kind == "numbers" else (words, tmp_path / "sd")
    settings, logger = (LOW if kind == "low" else QUICK), Kept()
    watch = Watching(loggers=[logger], sheets=4)
    found = train_on(data, start, tmp_path / "with", settings=settings, watch=watch)
    plain = train_on(data, start, tmp_path / "without", settings=settings)
    assert found.pipe.model.digest == plain.pipe.model.digest
    assert not (tmp_path / "without/samples").exists()
    assert (sorted(logger.shown), logger.figures) == ([4, 6], [2, 4, 6])
    subjects: list[Any] = [0] * 8 + [1] * 8 if kind == "numbers" else [f"colour {number}" for number in range(6)]
    drawn = fs.load(found.path)(subjects, seed=0, batch=4).tensor
    assert torch.allclose(logger.shown[6], (drawn / 2 + 0.5).clamp(0, 1), atol=1e-4)
    assert (logger.shown[6] - logger.shown[4]).abs().max() > 1e-3
    with Image.open(tmp_path / "with/samples/step-00000006.png") as sheet:
        assert sheet.mode == ("L" if kind == "numbers" else "RGB")


def test_pictures_that_are_lost_do_not_stop_a_training(tmp_path: Path) -> None:
    path, logger = tiny.broken(tmp_path / "broken.safetensors"), Kept()
    np.savez(tmp_path / "b.npz", images=np.zeros((4, 4, 4), np.float32), labels=[0, 0, 0, tiny.LOST])
    seed = next(seed for seed in range(9) if members(4, 1, 0, seed) != [3])
    still = replace(QUICK, rate=0.0, steps=1, batch=1, seed=seed)
    train_on(tmp_path / "b.npz", path, tmp_path / "run", settings=still, watch=Watching(loggers=[logger], sheets=1))
    grey = (logger.shown[1] == 0.5).flatten(1).all(dim=1)
    assert grey.tolist() == [False, False, False, True]


@pytest.mark.parametrize("kind", ["sd", "ddpm"])
def test_a_configuration_alone_is_trained_to_the_weights_of_a_model_anew(kind: str, tmp_path: Path) -> None:
    """As these depend on seed and data, and not on weights that were there."""
    tiny_diffusers.write(kind, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "bare")
    (tmp_path / "bare/unet/diffusion_pytorch_model.safetensors").unlink()
    data = write_folder(tmp_path / "data", captions=True)
    if kind == "ddpm":
        side = fs.load(tmp_path / "whole").model.sizes.height
        data = tmp_path / "a.npz"
        np.savez(data, images=np.random.default_rng(0).random((6, side, side, 3)).astype(np.float32))
    with pytest.raises(InvalidInput, match="a configuration of its network and no weights to go on from"):
        train_on(data, tmp_path / "bare", tmp_path / "run", settings=QUICK)
    needed = forecast_on(data, Anew(tmp_path / "bare"), tmp_path / "run", settings=QUICK)
    assert not (tmp_path / "run").exists()
    files = []
    for name in ("bare", "whole"):
        found = train_on(data, Anew(tmp_path / name), tmp_path / f"run-{name}", settings=QUICK)
        files.append((found.path / "unet/diffusion_pytorch_model.safetensors").read_bytes())
        assert needed.memory.gradients == 4 * sum(weight.numel() for weight in weights_of(found.path).values())
    assert files[0] == files[1]


def test_a_configuration_of_no_network_is_refused(words: Path, tmp_path: Path) -> None:
    (tmp_path / "sd/unet/diffusion_pytorch_model.safetensors").unlink()
    path = tmp_path / "sd/unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "down_block_types": ["NoBlock"]}))
    with pytest.raises(InvalidInput, match=r"unet/config.json cannot be made a UNet2DConditionModel: ValueError"):
        train_on(words, Anew(tmp_path / "sd"), tmp_path / "run", settings=QUICK)


def test_a_lora_is_merged_into_the_model_and_lies_apart(words: Path, tmp_path: Path) -> None:
    found = train_on(words, tmp_path / "sd", tmp_path / "run", settings=LOW)
    assert found.lora == tmp_path / "run/lora" / lowrank.LORA_FILE
    before, after = weights_of(tmp_path / "sd"), weights_of(found.path)
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(before[name].ndim > 1 for name in moved)
    ranks = [int(torch.linalg.matrix_rank((after[n] - before[n]).flatten(1), rtol=1e-3)) for n in moved]
    assert set(ranks) <= {1, 2}
    with_file = fs.load(tmp_path / "sd", lora=found.lora)
    images = [pipe("red circle", steps=2, seed=1).tensor for pipe in (with_file, fs.load(found.path))]
    assert torch.allclose(*images, atol=1e-4)
    plain = fs.load(tmp_path / "sd")("red circle", steps=2, seed=1).tensor
    assert (plain - images[0]).abs().max() > 1e-3
    again = train_on(words, tmp_path / "sd", tmp_path / "run", settings=LOW)
    assert (again.pipe.model.digest, again.lora) == (found.pipe.model.digest, found.lora)
    shutil.rmtree(tmp_path / "run/states")
    assert train_on(words, tmp_path / "sd", tmp_path / "run", settings=replace(QUICK, steps=1)).lora is None


def test_a_lora_of_a_model_of_classes_is_merged_alone(numbers: Path, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "tiny.safetensors")
    found = train_on(numbers, path, tmp_path / "run", settings=LOW)
    assert found.lora is None
    before, after = weights_of(path), weights_of(found.path)
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(before[name].ndim > 1 for name in moved)


def test_a_lora_of_new_weights_is_refused(numbers: Path, tmp_path: Path) -> None:
    tiny.write(tmp_path / "tiny.safetensors")
    for start in (SMALL, Anew(tmp_path / "tiny.safetensors")):
        with pytest.raises(InvalidInput, match="a LoRA changes the weights of a trained model, and these are new"):
            train_on(numbers, start, tmp_path / "run", settings=LOW)
    assert not (tmp_path / "run").exists()
