"""`fewstep choose`: what it measures, what it answers, and what it refuses."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import fewstep as fs
from benchmark.tiny import commands
from fewstep.core.plan import TunedFor
from fewstep.tuning.table import plan_of, table_of
from models import tiny_diffusers

from .conftest import Call

QUICK = ("--measure-seconds", 600, "--images", 4)


def rows() -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in Path("out/bench-tiny/runs.jsonl").read_text().splitlines()]


def test_it_measures_what_is_missing_once_and_its_command_draws(call: Call, here: Path) -> None:
    words = ("choose", "tiny.safetensors", "--budget-rows", 3, *QUICK)
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert "Nothing is measured with 3 rows: measuring into out/bench-tiny" in result.stderr
    found = json.loads(result.stdout)
    assert found["kind"] == "measured"
    chosen = found["chosen"]
    assert (chosen["plan"]["rows"], chosen["nfe"]) == (3, 6.0)
    assert chosen["figures"]["quality"]["low"] <= chosen["figures"]["quality"]["value"] <= 1
    assert chosen["seconds"]["value"] > 0
    errors = [row["figures"]["error"]["value"] for row in rows()]
    assert chosen["figures"]["error"]["value"] <= 1.01 * min(errors)
    again = call(*words)
    assert again.exit_code == 0
    assert "measuring" not in again.stderr
    assert "Nothing that was measured is better" in again.stdout
    command = next(line for line in again.stdout.splitlines() if line.startswith("command: "))
    drawn = call(*shlex.split(command)[2:], "--count", 1, "--json")
    assert json.loads(drawn.stdout)["made"]["plan"] == chosen["plan"]["digest"]


def test_a_variant_is_measured_and_drawn_with_the_command_and_the_line_of_python(call: Call, here: Path) -> None:
    tiny_diffusers.write("ddpm", here / "whole").save_pretrained(here / "half", variant="fp16")
    words = ("choose", "half", "--budget-rows", 3, *QUICK, "--variant", "fp16")
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    command = found["lines"]["command"]
    assert command.endswith(" --variant fp16")
    drawn = call(*shlex.split(command)[1:], "--count", 1, "--json")
    assert json.loads(drawn.stdout)["made"]["plan"] == found["chosen"]["plan"]["digest"]
    assert found["lines"]["python"].startswith('images = fs.load("half", variant="fp16")(')
    page = Path("out/bench-half/index.html")
    for start in ("fewstep bench half ", "fewstep generate half "):
        found = commands(page, start)
        assert found
        assert all(line[-2:] == ["--variant", "fp16"] for line in found)


def test_advice_says_that_it_is_advice(call: Call, here: Path) -> None:
    result = call("choose", "tiny.safetensors", "--budget-rows", 3, "--no-measure")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Nothing is measured of this model: this is the field's advice, not a measurement")
    assert "lcm" in result.stdout
    assert "of a model that is not distilled" in result.stdout.lower()
    assert "--sampler ddim --steps 3" in result.stdout
    found = json.loads(call("choose", "tiny.safetensors", "--budget-rows", 20, "--no-measure", "--json").stdout)
    assert (found["kind"], found["chosen"]["figures"]) == ("advice", {})
    assert not Path("out").exists()


def test_a_budget_that_nothing_meets_is_told_the_least(call: Call, here: Path) -> None:
    assert call("choose", "tiny.safetensors", "--budget-rows", 4, *QUICK).exit_code == 0
    result = call("choose", "tiny.safetensors", "--budget-rows", 2, "--no-measure")
    assert result.exit_code == 2
    assert "the least is 4 rows" in result.stderr
    result = call("choose", "tiny.safetensors", "--budget-ms", 1e-6, "--no-measure")
    assert result.exit_code == 2
    assert "the least is" in result.stderr
    assert "ms an image" in result.stderr


def test_a_plan_tuned_for_another_model_is_refused(call: Call, here: Path) -> None:
    schedule = fs.load("tiny.safetensors").model.schedule
    table = table_of(fs.compile("unipc-2", schedule=schedule, steps=3))
    assert table is not None
    plan_of(table, schedule, TunedFor("0" * 16)).save("other.json")
    result = call("choose", "tiny.safetensors", "--budget-rows", 3, "--results", "other.json", "--no-measure")
    assert result.exit_code == 2
    assert "was tuned for a model with digest 0000000000000000" in result.stderr
    words = ("choose", "tiny.safetensors", "--budget-rows", 3, "--results", "other.json", *QUICK)
    forced = call(*words, "--force", "--json")
    assert forced.exit_code == 0, forced.stderr
    assert [row["plan"]["sampler"] for row in rows() if row["plan"]["kind"] == "tuned"] == ["learned"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --budget-rows N, --budget-nfe N, --budget-ms MS or --quality Q"),
        (("--budget-rows", 0), "1<=x<=10000"),
        (("--quality", 1.5), "0<x<=1"),
        (("--budget-ms", 5, "--no-measure"), "tiny has no measurements, and without them there is advice for"),
        (("--budget-rows", 4, "--results", "nowhere.json"), "nothing is there: nowhere.json"),
        (("--budget-rows", 4, "--guidance", "nan", "--no-measure"), "a guidance scale is a finite number, got nan"),
        (("--budget-rows", 4, "--guidance", "inf"), "a guidance scale is a finite number, got inf"),
        (("--budget-rows", 4, "--prompts", "p.txt", "--no-measure"), "--prompts is for models that take prompts"),
        (("--budget-rows", 4, "--guidance", "auto", "--no-measure"), "leave out --no-measure, or give a scale"),
        (("--budget-rows", 4, "--guidance", "auto"), "nothing is known of tiny that tells a better guidance scale"),
        (("--budget-rows", 4, "--guidance", "1,x"), "'1,x' is not a number, several with commas between them, or auto"),
        (("--budget-rows", 4, "--guidance", "1,nan"), "a guidance scale is a finite number, got nan"),
        (("--budget-rows", 4, "--guidance", "auto", "--data", "none"), "none is not a folder of real pictures"),
        (
            ("--budget-rows", 4, "--guidance", "auto", "--negative", "blue"),
            "--negative is for models that take prompts",
        ),
        (("--budget-rows", 4, "--negative", "blue"), "--negative is for a scale that is chosen: give --guidance auto"),
        (("--budget-rows", 4, "--data", "real"), "--data is for a scale that is chosen"),
        (("--budget-rows", 4, "--clip", "clip", "--guidance", 2), "--clip is for a scale that is chosen"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Call, here: Path, words: tuple[object, ...], message: str) -> None:
    result = call("choose", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1


def test_ctrl_c_while_measuring_keeps_the_rows_and_says_interrupted(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewstep.benchmark.results import ResultFile

    append = ResultFile.append

    def once(self: ResultFile, run: object) -> None:
        append(self, run)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultFile, "append", once)
    result = call("choose", "tiny.safetensors", "--budget-rows", 3, *QUICK)
    assert result.exit_code == 130
    assert len(rows()) == 1


def test_the_guidance_scale_is_chosen_by_the_distance_to_real_pictures(call: Call, here: Path) -> None:
    """The real pictures are drawn at scale 1, from other noise."""
    Path("real").mkdir()
    for n, picture in enumerate(fs.load("tiny.safetensors")(count=40, steps=3, guidance=1.0).images):
        picture.save(f"real/{n}.png")
    words = ("choose", "tiny.safetensors", "--budget-rows", 3, "--guidance", "1,3,60", "--data", "real")
    words = (*words, "--measure-seconds", 600, "--images", 64)
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert "guidance scales of 64 images: about" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Guidance scales by kernel distance, drawn by ")
    assert [line.split()[0] for line in lines[3:7]] == ["1", "2", "3", "60"]  # 2 is the model's own
    assert any(line.startswith("Guidance ") and "has the best kernel distance" in line for line in lines)
    again = call(*words, "--json")
    assert "measuring" not in again.stderr
    found = json.loads(again.stdout)
    scale = found["guidance"]["scale"]
    assert scale in found["guidance"]["verdict"]["as_good"]
    assert 60.0 not in found["guidance"]["verdict"]["as_good"]
    assert found["chosen"]["guidance"] == scale
    assert f"--guidance {scale:g}" in found["lines"]["command"]
    assert found["guidance"]["negatives"] is None


def test_after_a_tuning_alone_its_certificate_speaks(call: Call, here: Path) -> None:
    schedule = fs.load("tiny.safetensors").model.schedule
    digest = fs.load("tiny.safetensors").model.digest
    for name, error, steps in (("mine", 0.1, 3), ("less", 0.2, 2)):
        table = table_of(fs.compile("unipc-2", schedule=schedule, steps=steps))
        assert table is not None
        plan = plan_of(table, schedule, TunedFor(digest))
        Path("out").mkdir(exist_ok=True)
        plan.save(f"out/{name}.json")
        errors = {"value": error, "low": 0.5 * error, "high": None if name == "less" else 1.2 * error}
        document = {
            "model": {"digest": digest},
            "settings": {"guidance": 2.0},
            "images": {"held_out": 32},
            "compared": [{"digest": plan.digest, "rmse": errors}],
        }
        Path(f"out/{name}.certificate.json").write_text(json.dumps(document))
    words = ("choose", "tiny.safetensors", "--budget-rows", 4, "--no-measure")
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert "the plan out/mine.json" in result.stdout
    assert "The next cheaper one may be as good: the intervals of error overlap" in result.stdout
    assert "out/mine.json: from its certificate" in result.stderr
    found = json.loads(call(*words, "--json").stdout)
    assert (found["kind"], found["cheaper"]["figures"]["error"]["high"]) == ("measured", None)
    other = call(*words, "--guidance", 3)
    assert other.stdout.startswith("Nothing is measured of this model")
    assert (
        "out/mine.json is left out: its certificate is of guidance 2, and nothing is measured at this one"
        in other.stderr
    )
