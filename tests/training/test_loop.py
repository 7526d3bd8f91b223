"""The loop learns, goes on to the same bits, and stops where a loss is not finite."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fewstep import InvalidInput
from fewstep.training import (
    Batch,
    Diverged,
    Draws,
    Loss,
    Phase,
    Progress,
    Roles,
    Run,
    Settings,
    follower,
    state,
    train,
)

from .linear import QUICK, Fit, Samples, run


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


def stopped(now: Progress) -> None:
    if now.losses:
        raise Killed


def test_it_learns(tmp_path: Path) -> None:
    """With dropout p the best line is 1 - p of the one without: -1.6 for -2."""
    module = train(run(tmp_path, settings=replace(QUICK, steps=300, state_every=300)))
    assert torch.allclose(module.line.weight, -1.6 * torch.eye(3), atol=0.2)


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("kill", ["reporting", "tensors", "writing", "renaming"])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: int, kill: str
) -> None:
    """With three stages, states lie at their edges too: 8 of 24 steps each, a state every 4."""
    method = Fit(stages=stages)
    undisturbed = Samples()
    whole = train(run(tmp_path / "whole", method, data=undisturbed))
    count = 0

    def killed(*args: object, **more: object) -> None:
        nonlocal count
        count += 1
        if count % 9 in (1, 3):
            raise Killed

    def watch(now: Progress) -> None:
        if kill == "reporting":
            killed()

    real = {"tensors": state.write_tensors, "writing": state.write_whole, "renaming": os.replace}
    if kill == "tensors":
        monkeypatch.setattr(state, "write_tensors", lambda *args: (real["tensors"](*args), killed()))
    if kill == "writing":
        monkeypatch.setattr(state, "write_whole", lambda *args: (killed(), real["writing"](*args)))
    if kill == "renaming":
        monkeypatch.setattr(state.os, "replace", lambda *args: (killed(), real["renaming"](*args)))
    data, module = Samples(), None
    for _ in range(60):
        try:
            module = train(run(tmp_path / "killed", method, data=data), watch)
            break
        except Killed:
            continue
    assert module is not None
    assert count > 3
    assert same(whole, module)
    last = {tuple(numbers) for numbers in data.asked}
    assert last == {tuple(numbers) for numbers in undisturbed.asked}
    lines = [json.loads(line)["step"] for line in (tmp_path / "killed/log.jsonl").read_text().splitlines()]
    assert lines == [6, 12, 18, 24]


@dataclass(frozen=True)
class Followed(Fit):
    """It learns from an average of the student too, and keeps the weights that both have before each step."""

    seen: ClassVar[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, target = roles["student"].module, roles["target"].module
        self.seen.append((student.line.weight.detach().clone(), target.line.weight.clone()))
        (loss,) = super().losses(roles, batch, phase, draws)
        x = batch.data
        with torch.no_grad():
            wanted = target.line(x)
        yield loss._replace(value=loss.value + (student.line(x) - wanted).square().mean())


def followed(folder: Path, method: Followed, settings: Settings = QUICK) -> Run:
    method.seen.clear()
    made = run(folder, method, settings)
    return made._replace(roles={**made.roles, "target": follower(made.roles, 0.8)})


def test_an_average_goes_after_the_student_and_takes_no_gradient(tmp_path: Path) -> None:
    method = Followed()
    made = followed(tmp_path, method)
    train(made)
    assert len(method.seen) == 24
    for (_, average), (student, later) in pairwise(method.seen):
        assert torch.allclose(later, 0.8 * average + 0.2 * student, atol=1e-6)
    assert not torch.allclose(*method.seen[6], atol=0.1)
    assert all(weight.grad is None for weight in made.roles["target"].module.parameters())


def test_an_average_that_goes_after_the_student_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = train(followed(tmp_path / "whole", Followed()))
    for _ in range(2):
        with pytest.raises(Killed):
            train(followed(tmp_path / "killed", Followed()), stopped)
    assert same(whole, train(followed(tmp_path / "killed", Followed())))


def test_a_later_stage_begins_with_who_goes_after_the_student(tmp_path: Path) -> None:
    method = Followed(stages=2)
    train(followed(tmp_path, method))
    student, average = method.seen[12]
    assert torch.equal(student, average)
    assert not torch.equal(*method.seen[11])


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    """Without dropout, whose masks differ; to rounding."""
    found = []
    for parts in (1, 4):
        one = run(tmp_path / str(parts), settings=replace(QUICK, accumulate=parts, steps=6))
        for role in one.roles.values():
            role.module.drop.p = 0.0
        found.append(weights(train(one)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_torchs_global_generator_is_left_alone(tmp_path: Path) -> None:
    made = run(tmp_path)
    before = torch.get_rng_state()
    train(made)
    assert torch.equal(before, torch.get_rng_state())


def test_a_later_stage_begins_from_the_averaged_student_as_teacher(tmp_path: Path) -> None:
    """Each stage doubles what the one before answers, less the share of dropout: -1.6, -2.56, -4.1."""
    module = train(run(tmp_path, Fit(stages=3), replace(QUICK, steps=900, batch=16, state_every=300)))
    assert module.line.weight.detach().diagonal().mean().item() == pytest.approx(-4.1, abs=0.3)


def test_a_loss_that_is_not_finite_stops_with_step_and_samples(tmp_path: Path) -> None:
    data = Samples()
    with pytest.raises(Diverged, match="nan at step 6, of the samples") as caught:
        train(run(tmp_path, Fit(nan_at=5), data=data))
    assert ", ".join(map(str, data.asked[-1])) in str(caught.value)
    assert (tmp_path / "states/latest").read_text() == "step-00000004"


def test_other_settings_are_named(tmp_path: Path) -> None:
    train(run(tmp_path))
    with pytest.raises(InvalidInput, match=r"other settings \(settings.rate is 0.05 there and 0.1 here\): give"):
        train(run(tmp_path, settings=replace(QUICK, rate=0.1)))
    with pytest.raises(InvalidInput, match=r"settings.seed is 4 there and 5 here; settings.steps is 24 there and 30"):
        train(run(tmp_path, settings=replace(QUICK, steps=30, seed=5)))
    train(run(tmp_path, settings=replace(QUICK, state_every=7, log_every=3)))  # which decide nothing


def test_a_damaged_state_is_refused_and_the_earlier_one_can_be_named(tmp_path: Path) -> None:
    whole = train(run(tmp_path))
    states = tmp_path / "states"
    assert sorted(path.name for path in states.glob("step-*")) == ["step-00000020", "step-00000024"]
    tensors = states / "step-00000024/state.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match="is damaged: write the name of an earlier state"):
        train(run(tmp_path))
    (states / "latest").write_text("step-00000020")
    assert same(whole, train(run(tmp_path)))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"run": {}}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    train(run(tmp_path))
    (tmp_path / "states/step-00000024/manifest.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"manifest.json is damaged: write the name of an earlier state"):
        train(run(tmp_path))


def test_states_after_the_one_gone_on_from_are_removed_and_never_it(tmp_path: Path) -> None:
    """Two later ones are left where the newest was renamed into place, and the run killed before it was named."""
    whole = train(run(tmp_path))
    states = tmp_path / "states"
    for later in ("step-00000022", "step-00000023"):
        shutil.copytree(states / "step-00000024", states / later)
    (states / "latest").write_text("step-00000020")
    with pytest.raises(Killed):
        train(run(tmp_path, settings=replace(QUICK, state_every=1, log_every=22)), stopped)
    assert sorted(path.name for path in states.glob("step-*")) == ["step-00000020", "step-00000021"]
    assert same(whole, train(run(tmp_path, settings=replace(QUICK, state_every=1))))


def test_a_run_that_goes_on_says_where_it_is_and_how_long_it_took(tmp_path: Path) -> None:
    told: list[Progress] = []
    train(run(tmp_path), told.append)
    assert [now.step for now in told] == [6, 12, 18, 24]
    again: list[Progress] = []
    train(run(tmp_path), again.append)
    (now,) = again
    assert (now.step, dict(now.losses), now.left) == (24, {}, 0)
    assert now.seconds == pytest.approx(told[-1].seconds)
    assert now.seconds > 0


def test_what_a_kill_left_of_a_state_is_removed(tmp_path: Path) -> None:
    (tmp_path / "states/.step-00000099.part").mkdir(parents=True)
    train(run(tmp_path))
    assert not list((tmp_path / "states").glob(".*"))


def test_a_large_list_in_the_facts_of_a_run_is_read_again(tmp_path: Path) -> None:
    facts = {"words": [f"{i:0100}" for i in range(12_000)]}
    for _ in range(2):
        train(run(tmp_path, settings=replace(QUICK, steps=2))._replace(identity=facts))


def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = state.write_whole

    def full(path: Path, content: bytes) -> None:
        if "step-00000012" in str(path) and path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    monkeypatch.setattr(state, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        train(run(tmp_path))
    assert (tmp_path / "states/latest").read_text() == "step-00000008"
    assert not list((tmp_path / "states").glob(".*"))
    monkeypatch.setattr(state, "write_whole", real)
    assert same(train(run(tmp_path)), train(run(tmp_path / "other")))


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    """The loss is finite, its slope is not: sqrt at 0."""

    class Steep(Fit):
        def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
            for loss in super().losses(roles, batch, phase, draws):
                yield loss._replace(value=loss.value + (0.0 * loss.value).sqrt()) if phase.step == 4 else loss

    for clip in (0.0, 1.0):
        folder = tmp_path / str(clip)
        settings = replace(QUICK, clip=clip, state_every=1)
        with pytest.raises(Diverged, match="gradient of the student is nan at step 5, of the samples"):
            train(run(folder, Steep(), settings))
        assert (folder / "states/latest").read_text() == "step-00000004"


def test_a_later_teacher_has_the_buffers_of_the_student(tmp_path: Path) -> None:
    made = run(tmp_path, Fit(stages=2), replace(QUICK, width=0))
    for role in made.roles.values():
        role.module.register_buffer("seen", torch.zeros(1))
    student = made.roles["student"].module

    def count(module: torch.nn.Module, *_: object) -> None:
        module.seen.add_(1)

    student.register_forward_hook(count)
    train(made)
    assert float(student.seen) == 24
    assert float(made.roles["teacher"].module.seen) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"rate": float("nan")}, "rate"),
        ({"batch": 9, "accumulate": 2}, "equal parts"),
        ({"decay": "cosin"}, "did you mean 'cosine'"),
        ({"optimiser": "sgd"}, "optimiser"),
        ({"width": 0.5}, "width"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        replace(QUICK, **change)
