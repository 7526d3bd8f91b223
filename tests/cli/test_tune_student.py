"""`fewstep tune` of a student: the plan, its certificate, and options that mean nothing there."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import fewstep as fs
from fewstep.distillation import Consistency, student
from fewstep.distillation.pictures.teacher import Teacher

from .conftest import Call

QUICK = ("--seconds", 600, "--images", 32, "--iterations", 0)


@pytest.fixture
def taught(here: Path) -> str:
    """A student of the tiny model, with its network, by consistency in 2 rows, in a folder of its own."""
    pipe, method = fs.load("tiny.safetensors"), Consistency(rows=2)
    plan = fs.compile("consistency", schedule=pipe.model.schedule, times=[999, 900, -1])
    facts = {
        "student": student.taught_by(Teacher.of(pipe, None, 2.0, 6), "tiny.safetensors", 1),
        "method": {"name": method.name, **asdict(method)},
        "data": {"teacher": pipe.model.digest},
    }
    target = here / "runs" / "tiny-consistency" / "student.safetensors"
    target.parent.mkdir(parents=True)
    module = pipe.model.module
    assert module is not None
    student.write(target, here / "tiny.safetensors", module, [plan], facts)
    return str(target.relative_to(here))


def test_a_students_plan_and_its_certificate_are_written_and_generate_draws_with_it(call: Call, taught: str) -> None:
    result = call("tune", taught, *QUICK)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "plan"
    assert lines[-1] == "out/tiny-consistency-2-rows.json"
    assert any(line.startswith(("The tuned plan has ", "Keep its own plan: ")) for line in lines)
    assert "A third of that goes into its teacher's pictures" in result.stderr
    plan = fs.Plan.load(lines[-1])
    found = json.loads(Path("out/tiny-consistency-2-rows.certificate.json").read_text())
    assert (found["plan"], found["rows"], found["objective"]) == (plan.digest, 2, "distance")
    assert found["teacher"]["rows"] == 6
    assert found["model"]["digest"] == fs.load(taught).model.digest
    assert found["images"] == {"train": 32, "validation": 16, "held_out": 32}
    drawn = call("generate", taught, "--plan", lines[-1], "--count", 1, "--json")
    assert json.loads(drawn.stdout)["made"]["plan"] == plan.digest
    again = json.loads(call("tune", taught, *QUICK, "--nfe", 2, "--json", "--output", "new/plan.json").stdout)
    assert again["path"] == "new/plan.json"
    assert {name: again[name] for name in ("plan", "verdict")} == {name: found[name] for name in ("plan", "verdict")}


def test_ctrl_c_during_the_certificate_keeps_the_plan_alone(
    call: Call, taught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.distillation.plan_search.tune.compared", interrupted)
    result = call("tune", taught, *QUICK, "--output", "plan.json")
    assert result.exit_code == 130
    assert result.stdout == "plan.json\n"
    assert len(fs.Plan.load("plan.json").rows) == 2
    assert not Path("plan.certificate.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ms", 5), "--ms is not for a student"),
        (("--samplers", "ddim"), "without samplers (--samplers)"),
        (("--nfe", 4, "--interval"), "without interval (--interval)"),
        (("--constant-guidance",), "(--constant-guidance)"),
        (("--guidance", 3), "leave --guidance out"),
        (("--objective", "psnr"), "an error says nothing"),
        (("--rows", 9), "got 9: give --rows 2, which"),
        (("--prompts", "p.txt"), "--prompts is for models that take prompts"),
        (("--teacher", "digits"), "was distilled from a model with digest"),
    ],
)
def test_options_that_mean_nothing_of_a_student_are_refused_by_name(
    call: Call, taught: str, words: tuple[object, ...], message: str
) -> None:
    result = call("tune", taught, *words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--teacher", "digits"), "--teacher is for students of `fewstep distill`, and tiny.safetensors is none"),
        (("--teacher-steps", 5), "--teacher-steps is for students"),
        (("--clip", "clip"), "--clip is for students"),
        (("--objective", "distance"), "--objective distance is for students"),
    ],
)
def test_options_of_students_are_refused_of_other_models(
    call: Call, here: Path, words: tuple[object, ...], message: str
) -> None:
    result = call("tune", "tiny.safetensors", "--rows", 3, *words)
    assert result.exit_code == 2
    assert message in result.stderr
