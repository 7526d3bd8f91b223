"""`fewstep plan`: the table of a sampler."""

import json
from pathlib import Path

import pytest

import fewstep as fs

from .conftest import Call


def test_the_table_says_what_each_register_becomes(call: Call) -> None:
    lines = call("plan", "dpmpp-2m", "--steps", 3).stdout.splitlines()
    plan = fs.compile("dpmpp-2m", schedule=fs.schedules.linear(), steps=3)
    assert plan.digest in lines[0]
    assert "3 rows, 2 registers" in lines[0]
    first, second, third = (line for line in lines if line.lstrip()[:1].isdigit())
    assert first.split()[:6] == ["0", "step", "1", "999", "0.00635282", "0.99998"]
    assert f"{plan.A[1, 0, 0]:.5g} R0 - {-plan.A[1, 0, 1]:.5g} R1 + {plan.B[1, 0, 0]:.5g} x0" in second
    assert third.split()[-2:] == ["x0", "0"]


def test_json_is_the_plan_itself(call: Call) -> None:
    words = ["plan", "ddim", "--steps", 4, "--option", "eta=0.5", "--grid", "karras", "--grid-option", "rho=5"]
    result = call(*words, "--grid-option", "bias=-1.0", "--schedule", "flow:shift=3", "--json")
    assert fs.Plan.from_json(result.stdout) == fs.compile(
        "ddim",
        schedule=fs.schedules.flow(shift=3),
        steps=4,
        grid="karras",
        grid_options={"rho": 5, "bias": -1.0},
        eta=0.5,
    )


def test_times_and_sigmas_are_taken_as_they_are(call: Call) -> None:
    times = json.loads(call("plan", "ddim", "--times", "999,400.5,-1", "--json").stdout)["recipe"]["times"]
    assert times == [999, 400.5, -1]
    sigmas = json.loads(call("plan", "ddim", "--schedule", "edm", "--sigmas", "80,2,0", "--json").stdout)
    assert sigmas["recipe"]["times"] == [80, 2, 0]


def test_a_plan_is_written_to_a_file(call: Call, here: Path) -> None:
    result = call("plan", "unipc-2", "--steps", 5, "--output", "new/p.json")
    assert result.stdout == "new/p.json\n"
    assert fs.Plan.load("new/p.json") == fs.compile("unipc-2", schedule=fs.schedules.linear(), steps=5)


def test_noise_and_departures_are_shown(call: Call) -> None:
    output = call("plan", "lcm", "--steps", 2).stdout
    assert "departs from the schedule" in output
    assert " z" in output
    assert "raw x0" in call("plan", "ddim", "--steps", 2, "--option", "eta=1").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ddim"], "give one of --steps, --times and --sigmas, got none"),
        (["ddim", "--steps", "3", "--times", "9,-1"], "got --steps and --times"),
        (["ddim", "--times", "9,-1", "--grid-option", "bias=1"], "the grid is given by its times"),
        (["ddim", "--times", "9,x"], "'x' in the list is not a number"),
        (["ddim", "--times", "9,nan"], "outside"),
        (["ddim", "--times", "1,2"], "decrease"),
        (["ddim", "--steps", "100000"], "1<=x<=10000"),
        (["ddim", "--steps", "3", "--option", "eta"], "not of the form key=value"),
        (["ddim", "--steps", "3", "--option", "eta=1", "--option", "eta=0"], "--option eta is given twice"),
        (["ddim", "--steps", "3", "--option", "eta=2"], "eta must lie in [0, 1]"),
        (["ddim", "--steps", "3", "--option", "eta=x"], "eta must be of type float, got 'x'"),
        (["ddim", "--steps", "3", "--option", "steps=3"], "steps is not an option of ddim"),
        (["ddim", "--steps", "3", "--schedule", "lineer"], "did you mean 'linear'"),
        (["ddim", "--steps", "3", "--schedule", "flow:shift"], "not a parameter such as shift=3"),
        (["ddim", "--steps", "3", "--schedule", "flow:shift=nan"], "not a parameter such as shift=3"),
        (["ddim", "--steps", "3", "--schedule", "flow:shfit=3"], "does not take ['shfit']"),
        (["ddim", "--steps", "3", "--schedule", "flow:shift=-1"], "shift must be"),
        (["ddpm", "--steps", "3", "--reverse"], "cannot be run in reverse"),
    ],
)
def test_bad_values_are_named(call: Call, words: list[str], message: str) -> None:
    result = call("plan", *words)
    assert result.exit_code == 2
    assert message in result.stderr
