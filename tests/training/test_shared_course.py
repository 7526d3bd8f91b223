"""Two processes train on data as one does: they share latents and steps, and the first alone writes and speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs

from .shared import COURSES
from .shared_course import BROKEN, numbers_run
from .two import found_in

Runs = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(shared: Path) -> Runs:
    """The folder of `shared_course`, and what each of its two processes found."""
    return shared / COURSES, found_in(shared / COURSES)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"]["student"] for line in lines if "loss" in line]


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in fs.zoo.load(path).network.state_dict().values()])


def test_losses_and_weights_are_those_of_one_process_with_the_whole_batch(runs: Runs) -> None:
    folder, _ = runs
    alone = numbers_run(folder / "alone")
    assert losses(folder / "run") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    first, one, two = (
        weights_of(path) for path in (folder / "run/start.safetensors", alone.path, folder / "run/model.safetensors")
    )
    assert (two - one).norm() < 1e-2 * (one - first).norm()  # Adam takes the sign of rounding
    assert (one - first).norm() > 0.01


def test_both_processes_are_given_one_model_which_another_run_equals_bitwise(runs: Runs) -> None:
    folder, (one, other) = runs
    assert one["numbers"] == other["numbers"]
    assert one["numbers"]["path"] == str(folder / "run/model.safetensors")
    assert one["again"]["digest"] == other["again"]["digest"] == one["numbers"]["digest"]
    assert one["words"] == other["words"]


def test_each_process_encodes_parts_of_its_own(runs: Runs) -> None:
    _, (one, other) = runs
    assert one["asked"] == []  # its part was there, as the first run had failed in the other process
    assert other["asked"] == [[4, 5, 6]]


def test_what_either_could_not_read_is_told_to_both(runs: Runs) -> None:
    assert [found["words"]["lost"] for found in runs[1]] == [[BROKEN]] * 2


def test_the_first_process_alone_is_watched_and_draws(runs: Runs) -> None:
    folder, (one, other) = runs
    assert one["done"] == [[step] for step in range(1, 7)] + [[7, 7], [1], [2]]
    assert one["told"] == [20]
    assert other["done"] == other["told"] == []
    assert sorted(path.name for path in (folder / "run/samples").iterdir()) == [
        "step-00000004.png",
        "step-00000006.png",
    ]


def test_what_one_process_fails_at_the_first_one_says(runs: Runs) -> None:
    _, (one, other) = runs
    assert one["failed"] == ["OSError", "the second disk"]
    assert other["failed"] == ["Stopped", "a process stopped: the second disk"]
    assert one["absent"][0] == "InvalidInput"
    assert other["absent"] == ["Stopped", f"the first process stopped: {one['absent'][1]}"]


def test_a_forecast_is_of_the_share_of_a_process(runs: Runs) -> None:
    network = fs.zoo.load(runs[0] / "run/start.safetensors").network
    size = sum(4 * weight.numel() for weight in network.parameters())
    assert [found["forecast"] for found in runs[1]] == [[2, 8, size]] * 2
    assert not (runs[0] / "none").exists()
