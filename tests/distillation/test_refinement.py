"""Refinement: one student whose plans of one, two and more rows all end where the teacher does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Refinement, refinement
from fewstep.training import STUDENT, Batch, Draws, Phase, Run, Settings, student_of, train

from .gaussian import DIMENSIONS, Gaussian, Samples, exact

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
FAST = Settings(steps=900, batch=48, rate=0.04, width=0, clip=0, state_every=10**6, log_every=10**6)
TEACHER_PLAN = fs.compile("ddim", schedule=SCHEDULE, steps=10, grid="trailing")


def plan_of(rows: int) -> fs.Plan:
    return fs.compile("ddim", schedule=SCHEDULE, steps=rows, grid="trailing")


def errors(folder: Path, method: Refinement, settings: Settings = FAST) -> dict[int, float]:
    """The largest error of a trained student in each number of rows that it learned, in units of the data."""
    times = sorted({row.t for rows in (*method.counts, 10) for row in plan_of(rows).rows})
    teacher = exact(DATA, SCHEDULE, times)
    roles = student_of(teacher)
    train(Run(method, roles, Samples(DATA, TEACHER_PLAN, teacher), settings, folder))
    noise = torch.cat([torch.eye(DIMENSIONS), torch.zeros(1, DIMENSIONS)]).double()
    wanted = fs.sample(TEACHER_PLAN, teacher, start=noise * TEACHER_PLAN.entry[1])
    network = roles[STUDENT].network
    return {
        rows: float((fs.sample(plan_of(rows), network, start=noise * plan_of(rows).entry[1]) - wanted).abs().max())
        for rows in method.counts
    }


def test_every_number_of_rows_ends_where_the_teacher_does(tmp_path: Path) -> None:
    found = errors(tmp_path, Refinement(rows=4))
    assert list(found) == [1, 2, 4]
    assert max(found.values()) < 1e-3


def swapped(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The states before a row, of the noise of other samples."""

    def states(plans: list[fs.Plan], chosen: list[tuple[int, int]], role: object, batch: Batch) -> torch.Tensor:
        assert batch.noise is not None
        return method(plans, chosen, role, Batch(batch.data, batch.noise.flip(0), batch.condition))

    return states


def unmoved(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The states of a later row not taken through the rows before it."""

    def states(plans: list[fs.Plan], chosen: list[tuple[int, int]], role: object, batch: Batch) -> torch.Tensor:
        return method(plans, [(plan, 0) for plan, _ in chosen], role, batch)

    return states


@pytest.mark.parametrize("fault", [swapped, unmoved])
def test_a_fault_in_the_states_is_far_from_it(
    fault: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "states", fault(refinement.states))
    assert max(errors(tmp_path, Refinement(rows=2), Settings(**{**vars(FAST), "steps": 400})).values()) > 5e-3


def test_samples_are_shared_out_to_the_rows_as_said() -> None:
    draws = Draws(0, 0, range(1000), range(1000), 1000)
    chosen = Refinement(rows=4, first=0.4).chosen(draws)
    assert chosen.count((0, 0)) == 400
    assert {chosen.count(one) for one in [(1, 1), (2, 1), (2, 2), (2, 3)]} == {150}


def test_a_later_row_is_given_what_sampling_gives_it() -> None:
    times = sorted({row.t for rows in (1, 2, 4) for row in plan_of(rows).rows})
    role = student_of(exact(DATA, SCHEDULE, times))[STUDENT]
    noise = torch.randn(3, DIMENSIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plans = [plan_of(1), plan_of(2), plan_of(4)]
    found = refinement.states(plans, [(0, 0), (1, 1), (2, 3)], role, Batch(noise, noise))
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return role.module(x, t)

    network = fs.Network(watched, SCHEDULE, "sample")
    for place, (plan, row) in enumerate([(plans[0], 0), (plans[1], 1), (plans[2], 3)]):
        seen.clear()
        fs.sample(plan, network, start=noise[[place]] * plan.entry[1])
        torch.testing.assert_close(found[[place]], seen[row], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 3}, "one of 1, 2, 4, 8, got 3"),
        ({"rows": 16}, "one of 1, 2, 4, 8, got 16"),
        ({"rows": True}, "got True"),
        ({"first": 0.0}, "above 0 and at most 1, got 0"),
        ({"first": "all"}, "got 'all'"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        Refinement(**options)  # type: ignore[arg-type]


def test_images_without_noise_are_refused() -> None:
    role = student_of(exact(DATA, SCHEDULE, [999.0]))
    batch = Batch(torch.zeros(2, DIMENSIONS))
    with pytest.raises(fs.InvalidInput, match="pairs of noise"):
        next(Refinement().losses(role, batch, Phase(0, 1, 0, 10, 0), Draws(0, 0, [0, 1], [0, 1], 2)))
