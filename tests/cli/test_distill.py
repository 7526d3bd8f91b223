"""`fewstep distill` trains a student that `generate` takes, and says what it gained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

import fewstep as fs
from fewstep import schedules
from fewstep.cli import distill as command
from fewstep.cli import settings
from fewstep.zoo import Spec, save
from models import tiny

Call = Callable[..., Result]
SHORT = ("--steps", 6, "--batch", 8, "--pairs", 16, "--held-out", 16, "--teacher-steps", 4, "--check-every", 3)


def test_a_student_is_trained_reported_and_drawn_with(call: Call, here: Path) -> None:
    done = call("distill", "regression", "tiny.safetensors", *SHORT, "--option", "rows=2")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "runs/tiny-regression/student.safetensors"
    assert "the student" in done.stdout
    assert "the teacher" in done.stdout
    assert re.search(
        r"step 3: error [\d.]+, distance [-\d.e+]+, diversity [\d.]+, saturation [-\d.]+, the best", done.stderr
    )
    assert "Other numbers of rows are not measured: a student by regression knows the times of its own 2" in done.stderr
    drawn = call("generate", "runs/tiny-regression/student.safetensors", "--labels", "0", "--json")
    assert json.loads(drawn.stdout)["nfe"] == 2
    again = call("distill", "regression", "tiny.safetensors", *SHORT, "--option", "rows=2", "--json")
    found = json.loads(again.stdout)
    assert found["cost"]["training"] > 0
    assert "step 6 of 6: as it was left, 0 s left" in again.stderr
    assert found["verdict"] in done.stdout
    assert found["path"] == "runs/tiny-regression/student.safetensors"


def test_a_lora_is_trained_in_place_of_all_weights(call: Call, here: Path) -> None:
    options = ("--lora-rank", 2, "--lora-alpha", 4, "--lora-targets", "linear")
    done = call("distill", "regression", "tiny.safetensors", *SHORT, *options)
    assert done.exit_code == 0, done.output
    trained = fs.load(here / "runs/tiny-regression/student.safetensors").model.module
    plain = fs.load(here / "tiny.safetensors").model.module
    assert trained is not None
    assert plain is not None
    before = dict(plain.named_parameters())
    moved = {name for name, weight in trained.named_parameters() if not torch.equal(weight, before[name])}
    assert "time1.weight" in moved
    assert all(before[name].ndim == 2 and "label" not in name for name in moved)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("regression", "--option", "row=2"), "unknown option of regression 'row': did you mean 'rows'"),
        (("progresive",), "unknown method 'progresive': did you mean 'progressive'"),
        (("consistency", "--learn-plan"), "consistency does not learn a plan along: leave --learn-plan out"),
        (("regression", "--learn-plan"), "a plan of one row goes from the first time to the last"),
        (("none.py:Mine",), "none.py is not a file: a method of your own"),
        (("regression", "--device", "gpu"), "the device 'gpu' cannot be used here"),
        (("progressive", "--option", "begin=5"), "begin must be end times 2, 4, 8"),
        (("reflow",), "reflow needs a network that predicts flow"),
        (("regression", "--prompts", "none.txt"), "none.txt"),
        (("regression", "--labels", "7"), "has no label 7"),
        (("regression", "--batch", "9", "--accumulate", "2"), "equal parts"),
        (("regression", "--lora-alpha", "4"), "--lora-alpha is of a LoRA: give --lora-rank too"),
        (("regression", "--lora-targets", "attention"), "--lora-targets is of a LoRA: give --lora-rank too"),
        (("regression", "--lora-rank", "4", "--lora-targets", "atention"), "attention"),
        (("consistency", "--option", "preset=etc"), "unknown preset of consistency 'etc': did you mean 'ect'"),
        (("regression", "--clip", "nowhere"), "nowhere is not a folder of clip"),
        (("regression", "--tune", "-1"), "--tune"),
        (("regression", "--data", "."), "regression takes no real pictures, as it learns which noise becomes which"),
        (("dmd", "--data", "."), "dmd takes no real pictures, as it shows pictures to a discriminator alone"),
        (("add", "--data", "none"), "unknown data 'none'"),
        (("add", "--data", "digits", "--pairs", "8"), "with data the teacher draws no pictures to learn from"),
        (("add", "--mirror"), "mirror is True or False, and of data alone"),
        (("scm", "--option", "ratio=5"), "there is none: give matching, its share, such as 0.01"),
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


def test_a_student_learns_from_real_pictures(call: Call, here: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 6, 5), dtype=np.uint8)  # which are scaled
    np.savez(here / "photos.npz", images=images, labels=np.arange(9) % tiny.CLASSES)
    short = [*SHORT[: SHORT.index("--pairs")], *SHORT[SHORT.index("--pairs") + 2 :]]
    words = ("distill", "dmd", "tiny.safetensors", *short, "--data", "photos.npz", "--option", "adversary=0.1")
    needs = call(*words, "--dry-run")
    assert "9 pictures" in needs.stdout
    assert "to draw and encode the pictures" in needs.stdout
    done = call(*words, "--mirror")
    assert done.exit_code == 0, done.output
    assert "then the student learns from photos.npz for 6 steps" in done.stderr
    assert re.search(r"step 3: distance [-\d.e]+, distance to data [-\d.e]+, diversity", done.stderr)
    assert "To 9 real pictures the student has a kernel distance on" in done.stderr
    assert "The student learned from 18 real pictures; training took" in done.stderr
    found = json.loads(call(*words, "--mirror", "--json").stdout)
    assert (found["realism"]["images"], found["cost"]["real"], found["lost"]) == (9, 18, {})
    images[0] = 7
    np.savez(here / "photos.npz", images=images, labels=np.arange(9) % tiny.CLASSES)
    other = call(*words, "--mirror")
    assert other.exit_code == 2
    assert "belongs to a run with other settings (data.digest is" in other.stderr


OWN = """
from __future__ import annotations
from dataclasses import dataclass
from fewstep.distillation import Regression

