"""`fewstep bench`: what it prints, that it goes on, and that bad input is one line and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from bench.tiny import solved_once
from fewstep.bench import read_runs

from .conftest import Call

QUICK = ("--samplers", "ddim,heun", "--grids", "karras", "--images", 4, "--batch", 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    solved_once(monkeypatch)


def test_it_says_the_cost_prints_what_none_beats_and_goes_on(call: Call, here: Path) -> None:
    first = call("bench", "tiny.safetensors", *QUICK, "--steps", "2-3,6")
    assert first.exit_code == 0, first.stderr
    assert "6 rows of 4 images: about " in first.stderr
    assert "100% done" not in first.stderr
    assert "0% done, now converged solutions at guidance 2" in first.stderr
    assert first.stdout.splitlines()[0].startswith("guidance 2, 4 images, seed 0, cpu: ")
    assert first.stdout.splitlines()[-1] == "out/bench-tiny/index.html"
    assert "no distance: no features and no real images of this model are known" in first.stderr
    assert len(read_runs("out/bench-tiny/runs.jsonl")) == 6
    page = Path("out/bench-tiny/index.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "fewstep generate tiny.safetensors --sampler ddim --steps 2 --grid karras --guidance 2" in page
    again = call("bench", "tiny.safetensors", *QUICK, "--steps", "2-3,6")
    assert "Nothing is left to measure: all 6 rows are there" in again.stderr
    assert again.stdout == first.stdout


def test_json_has_all_rows_and_the_fronts(call: Call, here: Path) -> None:
    result = call("bench", "tiny.safetensors", *QUICK, "--nfe", "5", "--guidance", "1,2", "--output", "new", "--json")
    found = json.loads(result.stdout)
    assert [(run["sampler"], run["steps"], run["guidance"]) for run in found["runs"]] == [
        ("ddim", 5, 1.0),
        ("heun", 3, 1.0),
        ("ddim", 5, 2.0),
        ("heun", 3, 2.0),
    ]
    assert [front["group"]["guidance"] for front in found["fronts"]] == [1.0, 2.0]
    assert all(front["evaluations"] for front in found["fronts"])
    assert found["page"] == str(Path("new/index.html"))
    assert (found["left"], found["stopped"], found["skipped"]) == (0, "", {})


def test_ctrl_c_ends_with_its_code_and_says_what_is_left(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewstep.bench.runner import Work

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Work, "_measure", interrupted)
        result = call("bench", "tiny.safetensors", *QUICK, "--steps", "2")
    assert result.exit_code == 130
    assert "interrupted: 0 rows are done, 2 are left; the same command goes on" in result.stderr
    again = call("bench", "tiny.safetensors", *QUICK, "--steps", "2")
    assert again.exit_code == 0
    assert len(read_runs("out/bench-tiny/runs.jsonl")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samplers", "dddim"), "unknown sampler 'dddim': did you mean 'ddim'"),
        (("--grids", "karas"), "unknown grid 'karas'"),
        (("--steps", "0"), "outside 1 .. 1000"),
        (("--steps", "8-4"), "8-4 is not a range such as 4-6"),
        (("--steps", "4", "--nfe", "4"), "give one of them"),
        (("--precision", "int8"), "precision must be one of"),
        (("--images", "1"), "2<=x<=100000"),
        (("--seconds", "0"), "x>0"),
        (("--prompts", "p.txt"), "--prompts is for models that take prompts"),
        (("--plan", "none.json"), "none.json"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Call, here: Path, words: tuple[object, ...], message: str) -> None:
    result = call("bench", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert not Path("out").exists()
