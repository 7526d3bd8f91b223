"""The learning rate over a stage, and settings that contradict each other."""

import pytest
from torch import nn

from fewstep import InvalidInput
from fewstep.training import Phase, Settings


def rates(settings: Settings, steps: int, begins: int = 0) -> list[float]:
    """The rates of a stage, to three digits."""
    phases = [Phase(0, 1, begins, steps, begins + step) for step in range(steps)]
    return [round(settings.learning_rate(phase), 3) for phase in phases]


@pytest.mark.parametrize("begins", [0, 7])
def test_a_trapezoid_rises_is_level_and_falls_to_0_after_the_last_step(begins: int) -> None:
    settings = Settings(rate=1.0, warmup=2, decay="trapezoid", cooldown=4)
    assert rates(settings, 8, begins) == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_a_cooldown_longer_than_the_stage_is_the_whole_stage() -> None:
    assert rates(Settings(rate=1.0, decay="trapezoid", cooldown=100), 4) == [1.0, 0.75, 0.5, 0.25]


def test_the_other_decays_end_near_0_or_not_at_all() -> None:
    found = {name: rates(Settings(rate=1.0, decay=name), 4) for name in ("constant", "linear", "cosine")}
    assert found["constant"] == [1.0] * 4
    assert found["linear"] == [1.0, 0.75, 0.5, 0.25]
    assert found["cosine"] == [1.0, 0.854, 0.5, 0.146]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": "trapezoid"}, "at least 1 step, .* got the decay trapezoid and a cooldown of 0"),
        ({"decay": "cosine", "cooldown": 5}, "no other decay has one: got the decay cosine and a cooldown of 5"),
        ({"cooldown": -1}, "cooldown must be a whole number from 0, got -1"),
        ({"cooldown": 2.0}, "cooldown must be a whole number from 0, got 2.0"),
        ({"decay": "trapezium"}, "did you mean 'trapezoid'"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"rate": float("nan")}, "rate must be a number of at least 0, got nan"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Settings(**change)


def test_adamw_has_the_same_betas_with_and_without_muon() -> None:
    alone = Settings(optimiser="adamw", weight_decay=0.1).optimiser_of(dict(nn.Linear(2, 2).named_parameters()))
    assert alone.param_groups[0]["betas"] == (0.9, 0.99)
    assert alone.param_groups[0]["weight_decay"] == 0.1
