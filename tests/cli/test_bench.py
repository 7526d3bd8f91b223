"""`fewstep bench`: what it prints, that it goes on, and that bad input is one line and leaves nothing behind."""

import json
import shlex
from pathlib import Path

import pytest

import fewstep as fs
from benchmark.tiny import commands, solved_once
from fewstep.benchmark import read_results, work
from fewstep.core.plan import TunedFor
from fewstep.tuning.table import plan_of, table_of
from models import originals, tiny_diffusers

from .conftest import Call

QUICK = ("--samplers", "ddim,heun", "--grids", "karras", "--images", 4, "--batch", 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    solved_once(monkeypatch)


def test_it_says_the_cost_prints_what_none_beats_and_goes_on(call: Call, here: Path) -> None:
    first = call("bench", "tiny.safetensors", *QUICK, "--steps", "2-3,6")
    assert first.exit_code == 0, first.stderr
    assert "6 plans of 4 images: about " in first.stderr
    assert "100% done" not in first.stderr
    assert "0% done, now converged solutions at guidance 2" in first.stderr
    assert first.stdout.splitlines()[0].startswith("guidance 2, 4 images, seed 0, cpu: ")
    assert first.stdout.splitlines()[-1] == "out/bench-tiny/index.html"
    assert (
        "No column distance: no features and no real images of this model are known. It would be the Frechet"
        in first.stderr
    )
    assert len(read_results("out/bench-tiny/runs.jsonl")) == 6
    page = Path("out/bench-tiny/index.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "fewstep generate tiny.safetensors --sampler ddim --steps 2 --grid karras --guidance 2" in page
    again = call("bench", "tiny.safetensors", *QUICK, "--steps", "2-3,6")
    assert "Nothing is left to measure: all 6 plans are measured" in again.stderr
    assert again.stdout == first.stdout


def test_rows_that_draw_noise_are_shown_and_said_to_have_no_error(call: Call, here: Path) -> None:
    words = ("bench", "tiny.safetensors", "--images", 4, "--samplers", "euler-a,ddim", "--grids", "karras")
    alone = call(*words[:-3], "euler-a", *words[-2:], "--steps", "2-3")
    assert alone.exit_code == 0, alone.stderr
    first, *table = alone.stdout.splitlines()
    assert first.endswith(": no plan has an error to compare, as they draw noise on the way or lost images")
    assert sum("euler-a on karras" in line for line in table) == 2
    assert all(name in "".join(table[:2]) for name in ("rows", "NFE", "saturation", "ms an image"))
    chosen = call("choose", "tiny.safetensors", "--budget-rows", 3, "--no-measure")
    assert chosen.exit_code == 2
    assert "samplers that draw noise have none, so leave out --no-measure" in chosen.stderr
    both = call(*words, "--steps", "2-3")
    assert "2 plans draw noise on the way and have no error, so they are not in the table" in both.stderr


def test_json_has_all_rows_and_the_fronts(call: Call, here: Path) -> None:
    result = call("bench", "tiny.safetensors", *QUICK, "--rows", "5", "--guidance", "1,2", "--output", "new", "--json")
    found = json.loads(result.stdout)
    assert [(one["plan"]["sampler"], one["plan"]["steps"], one["guidance"]) for one in found["results"]] == [
        ("ddim", 5, 1.0),
        ("heun", 3, 1.0),
        ("ddim", 5, 2.0),
        ("heun", 3, 2.0),
    ]
    assert [front["group"]["guidance"] for front in found["fronts"]] == [1.0, 2.0]
    assert all(front["nfe"] for front in found["fronts"])
    assert found["page"] == str(Path("new/index.html"))
    assert (found["left"], found["stopped"], found["skipped"]) == (0, "", {})


def test_ctrl_c_ends_with_its_code_and_says_what_is_left(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewstep.benchmark.work import Work

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Work, "_measure", interrupted)
        result = call("bench", "tiny.safetensors", *QUICK, "--steps", "2")
    assert result.exit_code == 130
    assert "interrupted: 0 plans are done, 2 are left; the same command goes on" in result.stderr
    again = call("bench", "tiny.safetensors", *QUICK, "--steps", "2")
    assert again.exit_code == 0
    assert len(read_results("out/bench-tiny/runs.jsonl")) == 2


def test_the_commands_on_the_page_and_of_a_choice_load_the_same_files(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SHARE", 10.0)  # soon solved: figures are not looked at
    own = tiny_diffusers.write("sd", here / "the sd")
    originals.write(here / "one.safetensors", **originals.sd_parts(own))
    Path("prompts.txt").write_text("lion\n")
    few = ("--samplers", "ddim", "--grids", "karras", "--steps", "2", "--images", 2, "--batch", 2)
    result = call("bench", "one.safetensors", *few, "--prompts", "prompts.txt", "--model-config", "the sd")
    assert result.exit_code == 0, result.stderr
    page = Path("out/bench-one/index.html")
    (again,) = commands(page, "fewstep bench ")
    assert "all 1 plans are measured" in call(*again[1:]).stderr
    (draw,) = commands(page, "fewstep generate ")
    drawn = call(*[{"PROMPT": "lion"}.get(word, word) for word in draw[1:]], "--json")
    assert drawn.exit_code == 0, drawn.stderr
    (run,) = read_results("out/bench-one/runs.jsonl")
    made = json.loads(drawn.stdout)["made"]
    assert (made["plan"], made["model_digest"]) == (run.plan.digest, run.model.digest)
    where = ("--prompts", "prompts.txt", "--model-config", "the sd")
    chosen = call("choose", "one.safetensors", "--budget-rows", 2, "--no-measure", "--json", *where)
    assert chosen.exit_code == 0, chosen.stderr
    found = json.loads(chosen.stdout)
    assert (found["kind"], shlex.split(found["lines"]["command"])) == ("measured", draw)


def test_a_tuned_plan_in_half_precision_is_drawn_without_force(call: Call, here: Path) -> None:
    tiny_diffusers.write("ddpm", here / "ddpm")
    pipe = fs.load("ddpm")
    table = table_of(fs.compile("unipc-2", schedule=pipe.model.schedule, steps=3))
    assert table is not None
    plan_of(table, pipe.model.schedule, TunedFor(pipe.model.identity.weights)).save("tuned.json")
    words = ("--samplers", "none", "--plan", "tuned.json", "--precision", "bfloat16", "--images", 4, "--batch", 4)
    result = call("bench", "ddpm", *words)
    assert result.exit_code == 0, result.stderr
    (draw,) = commands(Path("out/bench-ddpm/index.html"), "fewstep generate ")
    assert draw[3:] == ["--plan", draw[4], "--dtype", "bfloat16"]
    drawn = call(*draw[1:], "--count", 1, "--json")
    assert drawn.exit_code == 0, drawn.stderr
    assert json.loads(drawn.stdout)["made"]["model_digest"] != pipe.model.digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samplers", "dddim"), "unknown sampler 'dddim': did you mean 'ddim'"),
        (("--grids", "karas"), "unknown grid 'karas'"),
        (("--steps", "0"), "outside 1 .. 1000"),
        (("--steps", "8-4"), "8-4 is not a range such as 2-5"),
        (("--steps", "4", "--nfe", "4"), "give one of them"),
        (("--rows", "4", "--nfe", "4"), "give one of them"),
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
