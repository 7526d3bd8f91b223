"""Distil, then tune: plans of students, by an error or by a distance, certified on noise that no search saw.

The students are the teacher's own network under plans that do not suit it, so that there is something to find and
nothing to train.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import fewstep as fs
from fewstep.benchmark.yardstick import features_of
from fewstep.core.plan import TunedFor
from fewstep.denoise.row import RowFacts, is_direct
from fewstep.distillation import (
    Checks,
    Consistency,
    Measuring,
    Phased,
    Regression,
    Settings,
    Source,
    StudentCertificate,
    distill,
    student,
    tune_student,
)
from fewstep.distillation.judging.judge import Interval, typical
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.distillation.plan_search import grounds, trials
from fewstep.distillation.plan_search.comparison import is_better
from fewstep.distillation.plan_search.offer import offer_of
from fewstep.distillation.plan_search.trials import Trials
from fewstep.distillation.plan_search.tunable import tunable_of
from fewstep.measure.distance import squares
from fewstep.training.rows import with_rows
from fewstep.training.scale import with_scale
from fewstep.tuning import Sizes, TuningSettings, Uncertified
from fewstep.tuning.timelimit import TimeLimit
from models import tiny

STEPS = 8
SIZES = Sizes(train=64, validation=48, held_out=96, pilot=2, path=2, rungs=(2,))
QUICK = TuningSettings(seconds=10_000, iterations=36, sizes=SIZES)
NONE_MORE = replace(QUICK, iterations=0)


def written(
    folder: Path, method: Any, plans: list[fs.Plan], change: Callable[[fs.Network], fs.Network] | None = None, **of: Any
) -> Path:
    """The teacher `folder/tiny.safetensors` and a student of it; `change` makes another network of the teacher's."""
    source = tiny.write(folder / "tiny.safetensors")
    pipe = fs.load(source)
    network = pipe.model.denoiser() if change is None else change(pipe.model.denoiser())
    assert isinstance(network.module, nn.Module)
    facts = {
        "student": student.taught_by(Teacher.of(pipe, None, 2.0, STEPS), str(source), 1) | of,
        "method": {"name": method.name, **asdict(method)},
        "data": {"teacher": pipe.model.digest},
    }
    target = folder / "student.safetensors"
    student.write(target, source, network.module, plans, facts)
    return target


def schedule() -> fs.schedules.Schedule:
    return fs.schedules.linear()


def late() -> list[fs.Plan]:
    """Rows at times that are far too early or late."""
    return [fs.compile("ddim", schedule=schedule(), times=[999, 980, 30, -1])]


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A student by consistency, which draws noise, in 2 rows."""
    method = Consistency(rows=2)
    return written(tmp_path, method, [fs.compile("consistency", schedule=schedule(), times=[999, 900, -1])])


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    """A student that is to make its teacher's pictures, in 3 rows."""
    return written(tmp_path, Phased(plans=(3,), levels=8), late())


def test_a_student_that_draws_noise_is_tuned_by_the_distance_and_gains_on_noise_of_its_own(noisy: Path) -> None:
    plan, found = tune_student(noisy, settings=QUICK)
    assert found.objective == "distance"
    assert found.better, found.verdict
    assert found.gain is not None
    assert found.gain.low > 0
    assert found.verdict.startswith("The tuned plan has ")
    assert plan.digest == found.plan
    assert plan.tuned_for == TunedFor(fs.load(noisy).model.digest, {"guidance": 2.0})
    assert found.compared[0].who == "its own plan"
    assert found.compared[0].fresh == [1.0, 0.0]
    other = on_other_noise(noisy)
    before, after = (other.judge().distance(other.look(one)) for one in (fs.load(noisy).plan(), plan))
    assert before is not None
    assert after is not None
    gain = before.value - after.value
    assert gain > 0
    assert found.gain.low - 0.5 * found.gain.value < gain < found.gain.high + 0.5 * found.gain.value


def on_other_noise(path: Path, objective: str = "distance") -> Trials:
    """Noise of another seed, with the teacher's pictures of it and of other noise."""
    subject = tunable_of(path, fs.load(path))
    task = grounds.StudentTask(
        subject,
        features_of(subject.pipe),
        replace(QUICK, seed=5),
        objective,
        TimeLimit(1e9, lambda: 0.0),
        lambda *told: None,
    )
    return grounds.grounds_of(task).held_out


