"""From a question to an answer: what is measured, where, and for how long. No network runs: rows are made up."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fewstep as fs
from benchmark.made_up import row
from fewstep import zoo
from fewstep.benchmark import Answer, Budget, Evidence, Measured, Pictures, Reporter, Sweep, choose
from fewstep.benchmark.measured import key_of
from fewstep.benchmark.results import ResultFile
from fewstep.benchmark.subject import Subject
from fewstep.models.plans import plans_of
from fewstep.pipeline import Pipeline
from fewstep.tuning.subject import scale_of
from models import tiny, tiny_diffusers


class Made:
    """In place of measuring: plans whose error is 0.8 / rows, of which each takes 2 ms. `calls` are those made."""

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.clock, self.took, self.missing, self.threads = 0.0, 1.0, {}, 0

    def __call__(
        self, subject: Subject, sweep: Sweep, place: Path, *, seconds: float, reporter: Reporter
    ) -> SimpleNamespace:
        pictures, rows = subject.pictures, sweep.rows or ()
        call = SimpleNamespace(rows=rows, place=str(place), seconds=seconds, images=pictures.count)
        self.calls.append(call)
        self.clock += self.took
        results = self.write(subject, place, *rows, guidance=sweep.guidance[0], images=subject.count)
        return SimpleNamespace(stopped="", left=0, missing=self.missing, results=results)

    def write(self, subject: Subject, place: Path, *counts: int, **more: Any) -> list[Measured]:
        """Measurements, but those that are there, which stay."""
        place.mkdir(parents=True, exist_ok=True)
        file, machine = ResultFile(place / "runs.jsonl"), subject.here
        machine = machine._replace(threads=self.threads or machine.threads)
        facts = {"guidance": 2.0, "images": 64, "conditions": subject.conditions_digest, **more}
        for n in counts:
            own = row("ddim", n, 0.8 / n, 0.002 * n, digest=f"ddim-{n}", machine=machine, **facts)
            own = replace(own, model=subject.model, key=key_of({**facts, "rows": n}))
            if own.key not in file:
                file.append(own)
        return [one for one in file.results if one.plan.rows in counts]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A folder of its own, with a model in it, where nothing is really measured."""
    monkeypatch.chdir(tmp_path)
    tiny.write(Path("tiny.safetensors"))
    fake = Made()
    monkeypatch.setattr("fewstep.benchmark.choice.measure_sweep", fake)
    monkeypatch.setattr("fewstep.benchmark.choice.time", SimpleNamespace(monotonic=lambda: fake.clock))
    return fake


@pytest.fixture
def words(made: Made) -> Callable[[str], Pipeline]:
    """Writes a model of words of this name."""

    def write(name: str) -> Pipeline:
        tiny_diffusers.write("sd", Path(name))
        return fs.load(f"./{name}")

    return write


def ask(budget: Budget, source: Any = "tiny.safetensors", measure: str = "quality", **evidence: Any) -> Answer:
    return choose(source, budget, measure=measure, evidence=Evidence(**evidence))


def subject_of(source: Any, prompts: str | None = None) -> Subject:
    return Subject(source, Pictures(prompts=prompts))


def told(answer: Answer, start: str) -> bool:
    return any(note.startswith(start) for note in answer.notes)


def test_milliseconds_of_this_machine_are_measured_beside_the_rows_of_another(made: Made) -> None:
    made.threads = 64
    made.write(subject_of("tiny.safetensors"), Path("out/bench-tiny"), 4, 8, 12, 20)
    solved = Path("out/bench-tiny/converged/k.safetensors")
    solved.parent.mkdir()
    solved.write_bytes(b"solved")
    made.threads = 0
    reasons: list[str] = []
    reporter = Reporter(begin=lambda why, folder: reasons.append(why))
    answer = choose("tiny.safetensors", Budget(ms=16), reporter=reporter)
    assert answer.chosen.plan.rows == 8
    assert answer.chosen.timed
    (call,) = made.calls
    assert call.place.startswith(f"out/bench-tiny-{torch.get_num_threads()}t-")
    assert reasons == ["nothing is measured on this machine with as many threads"]
    assert Path(call.place, "converged/k.safetensors").read_bytes() == b"solved"
    for paths in ([], ["out/bench-tiny"]):
        assert ask(Budget(ms=16), results=paths).chosen.plan.rows == 8
    assert len(made.calls) == 1