@dataclass(frozen=True)
class Twice(Regression):
    name = "twice"
    rows: int = 2
"""


def test_a_method_of_ones_own_is_named_by_its_file_and_class(call: Call, here: Path) -> None:
    (here / "mine.py").write_text(OWN)
    done = call("distill", "mine.py:Twice", "tiny.safetensors", *SHORT, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["path"] == "runs/tiny-twice/student.safetensors"
    assert found["lines"][0]["nfe"] == 2
    state = json.loads((here / "runs/tiny-twice/states/step-00000006/manifest.json").read_text())
    assert state["run"]["method"]["name"] == "twice"
    assert "unknown option of twice 'row'" in call("distill", "mine.py:Twice", "--option", "row=1").stderr


def test_a_dry_run_says_what_it_needs_and_writes_nothing(call: Call, here: Path) -> None:
    before = sorted(here.rglob("*"))
    done = call("distill", "regression", "tiny.safetensors", *SHORT, "--dry-run")
    assert done.exit_code == 0, done.output
    what = [line.split()[0] for line in done.stdout.splitlines()[2:]]
    assert what == ["data", "memory", "time"]
    assert "16 pictures, 19,456 bytes" in done.stdout  # of all that the teacher draws
    found = json.loads(call("distill", "regression", "tiny.safetensors", *SHORT, "--dry-run", "--json").stdout)
    assert found["seconds"] == pytest.approx(found["data_seconds"] + 6 * found["step_seconds"])
    assert found["memory"]["peak"] == found["memory"]["before"] + found["memory"]["more"]
    assert sorted(here.rglob("*")) == before


def test_sheets_and_tensorboard_are_written_where_asked_for(call: Call, here: Path) -> None:
    words = ("--sheet-every", 4, "--tensorboard", "--learn-plan", "--option", "rows=2")
    done = call("distill", "regression", "tiny.safetensors", *SHORT, *words)
    assert done.exit_code == 0, done.output
    folder = here / "runs/tiny-regression"
    assert [sheet.name for sheet in sorted((folder / "samples").iterdir())] == [
        "step-00000004.png",
        "step-00000006.png",
    ]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert "It needs 16 pictures" in done.stderr
    assert "images/s" in done.stderr
    assert fs.load(folder / "student.safetensors").plan().recipe.sampler == "learned"


def test_the_defaults_in_the_help_are_those_of_the_settings(call: Call) -> None:
    usual = {param.name: param.default for param in command.distill.params}
    usual_settings, source = fs.distillation.Settings(), fs.distillation.Source()
    own = {one.name: getattr(usual_settings, one.name) for one in fields(usual_settings) if one.name in usual}
    assert len(own) == 9
    assert {name: usual[name] for name in own} == own
    assert usual["held_out"] == source.held_out
    assert f"[default: {source.drawn}, none with" in " ".join(call("distill", "--help").output.split())
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
            "a student by regression knows the times of its own 1 row alone: train one for 2",
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


@pytest.mark.parametrize(("given", "plans"), [("4,2", (4, 2)), (2, (2,))])
def test_an_option_of_several_values_is_a_list(given: object, plans: tuple[int, ...]) -> None:
    method = command.method_of("phased", {"plans": given})
    assert isinstance(method, fs.distillation.Phased)
    assert method.plans == plans
    times = command.method_of("endpoint", {"times": "9.5,3", "levels": 2, "rows": 2})
    assert isinstance(times, fs.distillation.Endpoint)
    assert times.times == (9.5, 3)
