"""Looks at a student while it is trained change nothing, say what leaves its range, and keep the best weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.distillation import (
    Checks,
    Consistency,
    Endpoint,
    Health,
    Measuring,
    Progressive,
    Regression,
    Settings,
    Source,
    Watch,
    distill,
)
from fewstep.distillation.judging.health import BEST, Best, Watcher, judged_by, remarks_of, weights_of
from fewstep.distillation.judging.trajectory import Trajectories
from fewstep.training import STUDENT, student_of
from fewstep.zoo import container
from models import tiny

from .judged import judge_of, pair_of, teacher_of

QUICK = Settings(steps=40, batch=16, rate=2e-3, state_every=20, log_every=20)
SOURCE = Source(count=32, steps=4, held_out=16, guidance=1.0)
EVERY = Measuring(checks=Checks(every=10, count=16))


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


def weights(path: Path, step: int) -> dict[str, torch.Tensor]:
    return container.inspect(path / f"states/step-{step:08d}/state.safetensors").tensors()


@pytest.mark.parametrize("method", [Regression(rows=2), Consistency(step="ddim", first=4, stages=1, rows=2)])
def test_with_looks_and_without_what_is_trained_is_the_same_to_the_bit(
    method: Any, teacher: Path, tmp_path: Path
) -> None:
    seen: list[Health] = []
    watch = Watch(health=seen.append)
    distill(teacher, method, tmp_path / "a", settings=QUICK, source=SOURCE, measuring=EVERY, watch=watch)
    distill(teacher, method, tmp_path / "b", settings=QUICK, source=SOURCE, measuring=Measuring(checks=Checks(every=0)))
    one, other = weights(tmp_path / "a", 40), weights(tmp_path / "b", 40)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [found.step for found in seen] == [10, 20, 30, 40]
    assert not (tmp_path / f"b/states/{BEST}").exists()


def test_looks_are_in_the_log_and_say_how_it_goes(teacher: Path, tmp_path: Path) -> None:
    distill(
        teacher, Regression(), tmp_path / "run", settings=replace(QUICK, log_every=7), source=SOURCE, measuring=EVERY
    )
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    seen = [line for line in lines if "seen" in line]
    assert [line["step"] for line in seen] == [10, 20, 30, 40]
    assert set(seen[0]["seen"]) == {"error", "distance", "diversity", "saturation"}
    assert seen[-1]["seen"]["error"] < seen[0]["seen"]["error"]
    assert [line["step"] for line in lines if "loss" in line] == [7, 14, 21, 28, 35, 40]


class Script:
    """Errors of looks as they are written down."""

    def __init__(self, errors: Sequence[float]) -> None:
        self.errors = iter(errors)

    def __call__(self, *_: Any) -> dict[str, float]:
        return {"error": next(self.errors), "distance": 0.0, "diversity": 1.0, "saturation": 0.0}


def test_the_best_weights_are_the_student_and_the_report_says_of_which_step(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "figures", Script([0.5, 0.2, 0.3, 0.4]))
    seen: list[Health] = []
    watch = Watch(health=seen.append)
    found = distill(teacher, Regression(), tmp_path / "a", settings=QUICK, source=SOURCE, measuring=EVERY, watch=watch)
    assert [one.best for one in seen] == [10, 20, 20, 20]
    assert found.report.step == 20
    assert found.report.notes[-1] == "The student is the best that was seen, of step 20 of 40"
    kept = container.inspect(tmp_path / f"a/states/{BEST}").tensors()
    average = weights(tmp_path / "a", 20)
    own = dict(found.pipe.model.denoiser().module.named_parameters())  # type: ignore[union-attr]
    assert all(torch.equal(kept[f"student.{name}"], average[f"student.average.0.05.{name}"]) for name in own)
    assert all(torch.equal(own[name], kept[f"student.{name}"]) for name in own)
    assert json.loads((tmp_path / "a/report.json").read_text())["step"] == 20


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


@pytest.mark.parametrize("errors", [[0.5, 0.2, 0.3, 0.4], [0.5, 0.4, 0.2, 0.3]])
def test_a_run_that_is_killed_at_any_look_ends_with_the_same_best_weights(
    errors: list[float], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With states after 20 and 40: looks after 30 are taken twice where the kill comes after them."""
    by_step = dict(zip((10, 20, 30, 40), errors, strict=True))
    real = Watcher.__call__

    def called(self: Watcher, step: int, roles: Any) -> Any:
        monkeypatch.setattr(Watcher, "figures", Script([by_step[step]]))
        found = real(self, step, roles)
        if step in kills:
            kills.remove(step)
            raise Killed
        return found

    monkeypatch.setattr(Watcher, "__call__", called)
    kills: list[int] = []
    whole = distill(teacher, Regression(), tmp_path / "a", settings=QUICK, source=SOURCE, measuring=EVERY)
    kills = [10, 30, 30, 40]
    found = None
    while found is None:
        try:
            found = distill(teacher, Regression(), tmp_path / "b", settings=QUICK, source=SOURCE, measuring=EVERY)
        except Killed:
            continue
    assert not kills
    assert found.report.step == whole.report.step == min(by_step, key=lambda step: by_step[step])
    assert found.pipe.model.digest == whole.pipe.model.digest
    again = distill(teacher, Regression(), tmp_path / "b", settings=QUICK, source=SOURCE, measuring=EVERY)
    assert again.pipe.model.digest == whole.pipe.model.digest