def test_a_student_that_is_to_make_the_teachers_pictures_is_tuned_by_the_error_and_draws_no_noise(paired: Path) -> None:
    plan, found = tune_student(paired, settings=QUICK)
    assert (found.objective, found.better) == ("psnr", True)
    assert found.gain is not None
    assert found.gain.low > 1
    assert not plan.stochastic
    assert len(plan.rows) == 3
    assert set(found.search["free"]) == {"start", "gaps", "weights"}
    other = on_other_noise(paired, "psnr")
    states = [other.draw(one)(range(96)) for one in (fs.load(paired).plan(), plan)]
    before, after = (typical(squares(each, other.pairs.states(range(96)))).value for each in states)
    assert found.gain.low * 0.8 < before / after < found.gain.high * 1.25
    by_all = tune_student(paired, settings=replace(NONE_MORE, objective="rmse")).certificate
    assert by_all.objective == "rmse"
    assert by_all.gain is not None
    assert by_all.gain.low < by_all.gain.value < by_all.gain.high


def test_the_plan_reads_back_and_draws_with_the_student_alone(noisy: Path, tmp_path: Path) -> None:
    plan, found = tune_student(noisy, settings=NONE_MORE)
    plan.save(tmp_path / "plan.json")
    again = fs.Plan.load(tmp_path / "plan.json")
    assert again == plan
    pipe = fs.load(noisy)
    assert pipe([0, 1], sampler=again, seed=3).tensor.shape == (2, 1, 4, 4)
    with pytest.raises(fs.InvalidInput, match="was tuned for a model with digest"):
        fs.models.check_tuned_for(again, fs.load(tmp_path / "tiny.safetensors").model.identity, "use --force")
    paths = found.save(tmp_path / "plan.certificate.json")
    told = json.loads(paths[0].read_text())
    assert told["plan"] == plan.digest
    assert told["compared"][0]["who"] == "its own plan"
    assert told["teacher"]["rows"] == STEPS
    assert told["notes"] == []
    assert "The first pictures of held-out noise" in paths[1].read_text()


def test_the_teacher_draws_by_the_plan_that_the_students_files_hold(tmp_path: Path) -> None:
    """Of no sampler at any number of steps; without it in its usual steps, and with one that was edited not at all."""
    source = tiny.write(tmp_path / "tiny.safetensors")
    taught = Teacher.of(fs.load(source), None, 2.0, None, fs.compile("heun", schedule=schedule(), times=[999, 333, -1]))
    plan = json.loads(taught.order.plan.to_json())
    method, own = Phased(plans=(4,), levels=8), late()
    subject = tunable_of(path := written(tmp_path, method, own, plan=plan), fs.load(path))
    assert (subject.teacher.order.plan, subject.held_out.order.plan) == (taught.order.plan, taught.order.plan)
    assert subject.notes == ()
    assert tunable_of(path, fs.load(path), teacher_steps=3).teacher.order.plan.recipe.steps == 3
    subject = tunable_of(path := written(tmp_path, method, own, plan=None), fs.load(path))
    assert subject.teacher.order.plan.recipe.steps == 20
    assert "do not say by which plan its teacher drew" in subject.notes[0]
    edited = plan | {"A": [[[2.0]]] * 3}
    path = written(tmp_path, method, own, plan=edited)
    with pytest.raises(fs.InvalidInput, match="edited"):
        tunable_of(path, fs.load(path))


def test_a_plan_that_nothing_beats_stays_and_the_certificate_says_so(tmp_path: Path) -> None:
    """The teacher's own plan, which has no error at all."""
    source = tiny.write(tmp_path / "tiny.safetensors")
    own = Teacher.of(fs.load(source), None, 1.0, 4).order.plan
    path = written(tmp_path, Phased(plans=(4,), levels=8), [own], guidance=1.0)
    plan, found = tune_student(path, teacher_steps=4, settings=NONE_MORE)
    assert plan == own
    assert plan.tuned_for is None
    assert not found.better
    assert found.gain is None
    tried = found.search["tried"]
    assert tried > 20
    assert found.verdict == f"Keep its own plan: none of {tried} other plans did better on the pictures to choose by"


