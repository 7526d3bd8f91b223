"""What a report says of a student, and what it holds the student to."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.distillation import Consistency, Regression
from fewstep.distillation.judging.judge import Interval, by_student, interval, ratio, typical
from fewstep.distillation.judging.report import Cost, Line, Report, helped, report_of, standing
from fewstep.distillation.judging.rivals import rivals_of
from fewstep.measure import Figure
from models import tiny

from .judged import COUNT, judge_of, teacher_of

COST = Cost(64, 16.0, 1.5, 2.5)


def about(value: float, spread: float = 0.1) -> Interval:
    return Interval(value, value - spread, value + spread)


STUDENT = Line("the student", "student", 1, 1.0, about(1.0), about(5.0), about(1.0, 0), about(0.0, 0))


def rival(who: str, nfe: float, times: float | None, farther: float = 1.0, at: int = 1) -> Line:
    """Of so many times the student's error, and so much more distance, each by a tenth."""
    own = None if times is None else about(times)
    return Line(who, "without training", 1, nfe, about(1.0), about(5.0), own, about(farther), at)


def report(*rivals: Line, student: Line = STUDENT, **more: Any) -> Report:
    floor = Line("the teacher", "teacher", 8, 16.0, None, about(4.0))
    facts: dict[str, Any] = {"ladder": (student,), "left_out": "", "helped": 1, "compared": 9, "measure": "some"}
    facts |= {"images": 64, "cost": COST, "step": 10, "steps": 10, **more}
    return Report(student=student, rivals=rivals, floor=floor, **facts)


@pytest.mark.parametrize(
    ("rivals", "words"),
    [
        ([("a", 2, 0.8, 1), ("b", 4, 0.5, 4)], "Worse in 1 evaluation of an image than a in 2: keep that"),
        ([("a", 2, 1.05, 1), ("b", 4, 2.0, 4)], "Not surely better in 1 evaluation of an image than a in 2: keep that"),
        ([("a", 2, 3.0, 1), ("t", 2, 1.05, 1)], "Not surely better in 1 evaluation of an image than t in 2: keep that"),
        ([("a", 2, 0.9, 1), ("t", 2, 0.7, 1)], "Worse in 1 evaluation of an image than t in 2: keep that"),
        (
            [("a", 2, 3.0, 1), ("b", 4, 1.05, 4)],
            "3.0 times less error in 1 evaluation of an image than a in 2; not surely better than b in 4",
        ),
        (
            [("a", 2, 9.0, 1), ("b", 4, 3.0, 4), ("t", 4, 2.0, 4)],
            "2.0 times less error in 1 evaluation of an image than t in 4",
        ),
    ],
)
def test_the_verdict_is_held_to_the_strongest_rival_and_names_it(rivals: list[Any], words: str) -> None:
    assert report(*(rival(who, nfe, times, at=at) for who, nfe, times, at in rivals)).verdict == words


def test_a_student_with_less_error_and_surely_more_distance_is_not_better() -> None:
    """Pictures may be near to the teacher's one by one, and all of them blurred."""
    near = rival("a", 2, 3.0, farther=-1.0)
    assert standing(near, STUDENT) == "neither"
    assert report(near).verdict == "Not surely better in 1 evaluation of an image than a in 2: keep that"
    assert standing(rival("a", 2, 3.0, farther=-0.05), STUDENT) == "better"


def test_a_student_that_draws_noise_is_judged_by_the_distance_alone() -> None:
    noisy = STUDENT._replace(error=None, times=None)
    said = report(rival("a", 2, None, 3.0), rival("b", 4, None, 0.05, at=4), student=noisy)
    assert said.verdict == "3 less distance in 1 evaluation of an image than a in 2; not surely better than b in 4"
    assert any("draws noise between its rows" in note for note in said.notes)
    worse = report(rival("a", 2, None, -3.0), student=noisy)
    assert worse.verdict == "Worse in 1 evaluation of an image than a in 2: keep that"


def test_the_report_says_where_more_rows_stop_helping_and_of_which_step_the_weights_are() -> None:
    two, four = (STUDENT._replace(who=f"in {rows}", rows=rows) for rows in (2, 4))
    assert "More rows help up to 2: the next" in report(ladder=(STUDENT, two, four), helped=2).more_rows
    assert "the most that were measured" in report(ladder=(STUDENT, two, four), helped=4).more_rows
    assert report(left_out="it knows one").more_rows == "Other numbers of rows are not measured: it knows one"
    assert report(step=4).notes[-1] == "The student is the best that was seen, of step 4 of 10"
    assert "of step" not in " ".join(report().notes)


