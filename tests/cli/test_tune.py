"""`fewstep tune`: the plan, its certificate, and that a plan of another model is refused."""

import json
from pathlib import Path

import pytest

import fewstep as fs

from .conftest import Call

QUICK = ("--seconds", 600, "--images", 8, "--iterations", 2, "--samplers", "ddim,unipc-2")


def test_a_plan_and_its_certificate_are_written_and_generate_draws_with_it(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--nfe", 2, *QUICK, "--output", "new/plan.json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "new/plan.json"
    assert "the rest learns" in result.stderr
    plan = fs.Plan.load("new/plan.json")
    found = json.loads(Path("new/plan.certificate.json").read_text())
    assert found["plan"] == plan.digest
    assert found["nfe"] == plan.nfe == 2
    assert found["model"]["digest"] == fs.load("tiny.safetensors").digest
    assert Path("new/plan.certificate.html").read_text().startswith("<!doctype html>")
    drawn = call("generate", "tiny.safetensors", "--plan", "new/plan.json", "--count", 1, "--json")
    assert json.loads(drawn.stdout)["recipe"]["plan"]["digest"] == plan.digest


def test_json_is_the_certificate(call: Call, here: Path) -> None:
    result = call("tune", "tiny.safetensors", "--nfe", 3, *QUICK, "--guidance", 1, "--json")
    found = json.loads(result.stdout)
    assert found["path"] == str(Path("out/tiny-3-nfe.json"))
    assert found["settings"] == {"guidance": 1.0}
    assert found["seconds"]["total"] > 0
    assert {row["kind"] for row in found["compared"]} >= {"default"}


def test_a_plan_tuned_for_another_model_is_refused_unless_forced(call: Call, here: Path) -> None:
    from fewstep.tune.table import plan_of, table_of

    schedule = fs.load("tiny.safetensors").schedule
    table = table_of(fs.compile("unipc-2", schedule=schedule, steps=3))
    assert table is not None
    plan_of(table, schedule, {"model": "0" * 16}).save("other.json")
    refused = call("generate", "tiny.safetensors", "--plan", "other.json", "--count", 1)
    assert refused.exit_code == 2
    assert "was tuned for a model with digest 0000000000000000" in refused.stderr
    assert "--force" in refused.stderr
    assert call("generate", "tiny.safetensors", "--plan", "other.json", "--count", 1, "--force").exit_code == 0
    assert "give --plan" in call("generate", "tiny.safetensors", "--force").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing option '--nfe'"),
        (("--nfe", 1), "2<=x<=32"),
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