def test_a_given_folder_has_its_milliseconds_beside_it_too(made: Made) -> None:
    made.threads = 64
    made.write(subject_of("tiny.safetensors"), Path("mine"), 4, 8)
    made.threads = 0
    assert ask(Budget(ms=16), results=["mine"]).chosen.plan.rows == 8
    assert ask(Budget(rows=8), results=["mine"]).chosen.plan.rows == 8
    assert [call.place.startswith("mine-") for call in made.calls] == [True]


def test_it_measures_until_nothing_is_lacking(made: Made) -> None:
    assert ask(Budget(quality=0.9992)).chosen.plan.rows == 30
    assert [call.rows for call in made.calls] == [(4, 8, 12, 20), (30, 50)]
    assert [call.seconds for call in made.calls] == [60.0, 59.0]
    with pytest.raises(fs.InvalidInput, match=r"the best quality is 0\.9997"):
        ask(Budget(quality=0.99999))
    assert len(made.calls) == 2


def test_the_seconds_are_for_all_that_is_measured(made: Made) -> None:
    made.took = 61.0
    with pytest.raises(fs.InvalidInput, match=r"about 2 rows fit into 5 ms, .* and the 60 s are over: allow more"):
        ask(Budget(ms=5))
    assert [call.rows for call in made.calls] == [(4, 8, 12, 20)]


def test_rows_below_the_smallest_row_that_is_too_slow_are_measured(made: Made) -> None:
    assert ask(Budget(ms=5)).chosen.plan.rows == 2
    assert [call.rows for call in made.calls] == [(4, 8, 12, 20), (2,)]


def test_the_captions_that_would_be_measured_decide_which_rows_count(
    made: Made, words: Callable[[str], Pipeline]
) -> None:
    pipe = words("scenes")
    plans = plans_of(zoo.shipped_path("scenes"))
    pipe = replace(pipe, model=replace(pipe.model, plans=plans))  # as the shipped one, with its captions
    Path("p.txt").write_text("a lion\n")
    made.write(subject_of(pipe, "p.txt"), Path("out/bench-scenes"), 2, guidance=scale_of(pipe, None), images=2)
    answer = ask(Budget(rows=3), pipe, images=2)
    assert answer.chosen.plan.rows == 3
    assert told(answer, "1 measurements are of other prompts, and are left out: give --prompts FILE")
    assert ask(Budget(rows=3), pipe, images=2).chosen.plan.rows == 3
    assert [call.rows for call in made.calls] == [(3,)]
    assert ask(Budget(rows=3), pipe, prompts="p.txt", seconds=None).chosen.plan.rows == 2


def test_without_prompts_rows_of_any_are_better_than_none(made: Made, words: Callable[[str], Pipeline]) -> None:
    pipe = words("mine")
    Path("p.txt").write_text("a lion\n")
    with pytest.raises(fs.InvalidInput, match="mine draws from words: give --prompts FILE"):
        ask(Budget(rows=3), "./mine")
    made.write(subject_of(pipe, "p.txt"), Path("out/bench-mine"), 2, guidance=scale_of(pipe, None), images=2)
    answer = ask(Budget(rows=3), "./mine")
    assert answer.chosen.plan.rows == 2
    assert told(answer, "nothing is measured with 3 rows: give --prompts FILE to measure it")
    assert not made.calls
    assert ask(Budget(rows=3), "./mine", prompts="p.txt").chosen.plan.rows == 3
    Path("q.txt").write_text("a cat\n")
    advised = ask(Budget(rows=3), "./mine", prompts="q.txt", seconds=None)
    assert advised.advice is not None
    assert told(advised, "2 measurements are of other prompts")


def test_more_images_are_measured_anew_and_why_a_figure_is_not_had_is_told(made: Made) -> None:
    made.write(subject_of("tiny.safetensors"), Path("out/bench-tiny"), 6, images=8)
    assert ask(Budget(rows=6), images=4).chosen.images == 8
    assert not made.calls
    answer = ask(Budget(rows=6), images=320)
    assert (answer.chosen.images, made.calls[0].images) == (320, 320)
    assert told(answer, "1 measurements are of fewer than 320 images, and are left out")
    made.missing = {"distance": "320 images are too few: use --images"}
    with pytest.raises(fs.InvalidInput, match="'distance': there are error, quality; 320 images are too few"):
        ask(Budget(rows=6), measure="distance")
    without = ask(Budget(rows=6), images=1000, seconds=None)
    assert without.chosen.images == 320
    assert told(without, "the measurements are of 320 images, and none of 1000")


