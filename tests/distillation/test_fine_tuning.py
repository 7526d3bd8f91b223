"""A student of few steps that learns something new: what it keeps, what it learns, and how it goes on after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import fewstep as fs
from data.pictures import write_folder
from fewstep import distillation
from fewstep.distillation import (
    Checks,
    DistributionMatching,
    Endpoint,
    Keep,
    Measuring,
    Phased,
    Progressive,
    Regression,
    Settings,
    Source,
    Watches,
    fine_tune,
    fine_tuning_forecast,
)
from fewstep.distillation.fine_tuning import work as fine_tuning_work
from fewstep.distillation.fine_tuning.keeping import Learner, method_of
from fewstep.distillation.fine_tuning.steadfast import Both, Steadfast
from fewstep.distillation.pictures import pairs as pairs_of
from fewstep.distillation.pictures.recording import Recorded
from fewstep.distillation.pictures.teacher import Conditions, Teacher
from fewstep.models import learned_plans
from fewstep.training import STUDENT, TEACHER, Draws, Progress, Watching, train_on
from models import tiny, tiny_diffusers

METHOD = Phased(plans=(2, 1), levels=4)
LEARNING = Settings(steps=150, batch=32, rate=3e-3, log_every=50, state_every=100)
TUNING = Settings(steps=100, batch=32, rate=3e-3, log_every=50, state_every=100)
SHORT = Settings(steps=4, batch=32, rate=3e-3, log_every=2, state_every=2)
SUBJECTS, NEW = (0, 1), 2
PICTURE = np.random.default_rng(0).random((4, 4)).astype(np.float32)
"""That class 2 is to show."""


def distilled(teacher: Path, folder: Path, method: Any = METHOD, settings: Settings = LEARNING) -> Path:
    source = Source(steps=8, count=128, held_out=16, guidance=2.0)
    measuring = Measuring(Checks(every=0))
    return distillation.distill(teacher, method, folder, settings=settings, source=source, measuring=measuring).path


class Place:
    """A teacher, its student, and pictures of one class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = tiny.write(folder / "tiny.safetensors")
        self.student = distilled(self.teacher, folder / "student")
        self.data = folder / "new.npz"
        np.savez(self.data, images=np.stack([PICTURE] * 8), labels=np.full(8, NEW))
        self.keep = Keep(count=64, teacher=self.teacher, teacher_steps=8)

    def tuned(self, folder: Path, settings: Settings = TUNING, **more: Any) -> distillation.FineTuned:
        given = {"keep": self.keep, "settings": settings, **more}
        return fine_tune(self.data, self.student, folder, **given)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def tuned(place: Place) -> distillation.FineTuned:
    """The student that learned the new pictures."""
    return place.tuned(place.folder / "tuned")


def drawn(model: Path, subjects: tuple[int, ...], **more: Any) -> torch.Tensor:
    images = fs.load(model)(list(subjects) * 32, seed=7, **more)
    return images.tensor


def far(place: Place, model: Path) -> float:
    """How many times as far as the student itself a model draws, by the student's plan, from its teacher's pictures of
    what is kept.
    """
    plan = learned_plans(fs.load(place.student).model)[2]
    wanted = drawn(place.teacher, SUBJECTS, steps=8, guidance=2.0)
    errors = [
        float((drawn(one, SUBJECTS, sampling={"plan": plan}, guidance=1.0) - wanted).square().mean().sqrt())
        for one in (model, place.student)
    ]
    return errors[0] / errors[1]


def error(model: Path, **more: Any) -> float:
    """How far what it draws of the new class is from its picture."""
    return float((drawn(model, (NEW,), **more) - torch.from_numpy(2 * PICTURE - 1)).square().mean().sqrt())


def plain(place: Place, folder: Path, steps: int) -> Path:
    """The student, trained on the new pictures as any other model."""
    loaded = fs.zoo.load(place.student)
    facts = {"recommended": loaded.spec.training["recommended"]}
    path = folder / "start.safetensors"
    fs.zoo.save(path, loaded.network, replace(loaded.spec, training=facts))
    return train_on(place.data, path, folder / "plain", settings=replace(TUNING, steps=steps)).path


def test_a_student_learns_what_is_new_and_keeps_the_rest_which_plain_training_loses(
    place: Place, tuned: distillation.FineTuned, tmp_path: Path
) -> None:
    found = tuned
    assert far(place, found.path) < 1.15
    assert far(place, plain(place, tmp_path, 2 * TUNING.steps)) > 1.6
    assert error(found.path) < 0.8 * error(place.student)
    assert found.kept.value < 1.2
    assert found.new.value < 0.6
    report = json.loads((found.path.parent / "report.json").read_text())
    assert report["kept"]["value"] == found.kept.value


