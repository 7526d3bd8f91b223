"""A sampling compiles to a plan, and keeps one or its digest."""

import json

import pytest

import fewstep as fs
from fewstep.drawing import Sampling

SCHEDULE = fs.schedules.scaled_linear()


def test_it_compiles_as_the_core_does() -> None:
    sampling = Sampling("edm", steps=4, grid="karras", grid_options={"rho": 5.0}, s_churn=3.0)
    by_hand = fs.compile("edm", schedule=SCHEDULE, steps=4, grid="karras", grid_options={"rho": 5.0}, s_churn=3.0)
    assert sampling.compile(SCHEDULE) == by_hand
    assert sampling.name == "edm-4"
    times = Sampling("ddim", times=[900, 500, 0], eta=0.5)
    assert times.compile(SCHEDULE) == fs.compile("ddim", schedule=SCHEDULE, times=[900, 500, 0], eta=0.5)
    assert times.name == "ddim-2"
    sigmas = Sampling("ddim", sigmas=(10.0, 1.0, 0.0))
    assert sigmas.compile(SCHEDULE) == fs.compile("ddim", schedule=SCHEDULE, sigmas=[10, 1, 0])


def test_a_plan_is_kept_whole_and_reads_back_to_the_same_bits() -> None:
    plan = fs.compile("unipc-3", schedule=SCHEDULE, steps=5)
    sampling = Sampling(plan=plan)
    again = Sampling.read(sampling.text)
    assert again == sampling
    assert again.compile(SCHEDULE) == plan
    assert (again.plan.digest, sampling.name) == (plan.digest, "unipc-3-5")  # type: ignore[union-attr]


def test_a_plan_too_long_is_kept_as_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fs.compile("unipc-3", schedule=SCHEDULE, steps=5)
    assert Sampling(plan=plan).beside() == Sampling(plan=plan)
    monkeypatch.setattr("fewstep.drawing.sampling.TABLE_LIMIT", 100)
    beside = Sampling(plan=plan).beside()
    assert (beside.plan, beside.name) == (plan.digest, f"plan-{plan.digest}")
    assert Sampling.read(beside.text) == beside
    with pytest.raises(fs.InvalidInput, match=f"{plan.digest} was too long to be kept.*give its file"):
        beside.compile(SCHEDULE)


def test_the_longest_plan_that_is_kept_is_read_back_from_a_picture() -> None:
    from fewstep.drawing.sampling import TABLE_LIMIT

    plan = fs.compile("heun", schedule=SCHEDULE, steps=500)
    assert len(plan.to_json()) < TABLE_LIMIT
    assert Sampling.read(json.dumps(Sampling(plan=plan).to_json())).compile(SCHEDULE) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plan": "0" * 15}, r"plan"),
        ({"plan": 7}, r"plan"),
        ({"plan": {"format": 9}}, "not a plan of format"),
        ({"plan": "0" * 16, "steps": 3}, "the plan already decides steps: leave them out, or name a sampler"),
        ({"steps": 3, "grid": "karras"}, "unknown sampler 'None'"),
        ({"sampler": "ddim", "steps": 3}, "unknown grid 'None'"),
        ({"sampler": "ddim"}, "exactly one of steps, times and sigmas, got none"),
        ({"sampler": "ddim", "times": (1.0, 0.0), "sigmas": (1.0, 0.0)}, "got times and sigmas"),
        ({"sampler": "ddim", "times": (1.0, 0.0), "grid": "karras"}, "leave out the grid and its options"),
        ({"sampler": "ddim", "steps": 10_001, "grid": "karras"}, "less than or equal to 10000"),
        ({"sampler": "ddim", "steps": 3, "grid": "karras", "schedule": 1}, "schedule is not an option of ddim"),
        ({"sampler": "ddim", "steps": 3, "grid": "karras", "reverse": True}, "reverse is not an option of ddim"),
    ],
)
def test_what_decides_nothing_or_twice_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        Sampling(**fields)
