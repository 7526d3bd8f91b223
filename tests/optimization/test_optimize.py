"""What is kept of a model, with evidence, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fewstep as fs
from fewstep import InvalidInput
from fewstep.measure.converged import Flow
from fewstep.measure.figure import Figure
from fewstep.optimization import Budget, Optimized, Technique, choice, quality
from fewstep.optimization.quality import Judge
from fewstep.optimization.speed import Times
from fewstep.variants import Variant
from models import tiny

LOWER, LOWEST = Technique("lower", {"network": "bfloat16"}), Technique("lowest", {"network": "float16"})
CODEC = Technique("codec", {"codec": "bfloat16"})
FAST = Budget(images=16)


@pytest.fixture(autouse=True)
def solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converged solution is that of a plan which nobody looks for."""

    def found(flow: Flow, *rest: Any) -> SimpleNamespace:
        return SimpleNamespace(plan=fs.compile("dpmpp-2m", schedule=flow.schedule, steps=16))

    monkeypatch.setattr(quality, "find_plan", found)


def optimized(subject: Any, **given: Any) -> Optimized:
    """By a plan of 6 rows."""
    plan = fs.load(subject).plan("dpmpp-2m", steps=6)
    return fs.optimize(subject, **{"budget": FAST, "plan": plan, **given})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


def racing(monkeypatch: pytest.MonkeyPatch, ratios: Callable[[int], Sequence[float]]) -> list[int]:
    """Every round's ratios are those said, whatever the clock says; returns how many were timed in each."""
    rounds: list[int] = []

    def race(base: Any, others: Sequence[Any], *rest: Any, **more: Any) -> list[Times]:
        rounds.append(len(others))
        found = ratios(len(rounds))
        for one in (base, *others):
            one(1)
        return [Times((found[i],) * 5, (1.0,) * 5) for i in range(len(others))]

    monkeypatch.setattr(choice, "race", race)
    monkeypatch.setattr(sys.modules["fewstep.optimization.optimize"], "race", race)
    return rounds


def test_what_is_faster_and_loses_little_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    racing(monkeypatch, lambda round: [2.0])
    found = optimized(model, most_loss=0.5, techniques=[LOWER])
    assert found.variant == Variant("bfloat16")
    assert found.pipe.model.identity.variant == {"dtype": "bfloat16"}
    (trial,) = found.report.trials
    assert trial.kept
    assert trial.why.startswith("kept: 3 rows take the same time")
    assert trial.loss is not None
    assert 0 < abs(trial.loss.value) < 0.5
    assert found.report.verdict.startswith("Faster by 2.00 times (2.00 to 2.00) at batch 1: network in bfloat16; the e")


