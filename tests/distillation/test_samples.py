"""Sheets of pictures while a student learns, and what a run says that it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.distillation import (
    Checks,
    Consistency,
    Measuring,
    Progressive,
    Regression,
    Settings,
    Source,
    Watch,
    distill,
    forecast,
)
from fewstep.training import Forecast, Method, Place
from models import tiny

QUICK = Settings(steps=20, batch=16, rate=2e-3, state_every=10, log_every=20)
SOURCE = Source(count=32, steps=4, held_out=16, guidance=2.0)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


def test_sheets_are_drawn_from_the_same_noise_and_change_nothing(teacher: Path, tmp_path: Path) -> None:
    told: list[Forecast] = []
    watch = Watch(forecast=told.append, sheets=8)
    found = distill(teacher, Regression(), tmp_path / "with", settings=QUICK, source=SOURCE, watch=watch)
    plain = distill(teacher, Regression(), tmp_path / "without", settings=QUICK, source=SOURCE)
    assert found.pipe.model.digest == plain.pipe.model.digest
    sheets = sorted((tmp_path / "with/samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["step-00000008.png", "step-00000016.png", "step-00000020.png"]
    pixels = [np.asarray(Image.open(sheet)).astype(int) for sheet in sheets]
    moved = [np.abs(one - pixels[-1]).mean() for one in pixels[:-1]]
    assert 0 < moved[1] < moved[0] < 60
    assert not (tmp_path / "without/samples").exists()
    assert len(told) == 1
    distill(teacher, Regression(), tmp_path / "with", settings=QUICK, source=SOURCE, watch=watch)
    assert len(told) == 1  # as it goes on


def test_a_forecast_says_what_distillation_needs_and_writes_nothing(teacher: Path, tmp_path: Path) -> None:
    unchecked = Measuring(Checks(every=0))
    found = forecast(teacher, Regression(), tmp_path / "run", settings=QUICK, source=SOURCE, measuring=unchecked)
    weights = sum(4 * weight.numel() for weight in tiny.network().parameters())
    assert (found.samples, found.data_bytes) == (32, 4 * 16 * (32 + 2 * 16))
    assert (found.memory.gradients, found.memory.averages) == (weights, 2 * weights)
    assert found.data_seconds > 0
    assert found.step_seconds is not None
    assert not (tmp_path / "run").exists()


def activations(teacher: Path, method: Method, place: Place | None = None) -> int:
    """The second time, as with its first steps a process loads code, which counts too."""
    settings = replace(QUICK, batch=64)
    found = [forecast(teacher, method, "none", settings=settings, source=SOURCE, place=place) for _ in range(2)]
    return found[1].memory.activations


def test_rows_take_memory_each_and_less_where_they_are_computed_again(teacher: Path) -> None:
    one, four = activations(teacher, Regression()), activations(teacher, Regression(rows=4))
    again = activations(teacher, Regression(rows=4), Place(checkpointing=True))
    assert 2.5 < four / one < 4.2
    assert again < 0.5 * four


@pytest.mark.parametrize("method", [Progressive(begin=4, end=2), Consistency(step="ddim", stages=2, first=4)])
def test_methods_that_ask_the_student_once_hold_one_graph(method: Method, teacher: Path) -> None:
    assert activations(teacher, method) < 2 * activations(teacher, Regression())


def test_a_student_in_bfloat16_is_written_in_float32(teacher: Path, tmp_path: Path) -> None:
    place = Place(precision="bfloat16")
    low = distill(teacher, Regression(), tmp_path / "low", settings=QUICK, source=SOURCE, place=place)
    usual = distill(teacher, Regression(), tmp_path / "usual", settings=QUICK, source=SOURCE)
    assert low.pipe.model.digest != usual.pipe.model.digest
    assert {weight.dtype for weight in low.pipe.model.network.parameters()} == {torch.float32}
    assert low.report.lines[0].error == pytest.approx(usual.report.lines[0].error, rel=0.1)