def test_the_pictures_to_search_to_choose_and_to_report_on_are_never_the_same(
    noisy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def met() -> int:
        """Numbers that are in two parts."""
        sets = [range(one.pairs.first, one.pairs.first + one.pairs.count) for one in three(noisy)]
        sets += [range(one.reference.first, one.reference.first + one.reference.count) for one in three(noisy)[1:]]  # type: ignore[union-attr]
        every = [number for each in sets for number in each]
        return len(every) - len(set(every))

    assert met() == 0
    monkeypatch.setattr(grounds, "HELD_OUT", trials.TRAIN)
    assert met() > 0


def three(path: Path) -> list[Trials]:
    """The parts of a tuning."""
    subject = tunable_of(path, fs.load(path))
    time = TimeLimit(1e9, lambda: 0.0)
    task = grounds.StudentTask(subject, features_of(subject.pipe), QUICK, "distance", time, lambda *told: None)
    return list(grounds.grounds_of(task)[1:])


def test_an_objective_of_the_wrong_sign_gains_nothing(paired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Trials.value
    monkeypatch.setattr(Trials, "value", lambda self, plan, count=None: -right(self, plan, count))
    plan, found = tune_student(paired, settings=NONE_MORE)
    assert plan == fs.load(paired).plan()
    assert not found.better
    assert found.gain is not None
    assert found.gain.high < 1
    assert "which is not surely better" in found.verdict


@pytest.mark.parametrize(
    ("gain", "farther", "objective", "better"),
    [
        ((1.2, 1.1, 1.3), (0.0, -1.0, 1.0), "psnr", True),
        ((1.2, 0.99, 1.3), (0.0, -1.0, 1.0), "psnr", False),
        ((1.2, 1.1, 1.3), (2.0, 1.0, 3.0), "psnr", False),  # blurred: nearer one by one, and surely farther in all
        ((0.5, 0.1, 0.9), (-0.5, -0.9, -0.1), "distance", True),
        ((0.5, -0.1, 0.9), (-0.5, -0.9, 0.1), "distance", False),
        (None, None, "distance", False),
    ],
)
def test_a_plan_is_better_where_its_interval_says_so(gain: Any, farther: Any, objective: str, better: bool) -> None:
    found, more = (None if one is None else Interval(*one) for one in (gain, farther))
    assert is_better(found, more, objective) is better


def test_without_time_the_own_plan_is_measured_and_returned(noisy: Path) -> None:
    clock = iter(range(0, 10**9, 100))
    plan, found = tune_student(noisy, settings=replace(QUICK, seconds=1.0, clock=lambda: float(next(clock))))
    assert plan == fs.load(noisy).plan()
    assert found.verdict == "Keep its own plan: no other was tried, as no time was left to search"
    assert found.search == {"tried": 0, "cut": True, "free": ["fresh", "gaps", "start", "weights"]}
    assert found.compared[0].distance is not None


def test_ctrl_c_ends_the_search_and_once_more_leaves_the_plan_without_a_certificate(noisy: Path) -> None:
    def stops(*where: str) -> Callable[[str, int, int, str], None]:
        def watch(stage: str, done: int, of: int, words: str) -> None:
            if stage in where and (stage != "search" or done > 30):
                raise KeyboardInterrupt

        return watch

    _, found = tune_student(noisy, settings=QUICK, watch=stops("search"))
    assert found.stopped == "interrupted"
    assert found.search["tried"] == 31
    with pytest.raises(Uncertified) as stopped:
        tune_student(noisy, settings=QUICK, watch=stops("search", "certificate"))
    assert len(stopped.value.plan.rows) == 2
    with pytest.raises(KeyboardInterrupt):
        tune_student(noisy, settings=QUICK, watch=stops("teacher"))


def test_a_network_that_is_told_where_its_rows_lead_is_tuned_in_its_times_alone(tmp_path: Path) -> None:
    rows = RowFacts(second_time=True)
    path = written(tmp_path, Phased(plans=(3,), levels=8), late(), lambda network: with_rows(network, rows))
    plan, found = tune_student(path, settings=NONE_MORE)
    assert found.search["free"] == ["gaps", "start"]
    assert found.better
    assert is_direct(plan)
    assert fs.load(path)([0], sampler=plan).tensor.isfinite().all()


def test_a_student_that_is_told_its_scale_is_tuned_at_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, Phased(plans=(3,), levels=8), late(), with_scale, scales=[1.0, 4.0])
    found = tune_student(path, guidance=3.0, teacher_steps=6, settings=NONE_MORE).certificate
    assert found.settings == {"guidance": 3.0}
    assert found.teacher["rows"] == 6
    with pytest.raises(fs.InvalidInput, match="is told guidance from 1 to 4, got 5"):
        tune_student(path, guidance=5.0)


def test_other_rows_are_those_of_a_plan_beside_it_or_as_its_method_says(noisy: Path, tmp_path: Path) -> None:
    assert len(tunable_of(noisy, fs.load(noisy), rows=3).own.rows) == 3
    plans = [*late(), fs.compile("ddim", schedule=schedule(), times=[999, 500, -1])]
    (tmp_path / "other").mkdir()
    path = written(tmp_path / "other", Phased(plans=(3, 2), levels=8), plans)
    assert tunable_of(path, fs.load(path), rows=2).own == plans[1]
    with pytest.raises(fs.InvalidInput, match="draws in 3 or 2 rows, which it learned, got 4"):
        tune_student(path, rows=4)


def test_what_cannot_be_tuned_is_refused_with_what_to_do(noisy: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "tiny.safetensors"
    another = tiny.write(tmp_path / "another.safetensors", seed=3)
    for call, message in (
        (lambda: tune_student(teacher), "is not a student of `fewstep distill`: use fewstep.tune"),
        (lambda: fs.tune(fs.load(noisy), rows=2), "fewstep.distillation.tune_student or `fewstep tune`"),
        (lambda: tune_student(noisy, rows=1), "plans of 2 to 8 rows are tuned of a student"),
        (lambda: tune_student(noisy, rows=9), "got 9: give --rows 2, which it has plans for"),
        (lambda: tune_student(noisy, teacher=another), "was distilled from a model with digest"),
        (lambda: tune_student(noisy, guidance=3.0), "with guidance 2 inside, and takes no other"),
        (lambda: tune_student(noisy, settings=replace(QUICK, samplers=["ddim"])), "without samplers"),
        (lambda: tune_student(noisy, settings=replace(QUICK, interval=True)), "without interval"),
        (lambda: tune_student(noisy, settings=replace(QUICK, factors=False)), "--constant-guidance"),
        (lambda: tune_student(noisy, settings=replace(QUICK, objective="ssim")), "unknown objective 'ssim'"),
        (lambda: tune_student(noisy, settings=replace(QUICK, objective="psnr")), "an error says nothing"),
        (lambda: tune_student(noisy, settings=replace(QUICK, prompts="p.txt")), "draws classes"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            call()
    teacher.unlink()
    with pytest.raises(fs.InvalidInput, match=r"neither a shipped model nor a path from here: .* teacher=\.\."):
        tune_student(noisy)


def test_a_student_that_gives_several_guesses_is_refused_as_it_knows_its_own_rows_alone(tmp_path: Path) -> None:
    rows = RowFacts(guesses=2)
    path = written(tmp_path, Phased(plans=(3,), levels=8), late(), lambda network: with_rows(network, rows))
    with pytest.raises(fs.InvalidInput, match="gives 2 guesses for a row, which it learned for the rows of its own"):
        tune_student(path)


def test_a_report_offers_the_command(noisy: Path, tmp_path: Path) -> None:
    source = tmp_path / "tiny.safetensors"
    pipe, network = fs.load(source), fs.load(noisy).model.denoiser()
    one, two = (fs.compile("ddim", schedule=schedule(), steps=steps) for steps in (1, 2))
    said = offer_of(noisy, network, [one, two], pipe, source)
    assert said.endswith(f"fewstep tune {noisy} --rows 2 --teacher {source}")
    assert offer_of(noisy, network, [one], pipe, source) == ""
    shipped = fs.load("digits")
    assert offer_of(noisy, network, [two], shipped, source).endswith(f"fewstep tune {noisy} --rows 2")


def test_a_student_of_a_distillation_is_offered_to_be_tuned_and_is(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "tiny.safetensors")
    few: dict[str, Any] = {"settings": Settings(steps=2, batch=8), "source": Source(count=16, steps=6, held_out=16)}
    found = distill(source, Regression(rows=2), tmp_path / "run", measuring=Measuring(Checks(every=0)), **few)
    command = f"fewstep tune {found.path} --rows 2 --teacher {source}"
    assert found.report.notes[-1] == f"Its plan can be tuned, without training it again: {command}"
    with pytest.raises(fs.InvalidInput, match="was distilled from 'tiny', which is neither a shipped model nor a path"):
        tune_student(found.path)
    tuned = tune_student(found.path, teacher=source, settings=replace(NONE_MORE, sizes=Sizes.of(16))).certificate
    assert (tuned.objective, tuned.teacher["rows"], tuned.notes) == ("psnr", 6, ())


def test_a_certificate_of_lost_pictures_or_ties_claims_nothing() -> None:
    facts: dict[str, Any] = {name: {} for name in ("model", "teacher", "settings", "images", "seconds")}
    own = StudentCertificate(
        "p", False, 4, **facts, schedule="", seed=0, objective="psnr", measure="", compared=(), gain=None,
        farther=None, floor=None, search={"tried": 0, "cut": True},
    )  # fmt: skip
    assert own.verdict == "Keep its own plan: no other was tried, as there is nothing of it to search"
    worse = replace(own, gain=Interval(1.2, 1.1, 1.3), farther=Interval(2.0, 1.0, 3.0))
    assert worse.verdict.endswith("on held-out noise, and surely more distance")
    assert "1.2 times less error of the typical picture (1.1 to 1.3)" in worse.verdict
