"""Benches of callables: never resumed by another one, and only in the precision that they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.benchmark import Pictures, Sweep, bench
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline

from .tiny import solved_once

TWO = Pictures(count=2)
ONE = Sweep(samplers=("ddim",), grids=("karras",), steps=(2,))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    solved_once(monkeypatch)


def made(factor: float) -> Any:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return factor * x

    return model


def loaded(network: Any, **more: Any) -> Pipeline:
    spec = fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 2, 2), digest=more.pop("digest", None))
    return fs.load(network, spec=spec, **more)


def test_another_function_is_not_served_the_rows_of_the_first(tmp_path: Path) -> None:
    first = loaded(made(0.9))
    (row,) = bench(first, ONE, output=tmp_path / "out", pictures=TWO).results
    before = (tmp_path / "out" / "runs.jsonl").read_bytes()
    for other in (loaded(made(0.3)), loaded(first.model.network)):
        with pytest.raises(InvalidInput, match=r"another folder with --output\. A function is .*Spec\(digest=\.\.\)"):
            bench(other, ONE, output=tmp_path / "out", pictures=TWO)
    assert (tmp_path / "out" / "runs.jsonl").read_bytes() == before
    assert [run.key for run in bench(first, ONE, output=tmp_path / "out", pictures=TWO).results] == [row.key]


def test_a_function_with_a_digest_goes_on(tmp_path: Path) -> None:
    rows = [
        bench(loaded(made(0.9), digest=text), ONE, output=tmp_path / text, pictures=TWO).results[0]
        for text in ("a", "a", "b")
    ]
    assert rows[0].key == rows[1].key
    assert rows[0].seconds == rows[1].seconds  # not measured again
    assert rows[2].key != rows[0].key


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_a_module_in_lower_precision_is_not_measured_as_float32(tmp_path: Path) -> None:
    for pipe in (loaded(Net().to(torch.bfloat16)), loaded(Net(), dtype="bfloat16")):
        with pytest.raises(InvalidInput, match=r"measured in float32, this one is in torch\.bfloat16.*module\.float"):
            bench(pipe, ONE, output=tmp_path / "out", pictures=TWO)
    assert not (tmp_path / "out").exists()


def test_a_module_that_is_no_pipeline_is_told_how_to_become_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a Net does not say how to read it: make a pipeline of it first"):
        bench(Net(), ONE, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