def figure(value: float, noise: float = 0.01) -> Figure:
    again = (value + noise * torch.randn(100, generator=torch.Generator().manual_seed(int(value * 100)))).tolist()
    return Figure("d", value, value, value, 64, "less", replicates=tuple(again))


def test_rows_help_as_long_as_each_step_has_surely_less_distance() -> None:
    assert helped([(1, figure(3.0)), (2, figure(2.0)), (4, figure(1.0)), (8, figure(1.001))]) == 4
    assert helped([(1, figure(3.0)), (2, figure(3.5)), (4, figure(1.0))]) == 1
    assert helped([(1, figure(3.0)), (2, None)]) == 1


def test_a_student_is_compared_picture_by_picture() -> None:
    """Pictures differ a thousandfold, the student's errors are all 0.8 of the rival's: the intervals of the errors
    overlap, that of their ratio does not reach 1."""
    other = torch.logspace(-3, 0, 64, dtype=torch.float64)
    own = 0.64 * other * (1 + 0.1 * torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert typical(other).low < typical(own).high
    found = ratio(other, own)
    assert found.value == pytest.approx(1.25, rel=0.02)
    assert 1.2 < found.low < found.value < found.high < 1.3
    assert ratio(own, own) == Interval(1.0, 1.0, 1.0)


def test_a_lost_picture_makes_an_error_infinite_and_no_interval_that_is_not_a_number() -> None:
    errors = torch.ones(64, dtype=torch.float64)
    errors[3] = torch.inf
    found = typical(errors)
    assert (found.value, found.low, found.high) == (float("inf"), 1.0, float("inf"))
    assert interval(1.0, torch.tensor([1.0, torch.nan, 2.0])).high == float("inf")


def test_a_report_measures_a_student_beside_the_best_samplers_and_its_teacher(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    judge = judge_of(teacher, tmp_path)
    network = teacher.pipe.model.denoiser()
    found = report_of(network, Regression(rows=2), judge, COST, 5, 10)
    assert sorted({(line.nfe, line.at) for line in found.rivals}) == [(2, 1), (8, 4)]
    assert found.floor.nfe == 16
    assert found.images == COUNT
    assert found.compared >= 10
    assert found.left_out == "a student by regression knows the times of its own 2 rows alone: train one for 1"
    assert all(line.error is None or line.error.low <= line.error.value <= line.error.high for line in found.lines)
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["verdict"] == found.verdict
    assert read["lines"][0]["error"]["value"] == found.student.error.value  # type: ignore[union-attr]
    assert read["cost"] == {"pictures": 64, "nfe": 16.0, "drawing": 1.5, "training": 2.5, "real": 0}


def test_the_strongest_rival_is_the_best_of_all_contenders(tmp_path: Path) -> None:
    """By the error and by the distance, each found again by hand."""
    judge = judge_of(teacher_of(tmp_path, guidance=1.0), tmp_path)
    found = rivals_of(judge, 3, noisy=False)
    equal = [one for one in found.each if one.at == 1]
    assert all(len(one.plan.rows) <= 3 for one in equal)
    noisy = rivals_of(judge, 3, noisy=True)
    assert len([one for one in noisy.each if one.at == 1]) == 1
    assert noisy.each[0].plan == equal[0].plan


def test_the_teacher_s_own_plan_is_no_rival(tmp_path: Path) -> None:
    """With 8 evaluations a rival could take the teacher's own 4 steps, which have no error."""
    judge = judge_of(teacher_of(tmp_path, steps=4), tmp_path, 16)
    rivals = rivals_of(judge, 2, noisy=False).each
    assert {len(one.plan.rows) for one in rivals if one.at == 4} == {3}
    assert all(float(one.pictures.errors.mean()) > 0 for one in rivals)


def test_a_plan_that_was_tuned_for_the_teacher_is_a_rival_and_one_of_other_weights_is_not(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path, guidance=1.0)
    model = teacher.pipe.model
    plan = fs.compile("dpmpp-2m", schedule=model.schedule, steps=2, grid="karras")
    folder = tmp_path / "tiny.plans"
    folder.mkdir()
    replace(plan, tuned_for=TunedFor(model.identity.merged)).save(folder / "2.json")
    judge = judge_of(teacher_of(tmp_path, guidance=1.0), tmp_path, 16)
    named = [(one.who, one.at, len(one.plan.rows)) for one in rivals_of(judge, 2, noisy=False).each]
    assert ("a tuned plan", 1, 2) in named
    assert ("a tuned plan", 4, 2) in named
    replace(plan, tuned_for=TunedFor("0" * 16)).save(folder / "2.json")
    judge = judge_of(teacher_of(tmp_path, guidance=1.0), tmp_path, 16)
    assert not [one for one in rivals_of(judge, 2, noisy=False).each if one.who == "a tuned plan"]


def test_a_plan_is_tuned_where_there_is_time_for_it(tmp_path: Path) -> None:
    judge = judge_of(teacher_of(tmp_path, guidance=1.0), tmp_path, 16)
    named = [one.who for one in rivals_of(judge, 2, noisy=False, seconds=0.5).each]
    assert "a plan tuned in 0.5 s" in named
    one = rivals_of(judge, 1, noisy=False, seconds=0.5)
    assert not [found for found in one.each if "tuned" in found.who]
    assert one.untuned == "No plan was tuned: that takes 2 to 32 rows, and the rivals have 1"


def test_a_student_or_rival_that_overflows_is_in_the_report_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of training are not lost with a picture, and pictures of unlike numbers are not compared."""
    teacher = teacher_of(tmp_path)
    judge = judge_of(teacher, tmp_path, 24)
    bad = fs.load(tiny.broken(tmp_path / "broken.safetensors")).model.denoiser()
    found = report_of(bad, Regression(), judge, COST, 1, 1)
    assert found.student.error.value == float("inf")  # type: ignore[union-attr]
    assert found.student.distance is None
    assert found.verdict.startswith("Worse in 1 evaluation")
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["lines"][0]["error"]["value"] is None
    own = judge.look(by_student(teacher.pipe.model.denoiser(), Regression().plan(bad), judge.held_out))
    lost = judge.look(by_student(bad, Regression().plan(bad), judge.held_out))
    assert (own.lost, lost.lost) == (0, 8)
    line = Line("a", "without training", 1, 2.0, typical(lost.errors), None, ratio(lost.errors, own.errors))
    assert standing(line, found.student._replace(distance=about(1.0))) == "better"


@dataclass(frozen=True)
class Anyhow(Regression):
    """Draws in any number of rows."""

    name: ClassVar[str] = "anyhow"

    def plan(self, network: fs.Network, rows: int | None = None) -> fs.Plan:
        return Regression(rows=rows or self.rows).plan(network)


def test_a_method_that_can_is_measured_in_more_rows_and_more_of_them_help_a_plain_network(tmp_path: Path) -> None:
    """The teacher's own network, untrained, comes nearer with every doubling of its rows."""
    teacher = teacher_of(tmp_path, guidance=1.0, steps=40)
    found = report_of(teacher.pipe.model.denoiser(), Anyhow(), judge_of(teacher, tmp_path, 200), COST, 1, 1)
    assert [line.rows for line in found.ladder] == [1, 2, 4, 8]
    errors = [line.error.value for line in found.ladder if line.error]
    assert errors == sorted(errors, reverse=True)
    assert not found.left_out


def test_a_consistency_student_of_several_rows_has_no_error(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path, guidance=1.0)
    method = Consistency(rows=2)
    found = report_of(teacher.pipe.model.denoiser(), method, judge_of(teacher, tmp_path, 32), COST, 1, 1)
    assert [line.error is None for line in found.ladder] == [False, True, True, True]
    assert found.student.rows == 2
    assert found.student.error is None


def test_distances_are_frechet_s_where_there_are_pictures_enough(tmp_path: Path) -> None:
    """The tiny model's thumbnails have 16 numbers."""
    teacher = teacher_of(tmp_path, guidance=1.0, steps=2)
    assert judge_of(teacher, tmp_path, 159).measure == "kernel distance on thumbnails 1x4x4"
    many = judge_of(teacher, tmp_path, 160)
    assert many.measure == "Frechet distance on thumbnails 1x4x4"
    assert judge_of(teacher, tmp_path, 32, widths=2).reference.frechet
    floor = many.distance(many.look(many.held_out.states))
    assert floor is not None
    summary = fs.measure.Summary(many.features)
    summary.update(torch.cat([many.shown(many.held_out.states(range(160)))]))
    assert floor.value == pytest.approx(fs.measure.frechet_distance(summary, many.reference.pictures).value)
