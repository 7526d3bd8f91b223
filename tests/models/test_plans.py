"""`sampler="tuned"`: the plans that lie with a model, found by their evaluations and refused where they do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.drawing import read
from fewstep.pipeline import Pipeline, load

from .by_hand import fitted
from .tiny import write
from .tiny_diffusers import Twins


def tuned(pipe: Pipeline, rows: int, model: str | None = None) -> fs.Plan:
    """A plan such as tuning gives."""
    return fitted(pipe.plan("dpmpp-2m", steps=rows), model=model or pipe.model.weights)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of plans of a model, with one for 3 and one for 5 evaluations."""
    pipe = load(write(tmp_path / "tiny.safetensors"))
    folder = tmp_path / "tiny.plans"
    folder.mkdir()
    for nfe in (3, 5):
        tuned(pipe, nfe).save(folder / f"{nfe}.json")
    (folder / "3.certificate.json").write_text("{}")
    return folder


def test_a_plan_that_guides_some_rows_alone_is_found_by_what_it_costs(folder: Path, tmp_path: Path) -> None:
    pipe = load(tmp_path / "tiny.safetensors")
    factors = [0.0, 1.0, 1.1, 0.9, 0.0]
    plan = fitted(pipe.plan("dpmpp-2m", steps=5), model=pipe.model.weights, factors=factors)
    plan.save(folder / "some-rows.json")
    images = pipe([0, 1], sampler="tuned", steps=4)
    assert (images.drawing.sampling.plan.steps, images.nfe) == (5, 8)
    assert pipe([0, 1], sampler="tuned", steps=5).nfe == 10


def test_the_plan_of_so_many_evaluations_is_drawn_with_and_kept_in_the_picture(folder: Path, tmp_path: Path) -> None:
    pipe = load(tmp_path / "tiny.safetensors")
    images = pipe([0, 1], sampler="tuned", steps=5)
    plan = fs.Plan.load(folder / "5.json")
    assert torch.equal(images.tensor, pipe([0, 1], sampler=plan).tensor)
    assert not torch.allclose(images.tensor, pipe([0, 1], sampler="dpmpp-2m", steps=5, grid="trailing").tensor)
    assert images.nfe == 10  # guided
    assert len(pipe.plan("tuned", steps=3).rows) == 3
    stamp = read(images.save(tmp_path / "out.png"))
    for file in folder.iterdir():
        file.unlink()
    assert torch.equal(pipe.redraw(stamp).tensor, images.tensor)


def test_another_number_a_choice_that_it_decides_and_no_plans_are_refused(folder: Path, tmp_path: Path) -> None:
    pipe = load(tmp_path / "tiny.safetensors")
    with pytest.raises(fs.InvalidInput, match=r"has tuned plans for 3 and 5 steps, got 4.*--rows 4"):
        pipe([0], sampler="tuned", steps=4)
    with pytest.raises(fs.InvalidInput, match="for 3 and 5 steps, got none"):
        pipe([0], sampler="tuned")
    with pytest.raises(fs.InvalidInput, match="decides options, grid"):
        pipe.plan("tuned", steps=3, grid="karras", sampling={"options": {"eta": 1}})
    (folder / "3.json").unlink()
    assert len(pipe.plan("tuned").rows) == 5
    (folder / "5.json").unlink()
    with pytest.raises(fs.InvalidInput, match="has no tuned plans: make one with `fewstep tune`"):
        pipe([0], sampler="tuned", steps=5)


def test_plans_of_other_weights_of_another_schedule_and_two_of_a_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    pipe = load(tmp_path / "tiny.safetensors")
    tuned(pipe, 3, "0123456789abcdef").save(folder / "3.json")
    with pytest.raises(fs.InvalidInput, match="tuned for a model with digest 0123456789abcdef"):
        pipe.plan("tuned", steps=3)
    fs.compile("ddim", schedule=fs.schedules.cosine(), steps=3).save(folder / "3.json")
    with pytest.raises(fs.InvalidInput, match="another noise schedule"):
        pipe.plan("tuned", steps=3)
    tuned(pipe, 5).save(folder / "3.json")
    with pytest.raises(fs.InvalidInput, match="both cost 5 steps"):
        pipe.plan("tuned", steps=5)
    (folder / "3.json").write_text("{")
    with pytest.raises(fs.InvalidInput, match="plan"):
        pipe.plan("tuned", steps=5)


def test_a_text_model_finds_its_plan_in_any_dtype(models: Callable[..., Twins], tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    folder.symlink_to(models("sd").folder)
    assert load(folder).model.plans == folder / "plans"
    half = load(folder, dtype="bfloat16")
    full = load(folder)
    assert half.model.digest != full.model.digest
    assert half.model.weights == full.model.weights == full.model.digest
