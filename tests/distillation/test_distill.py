"""A student of a small model: written, loaded, drawn with, measured, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.distillation import Consistency, Progressive, Reflow, Regression, Report, Settings, Source, Watch, distill
from fewstep.distillation import pairs as pairs_of
from fewstep.distillation.regression import unrolled
from fewstep.distillation.report import Line
from models import tiny, tiny_diffusers

QUICK = Settings(steps=60, batch=16, rate=2e-3, state_every=20, log_every=20)
SOURCE = Source(count=64, steps=6, held_out=16, guidance=2.0)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


METHODS: dict[str, Any] = {
    "regression": Regression(rows=2),
    "progressive": Progressive(begin=4, end=2),
    "consistency": Consistency(step="ddim", stages=2, first=4, rows=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_student_is_a_model_that_draws_by_its_own_plan_without_guidance(
    name: str, teacher: Path, tmp_path: Path
) -> None:
    found = distill(teacher, METHODS[name], tmp_path / "run", settings=QUICK, source=SOURCE)
    assert found.path == tmp_path / "run/student.safetensors"
    images = fs.load(found.path)([0, 2, 1], seed=5)
    assert images.drawing.guidance.scale == 1
    assert images.drawing.sampling.plan == METHODS[name].plan(fs.load(teacher).model.denoiser())
    assert images.nfe == 2
    assert fs.load(found.path).model.digest != fs.load(teacher).model.digest
    assert torch.equal(images.tensor, found.pipe([0, 2, 1], seed=5).tensor)


def test_regression_brings_the_student_nearer_to_the_teacher(teacher: Path, tmp_path: Path) -> None:
    errors = []
    for steps in (1, 150):
        settings = replace(QUICK, steps=steps)
        found = distill(teacher, Regression(), tmp_path / str(steps), settings=settings, source=SOURCE)
        errors.append(found.report.lines[0].error)
    assert errors[1] < 0.7 * errors[0]


def test_the_report_names_the_best_plans_at_one_and_four_times_the_evaluations(teacher: Path, tmp_path: Path) -> None:
    report = distill(teacher, Regression(rows=2), tmp_path / "run", settings=QUICK, source=SOURCE).report
    assert [line.nfe for line in report.lines] == [2, 2, 8]
    assert report.images == 16
    assert report.compared >= 10
    assert all(line.low <= line.error <= line.high for line in report.lines)


def lines(*errors: float) -> tuple[Line, ...]:
    names = ("the student", "a on b", "c on d")
    return tuple(
        Line(who, nfe, error, 0.9 * error, 1.1 * error)
        for who, nfe, error in zip(names, (1, 1, 4), errors, strict=True)
    )


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((1.0, 0.9, 0.5), "Not better than a on b at the same evaluations: keep that"),
        ((1.0, 1.1, 0.5), "Not better than a on b at the same evaluations: keep that"),
        ((1.0, 3.0, 1.1), "3.0 times less error in 1 evaluation of an image than a on b in 1"),
        ((1.0, 9.0, 2.0), "2.0 times less error in 1 evaluation of an image than c on d in 4"),
    ],
)
def test_the_verdict_claims_what_the_intervals_hold(errors: tuple[float, ...], words: str) -> None:
    assert Report(lines(*errors), 20, 64, 1.0).verdict == words


def test_a_student_of_a_folder_keeps_the_other_parts(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    source = replace(SOURCE, subjects=("a circle", "two stars"), count=32)
    found = distill(tmp_path / "sd", Regression(), tmp_path / "run", settings=replace(QUICK, steps=4), source=source)
    assert found.path == tmp_path / "run/student"
    pipe = fs.load(found.path)
    assert pipe("a circle").nfe == 1
    assert (found.path / "model_index.json").read_bytes() == (tmp_path / "sd/model_index.json").read_bytes()
    assert json.loads((found.path / "distillation.json").read_text())["method"]["name"] == "regression"
    encoders = [folder / "text_encoder/model.safetensors" for folder in (found.path, tmp_path / "sd")]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    with pytest.raises(InvalidInput, match="progressive needs"):
        distill(tmp_path / "sd", Progressive(begin=4), tmp_path / "other", settings=QUICK, source=source)


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


@pytest.mark.parametrize("name", ["regression", "progressive"])
def test_a_run_goes_on_to_the_same_student(name: str, teacher: Path, tmp_path: Path) -> None:
    whole = distill(teacher, METHODS[name], tmp_path / "whole", settings=QUICK, source=SOURCE)
    count = 0

    def killed(*_: Any) -> None:
        nonlocal count
        count += 1
        if count in (1, 3, 4):
            raise Killed

    student = None
    while student is None:
        try:
            watch = Watch(killed, killed)
            student = distill(teacher, METHODS[name], tmp_path / "killed", settings=QUICK, source=SOURCE, watch=watch)
        except Killed:
            continue
    assert count > 4
    assert student.pipe.model.digest == whole.pipe.model.digest
    assert [line.error for line in student.report.lines] == [line.error for line in whole.report.lines]


def test_pairs_of_another_teacher_are_refused(teacher: Path, tmp_path: Path) -> None:
    distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=2), source=SOURCE)
    other = replace(SOURCE, guidance=3.0)
    with pytest.raises(InvalidInput, match="holds pairs of another teacher, plan, guidance or other subjects"):
        distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=2), source=other)


def test_the_teacher_stays_as_it_is(teacher: Path, tmp_path: Path) -> None:
    pipe = fs.load(teacher)
    before = pipe([1], seed=3).tensor
    distill(teacher, Progressive(begin=8, end=1, longer=1), tmp_path / "run", settings=QUICK, source=SOURCE)
    assert torch.equal(before, fs.load(teacher)([1], seed=3).tensor)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Regression(rows=0), "rows must be a whole number from 1 to 8"),
        (lambda: Regression(sampler="dddim"), "did you mean 'ddim'"),
        (lambda: Progressive(begin=6, end=4), "begin must be end times 2, 4, 8"),
        (lambda: Progressive(begin=8, end=8), "begin must be end times 2, 4, 8"),
        (lambda: Progressive(weight="snr"), "did you mean 'snr\\+1'"),
        (lambda: Consistency(step="euler"), "unknown step of the teacher"),
        (lambda: Consistency(gap="shrinking", deviation=0), "deviation above 0"),
        (lambda: Reflow(rows=0), "rows must be"),
        (lambda: Source(held_out=2), "held_out must be a whole number of at least 16"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make()


def test_methods_that_do_not_fit_are_refused_before_anything_is_drawn(teacher: Path, tmp_path: Path) -> None:
    for method, words in (
        (Reflow(), "reflow needs a network that predicts flow"),
        (Regression(rows=4, sampler="heun"), "does not take 4 rows in 4 steps"),
        (Regression(rows=2, sampler="euler-a"), "draws noise"),
    ):
        with pytest.raises(InvalidInput, match=words):
            distill(teacher, method, tmp_path / "run", settings=QUICK, source=SOURCE)
    with pytest.raises(InvalidInput, match="too few for 4 rounds"):
        distill(teacher, Progressive(), tmp_path / "run", settings=replace(QUICK, steps=3), source=SOURCE)
    with pytest.raises(InvalidInput, match="is neither a shipped model"):
        distill(tmp_path / "nothing", Regression(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_unrolled_is_what_the_driver_draws(teacher: Path) -> None:
    """For samplers with history and several registers."""
    pipe = fs.load(teacher)
    denoiser = pipe.denoiser([0, 1], guidance=1)
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for sampler in ("ddim", "dpmpp-3m", "unipc-3", "ipndm-4", "heun"):
        plan = fs.compile(sampler, schedule=pipe.model.schedule, steps=5, grid="quadratic")
        start = noise * plan.entry[1]
        with torch.no_grad():
            own = unrolled(plan, denoiser, start)
        assert torch.allclose(own, fs.sample(plan, denoiser, start=start), atol=1e-4)


def test_subjects_come_in_turn_with_noise_by_number(teacher: Path, tmp_path: Path) -> None:
    of = pairs_of.Teacher.of(fs.load(teacher), [2, 0], 2.0, 6)
    found = pairs_of.drawn(of, 6, tmp_path / "pairs")
    batch = found.batch([3, 0])
    assert batch.condition["label"].tolist() == [0, 2]
    assert batch.negative is not None
    assert batch.negative["label"].tolist() == [tiny.CLASSES] * 2
    again = of.pipe.denoiser([0, 2], guidance=2.0)
    assert batch.noise is not None
    assert torch.allclose(
        batch.data, fs.sample(of.order.plan, again, start=batch.noise * of.order.plan.entry[1]), atol=1e-5
    )