def test_what_is_measured_is_compared_also_where_the_folder_has_rows_of_more_images(made: Made) -> None:
    made.write(subject_of("tiny.safetensors"), Path("out/bench-tiny"), 4, images=100)
    Path("empty.jsonl").touch()
    assert ask(Budget(rows=6), results=["empty.jsonl"]).chosen.plan.rows == 6
    assert [(call.rows, call.images) for call in made.calls] == [((6,), None), ((6,), 100)]


def test_another_model_of_the_same_name_is_passed_over_and_has_its_own_folder(made: Made) -> None:
    made.write(subject_of("tiny.safetensors"), Path("out/bench-tiny"), 4, 8)
    tiny.write(Path("tiny.safetensors"), seed=1)
    advised = ask(Budget(rows=2), seconds=None)
    assert advised.advice is not None
    assert told(advised, "out/bench-tiny is of another model of this name")
    assert ask(Budget(rows=2)).chosen.plan.rows == 2
    own = fs.load("tiny.safetensors").model.digest[:4]
    assert [call.place for call in made.calls] == [f"out/bench-tiny-{own}"]
    assert ask(Budget(rows=2), seconds=None).chosen.plan.rows == 2
    with pytest.raises(fs.InvalidInput, match="out/bench-tiny holds measurements of 'tiny' with digest"):
        ask(Budget(rows=2), results=["out/bench-tiny"])


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_empty_or_missing_is_measured_into(made: Made, there: bool) -> None:
    if there:
        Path("new").mkdir()
    assert ask(Budget(rows=3), results=["new"]).chosen.plan.rows == 3
    assert [call.place for call in made.calls] == ["new"]
    assert ask(Budget(rows=3), results=["new"]).chosen.plan.rows == 3
    assert len(made.calls) == 1
    with pytest.raises((fs.InvalidInput, FileNotFoundError), match="nothing is there"):
        ask(Budget(rows=3), results=["newer"], seconds=None)


def test_a_pipeline_of_a_callable_has_lines_that_begin_with_it(made: Made) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x

    pipe = fs.load(Net(), spec=fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 4, 4)))
    for answer in (ask(Budget(rows=3), pipe, seconds=None), ask(Budget(rows=3), pipe)):
        assert (answer.lines.command, answer.lines.diffusers) == (None, None)
        call = answer.lines.python.removeprefix("images = ")
        assert call.startswith('pipe(sampler="ddim", steps=3, grid=')
        assert eval(call, {"pipe": pipe}).tensor.shape == (1, 1, 4, 4)
    assert [call.place for call in made.calls] == ["out/bench-Net"]


def test_a_pipeline_in_half_precision_is_refused(made: Made) -> None:
    half = fs.load("tiny.safetensors", dtype="bfloat16")
    with pytest.raises(fs.InvalidInput, match=r"in float32, this one is in torch.bfloat16"):
        ask(Budget(rows=3), half)


def test_a_path_is_a_source_too(made: Made) -> None:
    answer = ask(Budget(rows=3), Path("tiny.safetensors"), seconds=None)
    assert answer.lines.command is not None
    assert shlex.split(answer.lines.command)[2] == "tiny.safetensors"


def test_a_budget_of_evaluations_counts_what_guidance_adds(made: Made) -> None:
    answer = ask(Budget(nfe=7))
    assert (answer.chosen.plan.rows, answer.chosen.nfe) == (3, 6.0)
    assert [call.rows for call in made.calls] == [(3,)]
    alone = choose("tiny.safetensors", Budget(nfe=9), guidance=1.0, evidence=Evidence(seconds=None))
    assert (alone.chosen.plan.rows, alone.chosen.nfe) == (9, 9.0)
    with pytest.raises(fs.InvalidInput, match="guidance takes 2 network evaluations a row: allow NFE 2"):
        choose("tiny.safetensors", Budget(nfe=1), guidance=3.0, evidence=Evidence(seconds=None))


def test_a_pipeline_is_not_loaded_again_to_measure_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = fs.load("tiny.safetensors")
    monkeypatch.setattr("fewstep.benchmark.subject.load", None)
    answer = ask(Budget(rows=3), pipe)
    assert answer.lines.python.startswith("images = pipe(sampler=")
    assert [call.place for call in made.calls] == ["out/bench-tiny"]
