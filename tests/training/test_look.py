"""Looks at the averaged weights and loggers, none of which changes a bit of the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep import InvalidInput
from fewstep.training import STUDENT, Progress, Roles, Seen, TensorBoard, train

from .linear import QUICK, run


class Glance:
    """Draws from the global generator and writes to the weights, and must not matter."""

    every = 5

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool, Tensor]] = []

    def __call__(self, step: int, roles: Roles) -> Seen:
        module = roles[STUDENT].module
        weight = module.line.weight
        assert isinstance(weight, Tensor)
        self.seen.append((step, module.training, weight.clone()))
        weight.add_(torch.randn(3, 3))
        return Seen({"first": float(self.seen[-1][2][0, 0])}, {"square": torch.full((2, 1, 4, 4), 0.5)})


class Told:
    """A logger that keeps all."""

    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []
        self.shown: list[tuple[int, str, tuple[int, ...]]] = []
        self.closed = 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.values.append((step, dict(values)))

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        self.shown.append((step, name, tuple(images.shape)))

    def close(self) -> None:
        self.closed += 1


def test_looks_and_loggers_change_nothing_and_are_told_all(tmp_path: Path) -> None:
    glance, told = Glance(), Told()
    watched = train(run(tmp_path / "watched")._replace(looks=[glance], loggers=[told]))
    alone = train(run(tmp_path / "alone"))
    states = [tmp_path / name / "states/step-00000024/state.safetensors" for name in ("watched", "alone")]
    assert states[0].read_bytes() == states[1].read_bytes()
    assert [step for step, _, _ in glance.seen] == [5, 10, 15, 20, 24]
    assert not any(training for _, training, _ in glance.seen)
    assert torch.equal(glance.seen[-1][2], alone.line.weight)
    assert torch.equal(watched.line.weight, alone.line.weight)
    lines = [json.loads(line) for line in (tmp_path / "watched/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "seen" in line] == [5, 10, 15, 20, 24]
    losses = [(line["step"], line["loss"]["student"]) for line in lines if "loss" in line]
    assert losses == [(step, values["loss/student"]) for step, values in told.values if "rate" in values]
    assert told.shown == [(step, "square", (2, 1, 4, 4)) for step in (5, 10, 15, 20, 24)]
    assert told.closed == 1


def test_progress_says_how_many_images_a_second(tmp_path: Path) -> None:
    told: list[Progress] = []
    train(run(tmp_path), told.append)
    for now in told:
        assert now.speed == pytest.approx(QUICK.batch * now.step / now.seconds)


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), {"images": 0}, purge_orphaned_data=True).Reload()


def test_tensorboard_has_each_step_once_after_an_interruption(tmp_path: Path) -> None:
    """It was told of step 18, and goes on from the state of step 16."""

    class Stop(BaseException):
        pass

    def watch(now: Progress) -> None:
        if now.step == 18 and now.losses:
            raise Stop

    def once(watch: Any) -> None:
        made = run(tmp_path)._replace(looks=[Glance()], loggers=[TensorBoard(tmp_path / "board")])
        train(made, watch)

    with pytest.raises(Stop):
        once(watch)
    once(lambda now: None)
    events = events_of(tmp_path / "board")
    assert [one.step for one in events.Scalars("loss/student")] == [6, 12, 18, 24]
    assert [one.step for one in events.Images("square")] == [5, 10, 15, 20, 24]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"]["student"] for line in lines if "loss" in line]
    assert [one.value for one in events.Scalars("loss/student")] == pytest.approx(losses)


def test_without_tensorboard_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(InvalidInput, match=r"TensorBoard needs tensorboard: pip install 'fewstep\[train\]'"):
        TensorBoard(tmp_path)


def test_a_look_that_fails_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    class Broken(Glance):
        def __call__(self, step: int, roles: Roles) -> Seen:
            super().__call__(step, roles)
            raise OSError("no")

    made = run(tmp_path / "broken", settings=replace(QUICK, state_every=5))._replace(looks=[Broken()])
    with pytest.raises(OSError, match="no"):
        train(made)
    assert made.roles[STUDENT].module.training
    plain = run(tmp_path / "plain", settings=replace(QUICK, steps=24, log_every=5, state_every=5))

    def stop(now: Progress) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        train(plain, stop)
    assert torch.equal(made.roles[STUDENT].module.line.weight, plain.roles[STUDENT].module.line.weight)
