"""`fewstep tune`: the plan, its certificate, and that a plan of another model is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.tuning import budget

from .conftest import Call

QUICK = ("--seconds", 600, "--images", 8, "--iterations", 2, "--samplers", "ddim,unipc-2")


def test_a_plan_and_its_certificate_are_written_and_generate_draws_with_it(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--rows", 2, *QUICK, "--output", "new/plan.json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "new/plan.json"
    assert "the rest into learning" in result.stderr
    plan = fs.Plan.load("new/plan.json")
    found = json.loads(Path("new/plan.certificate.json").read_text())
    assert found["plan"] == plan.digest
    assert found["rows"] == len(plan.rows) == 2
    assert found["nfe"] == 4
    assert found["model"]["digest"] == fs.load("tiny.safetensors").model.digest
    assert Path("new/plan.certificate.html").read_text().startswith("<!doctype html>")
    drawn = call("generate", "tiny.safetensors", "--plan", "new/plan.json", "--count", 1, "--json")
    assert json.loads(drawn.stdout)["made"]["plan"] == plan.digest


def test_json_is_the_certificate(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--rows", 3, *QUICK, "--guidance", 1, "--json")
    found = json.loads(result.stdout)
    assert found["path"] == str(Path("out/tiny-3-rows.json"))
    assert found["settings"] == {"guidance": 1.0}
    assert found["seconds"]["total"] > 0
    assert {row["kind"] for row in found["compared"]} >= {"default"}


def test_a_lower_precision_is_said_in_the_certificate_and_the_plan(call: Call, here: Path) -> None:
    words = ("--iterations", 2, "--dtype", "bfloat16", "--guidance", 3, "--json")
    found = json.loads(call("tune", "tiny.safetensors", "--rows", 2, *QUICK, *words).stdout)
    assert found["settings"] == {"guidance": 3.0, "precision": "bfloat16"}
    plan = fs.Plan.load(found["path"])
    assert found["kind"] != "learned" or plan.tuned_for.settings["precision"] == "bfloat16"
    assert "guidance 3.0, precision bfloat16" in Path(found["certificate"][1]).read_text()


def test_some_rows_alone_can_be_guided(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--nfe", 6, *QUICK, "--interval", "--guidance", 3)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[2:4] == ["rows", "NFE"]
    found = json.loads(Path("out/tiny-6-nfe.certificate.json").read_text())
    assert found["search"]["layouts"] > 3
    assert max(row["nfe"] for row in found["compared"]) == found["nfe"] == 6
    drawn = call("generate", "tiny.safetensors", "--plan", "out/tiny-6-nfe.json", "--guidance", 3, "--json")
    assert json.loads(drawn.stdout)["nfe"] == 6
    for words, message in (
        (["--guidance", 1], "interval needs classifier-free guidance"),
        (["--constant-guidance"], "give one of them"),
        (["--nfe", 7, "--guidance", 3], "a row of tiny costs 2 evaluations, and 7 is not a multiple of that"),
    ):
        refused = call("tune", "tiny.safetensors", "--nfe", 6, *QUICK, "--interval", *words)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr


def test_the_objective_is_the_typical_image_or_all_images(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--rows", 3, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "typical error" in result.stdout.splitlines()[0]
    assert json.loads(Path("out/tiny-3-rows.certificate.json").read_text())["objective"] == "psnr"
    result = call("tune", "tiny.safetensors", "--rows", 3, *QUICK, "--objective", "rmse")
    assert "typical" not in result.stdout.splitlines()[0]
    assert json.loads(Path("out/tiny-3-rows.certificate.json").read_text())["objective"] == "rmse"
    refused = call("tune", "tiny.safetensors", "--rows", 3, *QUICK, "--objective", "ssim")
    assert (refused.exit_code, "'ssim' is not one of 'psnr', 'rmse'" in refused.stderr) == (2, True)


def test_a_plan_tuned_for_another_model_is_refused_unless_forced(call: Call, here: Path) -> None:
    from fewstep.tuning.table import plan_of, table_of

    schedule = fs.load("tiny.safetensors").model.schedule
    table = table_of(fs.compile("unipc-2", schedule=schedule, steps=3))
    assert table is not None
    plan_of(table, schedule, TunedFor("0" * 16)).save("other.json")
    refused = call("generate", "tiny.safetensors", "--plan", "other.json", "--count", 1)
    assert refused.exit_code == 2
    assert "was tuned for a model with digest 0000000000000000" in refused.stderr
    assert "--force" in refused.stderr
    assert call("generate", "tiny.safetensors", "--plan", "other.json", "--count", 1, "--force").exit_code == 0
    assert "give --plan" in call("generate", "tiny.safetensors", "--force").stderr


def test_ctrl_c_during_the_certificate_keeps_the_plan_alone(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    words = ("tune", "tiny.safetensors", "--rows", 2, *QUICK, "--iterations", 0, "--output", "plan.json")
    assert call(*words, "--seed", 1).exit_code == 0
    assert sorted(path.name for path in here.glob("plan.*")) == [
        "plan.certificate.html", "plan.certificate.json", "plan.json",
    ]  # fmt: skip
    Path("plan.json").unlink()
    monkeypatch.setattr("fewstep.tuning.verdict.gain", interrupted)
    result = call(*words)
    assert result.exit_code == 130
    assert result.stdout == "plan.json\n"
    assert result.stderr.splitlines()[-1] == "interrupted: the best plan so far is kept, without a certificate"
    assert [path.name for path in here.glob("*plan.*")] == ["plan.json"]
    assert len(fs.Plan.load("plan.json").rows) == 2
    assert json.loads(call(*words, "--json").stdout) == {"path": "plan.json", "certificate": []}


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.tuning.tune", None)
    Path("plan.certificate.json").mkdir()
    for output, message in (
        ("/proc/t6.json", "No such file or directory: /proc/t6.json"),
        ("tiny.safetensors/t6.json", "tiny.safetensors"),
        ("plan.json", "Is a directory: plan.certificate.json"),
    ):
        result = call("tune", "tiny.safetensors", "--rows", 2, *QUICK, "--output", output)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert ".part" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "its time; got none"),
        (("--nfe", 4, "--ms", 100), "got --nfe and --ms"),
        (("--ms", 0), "x>0"),
        (("--ms", 1e-6), "no plan meets 1e-06 ms an image here: the least, 2 rows, takes"),
        (("--rows", 1), "2<=x<=32"),
        (("--rows", 4, "--interval"), "give --nfe N"),
        (("--nfe", 4, "--output", "plan.txt"), "must end in .json"),
        (("--nfe", 4, "--prompts", "p.txt"), "--prompts is for models that take prompts"),
        (("--nfe", 4, "--seconds", 0), "x>=1"),
        (("--nfe", 4, "--samplers", "lcm"), "unknown sampler without noise 'lcm'"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Call, here: Path, words: tuple[object, ...], message: str) -> None:
    result = call("tune", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1


def test_milliseconds_become_the_rows_that_fit(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fitting(run: Callable[[int], None], images: int, ms: float, **more: object) -> tuple[int, float]:
        run(2)
        assert (images, ms) == (2, 40.0)
        return 3, 38.5

    monkeypatch.setattr(budget, "fitting", fitting)
    result = call("tune", "tiny.safetensors", "--ms", 40, "--batch", 2, *QUICK, "--samplers", "ddim", "--iterations", 0)
    assert result.exit_code == 0, result.stderr
    assert "3 rows take 38.5 ms an image" in result.stderr
    assert len(fs.Plan.load("out/tiny-3-rows.json").rows) == 3


def test_a_plan_that_guides_by_row_is_followed_and_drawn_again(call: Call, here: Path) -> None:
    from fewstep.tuning.table import plan_of, table_of

    pipe = fs.load("tiny.safetensors")
    table = table_of(fs.compile("unipc-2", schedule=pipe.model.schedule, steps=2))
    assert table is not None
    for name, factors in (("by_row", [0.5, 2.0]), ("constant", [1.0, 1.0])):
        plan_of(table, pipe.model.schedule, TunedFor(pipe.model.digest), factors).save(f"{name}.json")
        drawn = call(
            "generate", "tiny.safetensors", "--plan", f"{name}.json", "--guidance", 3, "--output", f"{name}.png"
        )
        assert drawn.exit_code == 0, drawn.stderr
    assert Path("by_row.png").read_bytes() != Path("constant.png").read_bytes()
    stamp = fs.drawing.read("by_row.png")
    drawing, plan = stamp.drawing, fs.Plan.load("by_row.json")
    settings = {"guidance": 3.0, "seed": drawing.seed, "count": drawing.count, "batch": stamp.made.batch}
    drawn = pipe(drawing.labels, sampler=plan, **settings)
    assert torch.equal(pipe.redraw(stamp).tensor, drawn.tensor)
    refused = call("generate", "tiny.safetensors", "--plan", "by_row.json", "--guidance-method", "apg")
    assert refused.exit_code == 2
    assert "was tuned with guidance by row" in refused.stderr
    assert "--constant-guidance" in refused.stderr