def test_what_is_slower_is_refused_with_the_figure(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    racing(monkeypatch, lambda round: [0.6])
    found = optimized(model, techniques=[LOWER])
    (trial,) = found.report.trials
    assert not trial.kept
    assert trial.why == "slower: 0.60 times"
    assert found.variant == Variant()
    assert found.report.verdict.startswith("Nothing that was tried is surely faster")


def test_what_loses_more_than_is_allowed_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    racing(monkeypatch, lambda round: [2.0])
    found = optimized(model, most_loss=1e-9, techniques=[LOWER])
    (trial,) = found.report.trials
    assert not trial.kept
    assert "the error grows by" in trial.why


def test_what_fewer_rows_do_better_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    racing(monkeypatch, lambda round: [1.3])
    asked: list[int] = []

    def beside_fewer(judge: Judge, pipe: Any, rows: int) -> tuple[fs.Plan, Figure]:
        asked.append(rows)
        return judge.plan, Figure("error gained", 0.2, 0.1, 0.3, 16, "less")

    monkeypatch.setattr(Judge, "beside_fewer", beside_fewer)
    found = optimized(model, most_loss=0.5, techniques=[LOWER])
    (trial,) = found.report.trials
    assert not trial.kept
    assert trial.why.endswith("and have less error: take fewer rows")
    assert asked == [4]


def test_techniques_are_tried_on_top_of_the_fastest_and_what_was_slow_again(
    models: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speeds = {1: [0.7, 1.5, 1.2], 2: [1.4], 3: [2.0]}  # the VAE is slower alone, and faster on top of the network
    rounds = racing(monkeypatch, speeds.__getitem__)
    monkeypatch.setattr(Judge, "beside_fewer", lambda judge, pipe, rows: None)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red circle\nblue square\n")
    found = optimized(models("sd").folder, most_loss=9.0, prompts=prompts, techniques=[CODEC, LOWER, LOWEST])
    assert found.variant == Variant("bfloat16", "bfloat16")
    assert rounds == [3, 1, 1]  # the last is the whole beside the model as it is
    assert [(one.technique, one.on, one.kept) for one in found.report.trials] == [
        ("lower", "as it is", True),
        ("lowest", "as it is", False),
        ("codec", "as it is", False),
        ("codec", "network in bfloat16", True),
    ]
    assert found.report.trials[1].why == "faster, but less than lower"
    assert found.report.trials[2].why == "slower: 0.70 times"


def test_what_this_model_cannot_have_is_noted(model: Path) -> None:
    found = optimized(model, techniques=[CODEC])
    (trial,) = found.report.trials
    assert (trial.kept, trial.speed) == (False, None)
    assert "draws pixels, which no VAE decodes" in trial.why


def test_the_model_is_written_with_its_report_and_loads(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    racing(monkeypatch, lambda round: [2.0])
    output = tmp_path / "out" / "lower"
    found = optimized(model, most_loss=0.5, techniques=[LOWER], output=output, batches=(2, 1))
    loaded = fs.load(output)
    assert (loaded([1], steps=3).tensor == found.pipe([1], steps=3).tensor).all()
    report = json.loads((output / "report.json").read_text())
    assert report["verdict"] == found.report.verdict
    assert [one["batch"] for one in report["totals"]] == [2, 1]
    page = (output / "report.html").read_text()
    assert found.report.verdict in page
    assert "<script" not in page
    racing(monkeypatch, lambda round: [0.5])
    optimized(model, techniques=[LOWER], output=output)
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json"]
    racing(monkeypatch, lambda round: [2.0])
    optimized(model, most_loss=0.5, techniques=[LOWER], output=output)
    assert fs.load(output).model.identity.variant == {"dtype": "bfloat16"}


def test_what_cannot_be_optimised_is_refused_before_anything_is_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any, **more: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(choice, "race", never)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    pipe = fs.load(model)
    for given, words in (
        ({"most_loss": 0.0}, "most_loss must be a finite number above zero"),
        ({"batches": ()}, "batches are whole numbers from 1 to 1024"),
        ({"batches": (0,)}, "batches are whole numbers from 1 to 1024"),
        ({"prompts": "a"}, "draws classes: leave them out"),
        ({"plan": pipe.plan("ddpm", steps=4)}, "ddpm draws noise on the way"),
        ({"output": tmp_path / "mine"}, "holds no optimised model: name another folder"),
    ):
        with pytest.raises(InvalidInput, match=words):
            fs.optimize(model, **given)
    with pytest.raises(InvalidInput, match="a pipeline does not know its files"):
        fs.optimize(pipe, output=tmp_path / "lower")
    with pytest.raises(InvalidInput, match=r"scenes-turbo is a student, .* optimise its teacher, scenes"):
        fs.optimize("scenes-turbo")
    with pytest.raises(InvalidInput, match="images must be a whole number of at least 8, got 7"):
        Budget(images=7)


def test_the_time_limit_leaves_techniques_untried_and_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    racing(monkeypatch, lambda round: [2.0, 1.5])
    found = optimized(model, most_loss=0.5, budget=Budget(seconds=1e-6, images=16), techniques=[LOWER, LOWEST])
    assert found.report.cut
    assert found.variant == Variant("bfloat16")