def test_checks_of_another_kind_are_another_run(teacher: Path, tmp_path: Path) -> None:
    """As they decide which weights are the student."""
    run: dict[str, Any] = {"settings": QUICK, "source": SOURCE}
    distill(teacher, Regression(), tmp_path / "a", **run, measuring=EVERY)
    other = Measuring(checks=Checks(every=20, count=16))
    with pytest.raises(InvalidInput, match=r"checks.every is 10 there and 20 here"):
        distill(teacher, Regression(), tmp_path / "a", **run, measuring=other)


def watcher(folder: Path, method: Any, steps: int = 10, identity: str = "one") -> Watcher:
    of = teacher_of(folder, steps=4, guidance=1.0)
    return Watcher(method, Checks(count=16), judge_of(of, folder, 16), folder / "states", {"run": identity}, steps)


def test_the_best_weights_of_another_run_count_for_nothing_and_damaged_ones_are_named(tmp_path: Path) -> None:
    first = watcher(tmp_path, Regression())
    roles = student_of(first.judge.held_out.teacher.pipe.model.denoiser())
    first.keep(Best(3, 0.25, 3), weights_of(roles))
    assert watcher(tmp_path, Regression()).best == Best(3, 0.25, 3)
    assert watcher(tmp_path, Regression(), identity="other").best is None
    path = tmp_path / "states" / BEST
    content = path.read_bytes()
    for damaged in (content[:-40], b"", content.replace(b"step", b"stop", 1)):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"best.safetensors is damaged .*: remove it, and the best of the looks"):
            watcher(tmp_path, Regression())


def test_a_look_that_is_not_finite_is_never_better(tmp_path: Path) -> None:
    looks = watcher(tmp_path, Regression())
    roles = student_of(looks.judge.held_out.teacher.pipe.model.denoiser())
    good = looks(5, roles)
    assert looks.best is not None
    assert looks.best.step == 5
    with torch.no_grad():
        next(roles[STUDENT].module.parameters()).fill_(torch.nan)
    bad = looks(6, roles)
    assert looks.best.step == 5
    assert "error" in good.figures
    assert not {"error", "distance"} & set(bad.figures)


def test_of_unsure_distances_the_later_weights_are_kept_until_one_is_surely_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watcher(tmp_path, Regression())
    roles = student_of(looks.judge.held_out.teacher.pipe.model.denoiser())
    values = iter([0.30, 0.20, 0.24, 0.28, 0.24])

    def figures(*_: Any) -> dict[str, float]:
        return {"distance": next(values), "unsure": 0.05, "diversity": 1.0, "saturation": 0.0}

    monkeypatch.setattr(Watcher, "figures", figures)
    found = []
    for step in range(1, 6):
        looks(step, roles)
        found.append(looks.best)
    assert found == [Best(1, 0.3, 1), Best(2, 0.2, 2), Best(3, 0.2, 2), Best(3, 0.2, 2), Best(5, 0.2, 2)]


def test_where_the_plan_draws_noise_self_consistency_judges_before_the_distance() -> None:
    assert judged_by({"distance": 1.0, "self-consistency": 1.0}) == "self-consistency"
    assert judged_by({"distance": 1.0, "self-consistency": 1.0, "error": 1.0}) == "error"


def test_only_the_last_round_is_looked_at(tmp_path: Path) -> None:
    """In earlier ones the student draws in twice as many rows, or more."""
    looks = watcher(tmp_path, Progressive(begin=4, end=1, longer=1), steps=10)
    roles = student_of(looks.judge.held_out.teacher.pipe.model.denoiser())
    assert not looks(5, roles).figures
    assert looks(6, roles).figures


USUAL = {"error": 1.0, "distance": 1.0, "diversity": 1.0, "saturation": 0.0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"error": 1.09}, []),
        ({"error": 2.0}, ["error: 2 times that of step 3, whose weights are kept: lower the rate"]),
        ({"diversity": 0.7}, ["diversity: 70% of the teacher's: pictures are blurred or alike; train longer"]),
        (
            {"diversity": 1.3},
            ["diversity: 130% of the teacher's: noise is left in the pictures; lower the rate, or train longer"],
        ),
        (
            {"saturation": 0.2},
            ["saturation: 20% of the pixels more than the teacher's are at an end of the range: lower the rate, or the "
             "guidance"],
        ),
        ({"saturation": -0.2}, ["saturation: 20% of the pixels less than the teacher's are at an end of the range: "
                                "train longer"]),
        ({"boundary": 0.04, "self-consistency": 0.4}, []),
        (
            {"boundary": 0.3},
            ["boundary: 0.30 at the least noise, where the estimate is to be the picture itself: draw less noise "
             "(least), or lower the rate"],
        ),
        (
            {"self-consistency": 0.6},
            ["self-consistency: 0.60 between estimates along a trajectory and its end: train longer, or lower the rate "
             "where it grows"],
        ),
    ],
)  # fmt: skip
def test_figures_out_of_their_range_are_named_with_what_to_do(changed: dict[str, float], words: list[str]) -> None:
    found = remarks_of({**USUAL, **changed}, 9, Best(3, 1.0, 3))
    assert [f"{one.figure}: {one.words}" for one in found] == words