@pytest.mark.parametrize("fault", ["nothing is kept", "other samples", "its own answers"])
def test_a_fault_loses_it(
    fault: str, place: Place, tuned: distillation.FineTuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the twin that there is already, which no fault touches."""
    inner, losses = Steadfast.answers, Steadfast.losses

    def answers(self: Steadfast, *given: Any) -> Any:
        places, times, x, aim = inner(self, *given)
        return places, times, x, aim.roll(1, 0)

    def own(self: Steadfast, roles: Any, *given: Any) -> Any:
        return losses(self, {**roles, TEACHER: roles[STUDENT]}, *given)

    if fault == "other samples":
        monkeypatch.setattr(Steadfast, "answers", answers)
    elif fault == "its own answers":
        monkeypatch.setattr(Steadfast, "losses", own)
    for name in ("twin", "pairs"):
        shutil.copytree(tuned.path.parent / name, tmp_path / "run" / name)
    found = place.tuned(tmp_path / "run", keep=replace(place.keep, weight=1e-9 if fault == "nothing is kept" else 1.0))
    assert far(place, found.path) > 1.5
    assert found.kept.value > 1.5


def test_the_plans_stay_and_the_twin_is_the_teacher_of_the_next_time(place: Place, tmp_path: Path) -> None:
    found = place.tuned(tmp_path / "a", SHORT)
    before, after = (learned_plans(fs.load(model).model) for model in (place.student, found.path))
    assert {rows: plan.digest for rows, plan in before.items()} == {rows: plan.digest for rows, plan in after.items()}
    assert fs.load(found.path)([0], steps=1, seed=1).nfe == 1
    again = fine_tune(place.data, found.path, tmp_path / "b", keep=replace(place.keep, teacher=None), settings=SHORT)
    told = again.pipe.model.teacher
    assert told is not None
    assert (told.name, told.guidance) == (str(tmp_path / "b/twin/model.safetensors"), 2.0)


@pytest.mark.parametrize("method", [Endpoint(rows=2, levels=4), Regression(rows=2)])
def test_students_of_other_regressions_keep_their_plan_too(method: Any, place: Place, tmp_path: Path) -> None:
    student = distilled(place.teacher, tmp_path / "student", method, SHORT)
    found = fine_tune(place.data, student, tmp_path / "run", keep=place.keep, settings=SHORT)
    assert found.pipe([0], seed=1).nfe == 2
    assert not torch.equal(drawn(found.path, (NEW,)), drawn(student, (NEW,)))


class Kill(Exception):
    pass


def at(step: int) -> Callable[[Progress], None]:
    def told(now: Progress) -> None:
        if now.step == step:
            raise Kill

    return told


def never(done: int, of: int) -> None:
    raise Kill


PARTS: dict[str, Watches] = {
    "the twin": Watches(twin=Watching(training=at(2))),
    "the pairs": Watches(pairs=never),
    "the student": Watches(training=at(2)),
}


def killed(place: Place, folder: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any, **more: Any) -> None:
        raise Kill

    with monkeypatch.context() as patched:
        if part == "the writing":
            patched.setattr(fine_tuning_work.files, "write", failing)
        with pytest.raises(Kill):
            place.tuned(folder, SHORT, watch=PARTS.get(part, Watches()))


class Whole(NamedTuple):
    """A run that nobody killed, whose folder is free again, as its files name it."""

    folder: Path
    student: bytes
    kept: Any
    new: Any


@pytest.fixture(scope="module")
def whole(place: Place) -> Whole:
    found = place.tuned(place.folder / "run", SHORT)
    student = found.path.read_bytes()
    shutil.rmtree(place.folder / "run")
    return Whole(place.folder / "run", student, found.kept, found.new)


@pytest.mark.parametrize("part", [*PARTS, "the writing"])
def test_a_kill_in_each_part_goes_on_to_the_same_bits(
    part: str, place: Place, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(whole.folder, ignore_errors=True)
    killed(place, whole.folder, part, monkeypatch)
    assert not (whole.folder / "student.safetensors").exists()
    again = place.tuned(whole.folder, SHORT)
    assert again.path.read_bytes() == whole.student
    assert (again.kept, again.new) == (whole.kept, whole.new)


def test_other_settings_are_refused_where_a_run_goes_on(place: Place, tmp_path: Path) -> None:
    place.tuned(tmp_path, SHORT)
    with pytest.raises(fs.InvalidInput, match=r"settings\.rate is 0\.003 there and 0\.5 here"):
        place.tuned(tmp_path, SHORT, keep=replace(place.keep, settings=replace(SHORT, rate=0.5)))


def test_a_lora_is_all_that_changes(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    found = place.tuned(tmp_path, replace(SHORT, adapter=distillation.Adapter(rank=1)))
    before, after = (fs.zoo.load(model).network.state_dict() for model in (place.student, found.path))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert "enter.weight" in changed
    assert not [name for name in changed if not name.endswith(".weight")]
    values = torch.linalg.svdvals((after["enter.weight"] - before["enter.weight"]).flatten(1).double())
    assert values[1] < 1e-3 * values[0]


def test_a_student_of_words_learns_captions_as_a_lora_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    tiny_diffusers.write("sd", tmp_path / "sd")
    data, short = write_folder(tmp_path / "photos", captions=True), replace(SHORT, steps=2)
    source = Source(["a red circle", "a blue square"], 1.0, 3, 16, 16)
    measuring = Measuring(Checks(every=0))
    method = Phased(plans=(2, 1), levels=3)
    student = distillation.distill(
        tmp_path / "sd", method, tmp_path / "few", settings=short, source=source, measuring=measuring
    ).path
    low = replace(short, adapter=distillation.Adapter(rank=1))
    keep = Keep(count=8, teacher=tmp_path / "sd")
    with pytest.raises(fs.InvalidInput, match="is to keep what it draws, and nothing names it: give prompts"):
        fine_tune(data, student, tmp_path / "run", keep=keep, settings=low)
    found = fine_tune(data, student, tmp_path / "run", keep=replace(keep, subjects=["a red circle"]), settings=low)
    assert found.lora is not None
    alone = fs.load(student, lora=found.lora)("colour 3", seed=1).tensor
    assert torch.allclose(alone, found.pipe("colour 3", seed=1).tensor, atol=1e-4)
    assert not torch.allclose(alone, fs.load(student)("colour 3", seed=1).tensor, atol=1e-3)


def test_what_is_kept_are_states_and_answers_of_the_student_along_its_plans(place: Place) -> None:
    network, kept = fs.load(place.student).model.denoiser(), {"label": torch.arange(12) % 2}
    steadfast, draws = Steadfast(method_of(place.student), (2, 1)), Draws(0, 5, range(12), range(12), 12)
    noise = draws.normal("kept", (1, 4, 4))
    places, times, states, answers = steadfast.answers(network, kept, noise, draws)
    assert sorted(places) == list(range(12))
    two, one = (method_of(place.student).plan(network, rows) for rows in (2, 1))
    counts = {time: times.count(time) for time in times}
    assert counts == {two.rows[0].t: 3, two.rows[1].t: 3, one.rows[0].t: 6}
    for at, time, state, answer in zip(places, times, states, answers, strict=True):
        plan = one if time == one.rows[0].t else two
        way = Recorded(network.given({"label": kept["label"][at : at + 1]}))
        fs.sample(plan, way, start=noise[at : at + 1] * plan.entry[1])
        row = [each.t for each in plan.rows].index(time)
        assert torch.allclose(state, way.states[row][0], atol=1e-5)
        assert torch.allclose(answer, way.answers[row][0], atol=1e-5)


def test_every_new_pair_and_everything_that_is_kept_is_met(place: Place, tmp_path: Path) -> None:
    pipe = fs.load(place.teacher)
    new, kept = (Teacher.of(pipe, subjects, 2.0, 8) for subjects in ([2], [0, 1, 0, 1, 1]))
    both = Both(pairs_of.drawn(new, 2, tmp_path), Conditions(kept))
    assert both.count == 6
    batch = both.batch(range(6))
    assert torch.equal(batch.data[:2], batch.data[2:4])
    assert batch.condition["label"].tolist() == [2] * 6
    assert batch.kept["label"].tolist() == [0, 1, 0, 1, 1, 0]
    assert both.identity["kept"].startswith("5, ")


def test_a_forecast_is_of_both_trainings_and_writes_nothing(place: Place, tmp_path: Path) -> None:
    own = replace(SHORT, steps=10, batch=8)
    keep = replace(place.keep, settings=own)
    found = fine_tuning_forecast(place.data, place.student, tmp_path / "run", keep=keep, settings=SHORT)
    assert (found.twin.samples, found.twin.steps, found.twin.batch) == (8, 4, 32)
    assert (found.student.samples, found.student.steps, found.student.batch) == (64, 10, 8)
    assert found.student.data_bytes == (64 + 2 * 64) * 16 * (4 + 2 * 4)
    assert found.twin.seconds is not None
    assert found.student.seconds is not None
    assert found.seconds == found.twin.seconds + found.student.seconds
    assert not (tmp_path / "run").exists()


def test_both_forecasts_are_told_once_before_anything_is_done(place: Place, tmp_path: Path) -> None:
    told: list[distillation.Forecasts] = []
    place.tuned(tmp_path, SHORT, watch=Watches(forecast=told.append))
    place.tuned(tmp_path, SHORT, watch=Watches(forecast=told.append))
    assert [one.student.steps for one in told] == [4]


def test_sheets_show_what_is_new_and_what_is_kept(place: Place, tmp_path: Path) -> None:
    place.tuned(tmp_path, SHORT, watch=Watches(sheets=2))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-00000002.png", "step-00000004.png"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep": Keep(subjects=[1, 2])}, "1 of what is to be kept are shown by the new pictures too, such as 2"),
        ({"keep": Keep(subjects=[])}, "nothing names it: give prompts, or classes"),
        ({"keep": Keep(subjects=["a cat"])}, "draws classes, and got prompts"),
        ({"keep": Keep(teacher_steps=6)}, "the method learns from the teacher's states at 4 times"),
        ({"keep": Keep(teacher=None)}, "was distilled from 'tiny', which is neither a shipped model nor a path"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], words: str, place: Place, tmp_path: Path) -> None:
    keep = change["keep"]
    teacher = None if "was distilled" in words else place.teacher
    keep = replace(keep, teacher=teacher, teacher_steps=keep.teacher_steps or 8)
    with pytest.raises(fs.InvalidInput, match=words):
        place.tuned(tmp_path / "run", SHORT, keep=keep)
    assert not (tmp_path / "run").exists()


def test_a_model_of_many_steps_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(fs.InvalidInput, match="is not a student of few steps, whose steps could be kept"):
        fine_tune(place.data, place.teacher, tmp_path / "run", keep=place.keep)


def test_a_student_of_a_method_with_stages_is_refused(place: Place, tmp_path: Path) -> None:
    student = distilled(place.teacher, tmp_path / "student", Progressive(begin=2, end=1), SHORT)
    with pytest.raises(fs.InvalidInput, match="by progressive, and phased, endpoint, regression and dmd with"):
        fine_tune(place.data, student, tmp_path / "run", keep=place.keep)


def test_a_student_of_matched_distributions_goes_on_by_phases_where_it_draws_no_noise(
    place: Place, tmp_path: Path
) -> None:
    times = (999.0, 499.0, 989.0)
    matched = DistributionMatching(rows=2, times=times, sampler="ddim", ratio=1)
    student = distilled(place.teacher, tmp_path / "student", matched, SHORT)
    found = Learner.of(student, place.keep, "cpu")
    assert found.method == Phased(plans=(2, 1))
    assert [[row.t for row in plan.rows] for plan in found.plans] == [[999, 499], [989]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "consistency"}, "and dmd with sampler=ddim alone"),
        ({"times": (999.0, 300.0)}, "a plan that is not"),
    ],
)
def test_other_students_of_matched_distributions_are_refused(
    change: dict[str, Any], words: str, place: Place, tmp_path: Path
) -> None:
    matched = replace(DistributionMatching(rows=2, sampler="ddim", ratio=1), **change)
    student = distilled(place.teacher, tmp_path / "student", matched, SHORT)
    with pytest.raises(fs.InvalidInput, match=words):
        Learner.of(student, place.keep, "cpu")


def test_a_plan_that_was_learned_along_is_refused(place: Place, tmp_path: Path) -> None:
    method = Regression(rows=2, learn_plan=True)
    student = distilled(place.teacher, tmp_path / "student", method, SHORT)
    with pytest.raises(fs.InvalidInput, match="a plan that is not that of its method, regression"):
        fine_tune(place.data, student, tmp_path / "run", keep=place.keep)


def test_a_teacher_of_another_network_is_refused(place: Place, tmp_path: Path) -> None:
    other = tiny.write(tmp_path / "other.safetensors", channels=3)
    with pytest.raises(fs.InvalidInput, match=r"of another network than the student: they differ in enter\.weight"):
        place.tuned(tmp_path / "run", keep=replace(place.keep, teacher=other))


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("count", True), ("teacher_steps", 0)])
def test_numbers_are_checked(name: str, value: object) -> None:
    with pytest.raises(fs.InvalidInput, match=f"{name} must be a whole number of at least 1"):
        Keep(**{name: value})  # type: ignore[arg-type]
