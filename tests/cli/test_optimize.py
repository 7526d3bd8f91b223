"""`fewstep optimize`: what is refused before anything is measured, and what is written and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fewstep as fs
from fewstep.measure.figure import Figure
from fewstep.optimization import Optimized, Report, Trial
from fewstep.run.machine import machine_of
from fewstep.variants import Variant

from .conftest import Call

SPEED = Figure("times faster", 1.5, 1.4, 1.6, 5, "more")
LOSS = Figure("error gained", 0.004, -0.001, 0.008, 128, "less")
TRIALS = (
    Trial("network in bfloat16", "as it is", True, "kept", SPEED, LOSS),
    Trial("network in float16", "as it is", False, "slower: 0.10 times", SPEED),
    Trial("VAE compiled", "as it is", False, "tiny draws pixels"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `fewstep.optimize` is asked for; nothing is measured."""
    found: list[dict[str, Any]] = []

    def optimize(model: Any, **given: Any) -> Optimized:
        found.append({"model": model, **given})
        given["watch"]("timing 3 in turns")
        report = Report(
            {"name": "tiny", "weights": "a", "digest": "b"}, Variant("bfloat16"), machine_of("cpu"), {}, 0.01, TRIALS,
            (), LOSS, None, 128, 10.0, True,
        )  # fmt: skip
        return Optimized(fs.load(model), Variant("bfloat16"), report)

    monkeypatch.setattr(fs, "optimize", optimize)
    return found


def test_a_table_says_what_was_tried_and_why(call: Call, here: Path, asked: list[dict[str, Any]]) -> None:
    result = call("optimize", "tiny.safetensors", "--max-loss", "2%", "--batch", "16,1", "--seconds", "30")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["technique", "on", "times"]
    assert "1.50" in lines[2]
    assert lines[2].endswith("kept")
    assert "slower: 0.10 times" in lines[3]
    assert result.stdout.rstrip().endswith("tiny-optimized")
    assert "the time was over before all was tried" in result.stderr
    (given,) = asked
    assert (given["most_loss"], given["batches"], given["output"]) == (0.02, (16, 1), Path("tiny-optimized"))
    assert given["budget"].seconds == 30.0


def test_sampler_and_steps_make_the_plan(call: Call, here: Path, asked: list[dict[str, Any]]) -> None:
    assert call("optimize", "tiny.safetensors", "--sampler", "ddim", "--steps", 7, "--output", "out").exit_code == 0
    (given,) = asked
    assert given["plan"].recipe.sampler == "ddim"
    assert len(given["plan"].rows) == 7


def test_json_has_the_report(call: Call, here: Path, asked: list[dict[str, Any]]) -> None:
    document = json.loads(call("optimize", "tiny.safetensors", "--json").stdout)
    assert document["path"] == "tiny-optimized"
    assert [one["kept"] for one in document["trials"]] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-loss", "0%"], "0% is not above 0 and at most 1"),
        (["--max-loss", "little"], "'little' is not a share such as 1% or 0.01"),
        (["--batch", "0"], "0 in the list is outside 1 .. 1024"),
        (["--batch", "two"], "'two' in the list is not a number"),
        (["--sampler", "ddpm"], "ddpm draws noise on the way"),
        (["--prompts", "file.txt"], "prompts are for models that take them"),
        (["--device", "cuda:99"], "cannot be used here"),
    ],
)
def test_bad_input_is_named(words: list[str], said: str, call: Call, here: Path) -> None:
    result = call("optimize", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (here / "tiny-optimized").exists()


def test_a_student_is_refused(call: Call, here: Path) -> None:
    result = call("optimize", "scenes-turbo")
    assert result.exit_code == 2
    assert "scenes-turbo is a student" in result.stderr