def test_the_best_look_itself_is_not_worse_than_any() -> None:
    assert not remarks_of({**USUAL, "error": 5.0}, 9, Best(9, 5.0, 9))


def test_blurred_and_noisy_pictures_are_told_by_their_diversity(tmp_path: Path) -> None:
    looks = watcher(tmp_path, Regression())
    states = looks.judge.held_out.states(range(16)).clamp(-1, 1)

    def diversity(draw: Callable[[Sequence[int]], torch.Tensor]) -> float:
        return looks.figures(looks.judge.look(draw), False)["diversity"]

    assert diversity(looks.judge.held_out.states) == 1
    assert diversity(lambda part: 0.5 * states[list(part)]) == pytest.approx(0.5, abs=0.02)
    ends = looks.figures(looks.judge.look(lambda part: states[list(part)].sign()), False)["saturation"]
    assert ends == pytest.approx(1 - looks.teacher.saturation)


class Constant(torch.nn.Module):
    """The teacher's picture of each noise, whatever the state: a perfect consistency student."""

    def __init__(self, ends: torch.Tensor) -> None:
        super().__init__()
        self.ends = ends

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.ends[: len(x)]


def test_a_perfect_consistency_student_has_no_error_along_a_trajectory_and_the_teacher_has(tmp_path: Path) -> None:
    of = teacher_of(tmp_path, steps=20, guidance=1.0)
    pairs, _ = pair_of(of, tmp_path, 16)
    schedule = of.pipe.model.schedule
    between = Consistency().consistent(schedule)
    found = Trajectories.of(pairs, between)
    assert len(found.stations) == 5
    assert all(between[0] <= at.ratio <= between[1] for at in found.stations)
    perfect = fs.Network(Constant(pairs.states(range(16))), schedule, "sample")
    assert set(found.errors(perfect).values()) == {0.0}
    usual = found.errors(of.pipe.model.denoiser())
    each = [usual[f"self-consistency at {at.ratio:.3g}"] for at in found.stations]
    assert usual["self-consistency"] == max(each) == each[0] > 0.1
    assert usual["boundary"] < 0.1


def test_a_student_by_endpoint_is_looked_at_on_its_own_levels_and_at_the_boundary_where_it_learns_that(
    tmp_path: Path,
) -> None:
    of = teacher_of(tmp_path, steps=4, guidance=1.0)
    pairs, _ = pair_of(of, tmp_path, 16)
    plan = of.order.plan
    for levels, times in ((4, [row.t for row in plan.rows]), (2, [plan.rows[0].t, plan.rows[2].t])):
        between = Endpoint(rows=1, levels=levels).suited(plan).consistent(of.pipe.model.schedule)
        found = Trajectories.of(pairs, between)
        assert found.stations[0].time == times[0]
        assert found.stations[-1].time == times[-1]
        assert (found.boundary is None) == (levels == 2)  # the last row of four is next to the picture
        assert ("boundary" in found.errors(of.pipe.model.denoiser())) == (levels == 4)


def test_the_states_that_are_followed_are_on_the_way_to_the_picture(tmp_path: Path) -> None:
    """From the last of them the teacher's own last row leads to its end."""
    of = teacher_of(tmp_path, steps=6, guidance=1.0)
    pairs, _ = pair_of(of, tmp_path, 16)
    found = Trajectories.of(pairs, (0.0, 1e9))
    plan, last = of.order.plan, found.stations[-1]
    assert last.time == plan.rows[-1].t
    asked: list[torch.Tensor] = []
    denoiser = of.pipe.denoiser([(pairs.first + n) % tiny.CLASSES for n in range(16)], guidance=1.0)
    noise = pairs.batch(range(16)).noise
    assert noise is not None
    fs.sample(plan, denoiser, start=noise * plan.entry[1], on_row=lambda now: asked.append(now.data()))
    estimate = denoiser.estimate(last.states, level_of(plan, last.states))[0]
    assert torch.allclose(estimate, asked[-1], atol=1e-4)


def level_of(plan: fs.Plan, x: torch.Tensor) -> Any:
    row = plan.rows[-1]
    return fs.denoise.base.Level.at([(row.t, row.alpha, row.sigma)], x)


@pytest.mark.parametrize("given", [{"every": -1}, {"count": 4}, {"every": 1.5}])
def test_checks_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="of checks must be a whole number of at least"):
        Checks(**given)
    with pytest.raises(InvalidInput, match="tune is a number of seconds"):
        Measuring(tune=-1)
