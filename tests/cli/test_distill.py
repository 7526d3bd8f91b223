"""`fewstep distill` trains a student that `generate` takes, and says what it gained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import Result

import fewstep as fs
from fewstep import schedules
from fewstep.cli import distill as command
from fewstep.cli import settings
from fewstep.zoo import Spec, save
from models import tiny

Call = Callable[..., Result]
SHORT = ("--steps", 6, "--batch", 8, "--pairs", 16, "--held-out", 16, "--teacher-steps", 4)


def test_a_student_is_trained_reported_and_drawn_with(call: Call, here: Path) -> None:
    done = call("distill", "regression", "tiny.safetensors", *SHORT, "--option", "rows=2")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "runs/tiny-regression/student.safetensors"
    assert "the student" in done.stdout
    drawn = call("generate", "runs/tiny-regression/student.safetensors", "--labels", "0", "--json")
    assert json.loads(drawn.stdout)["nfe"] == 2
    again = call("distill", "regression", "tiny.safetensors", *SHORT, "--option", "rows=2", "--json")
    found = json.loads(again.stdout)
    assert found["seconds"] > 0
    assert "step 6 of 6: as it was left, 0 s left" in again.stderr
    assert found["verdict"] in done.stdout
    assert found["path"] == "runs/tiny-regression/student.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("regression", "--option", "row=2"), "unknown option of regression 'row': did you mean 'rows'"),
        (("progresive",), "progressive"),
        (("progressive", "--option", "begin=5"), "begin must be end times 2, 4, 8"),
        (("reflow",), "reflow needs a network that predicts flow"),
        (("regression", "--prompts", "none.txt"), "none.txt"),
        (("regression", "--labels", "7"), "has no label 7"),
        (("regression", "--batch", "9", "--accumulate", "2"), "equal parts"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_anything_is_written(
    call: Call, here: Path, words: tuple[str, ...], said: str
) -> None:
    method, *more = words
    done = call("distill", method, "tiny.safetensors", *more)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 900
    assert not (here / "runs/tiny-regression/log.jsonl").exists()


def test_the_defaults_in_the_help_are_those_of_the_settings(call: Call) -> None:
    usual = {param.name: param.default for param in command.distill.params}
    usual_settings, source = fs.distillation.Settings(), fs.distillation.Source()
    own = {one.name: getattr(usual_settings, one.name) for one in fields(usual_settings) if one.name in usual}
    assert len(own) == 8
    assert {name: usual[name] for name in own} == own
    assert (usual["count"], usual["held_out"]) == (source.count, source.held_out)
    assert source.steps is None
    assert "20, or a student's own plan" in call("distill", "--help").output
    assert set(command.METHODS) == set(fs.distillation.METHODS)
    assert set(settings.OPTIMISERS) == set(fs.training.OPTIMISERS)


def test_a_straightened_flow_is_the_teacher_of_the_next_student(call: Call, here: Path) -> None:
    """Runs are named by their teacher, a student by its own run."""
    net = tiny.network()
    save(here / "flow.safetensors", net, Spec(net.config, "flow", schedules.flow(), (-1.0, 1.0), {}))
    short = [part for part in SHORT if part not in ("--teacher-steps", 4)]
    straight = call("distill", "reflow", "flow.safetensors", *short)
    path = straight.stdout.splitlines()[-1]
    assert path == "runs/flow-reflow/student.safetensors"
    fast = call("distill", "regression", path, *short, "--teacher-steps", 3)
    assert fast.exit_code == 0, fast.output
    assert fast.stdout.splitlines()[-1] == "runs/flow-reflow-regression/student.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "STUDENT", "--labels", "0", "--steps", "5"), "draws by a plan of its own, which decides steps"),
        (
            ("generate", "STUDENT", "--labels", "0", "--grid", "karras"),
            "draws by a plan of its own, which decides grid",
        ),
        (("generate", "STUDENT", "--labels", "0", "--guidance", "3"), "a student with guidance 2 inside"),
        (("generate", "STUDENT", "--labels", "0", "--negative", "1"), "a student with guidance 2 inside"),
        (
            ("tune", "STUDENT", "--rows", "2"),
            "is a student, which knows the times of its own plan alone: tune its teacher, tiny",
        ),
    ],
)
def test_what_a_student_cannot_do_is_refused_with_what_to_do(
    call: Call, here: Path, words: tuple[str, ...], said: str
) -> None:
    student = call("distill", "regression", "tiny.safetensors", *SHORT).stdout.splitlines()[-1]
    done = call(*(student if word == "STUDENT" else word for word in words))
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_student_is_measured(call: Call, here: Path) -> None:
    student = call("distill", "regression", "tiny.safetensors", *SHORT).stdout.splitlines()[-1]
    done = call("bench", student, "--samplers", "ddim", "--grids", "trailing", "--steps", "1", "--images", "4")
    assert done.exit_code == 0, done.output
    assert "ddim on trailing" in done.stdout
