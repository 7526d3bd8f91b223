"""What a run needs is counted and measured before it begins, and nothing is changed by that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep import InvalidInput
from fewstep.training import Batch, Draws, Loss, Memory, Phase, Roles, Settings, forecast_of, train
from fewstep.training import forecast as forecasts
from fewstep.training.allocation import Allocated

from .linear import QUICK, Fit, run

CPU = torch.device("cpu")
WEIGHTS = 4 * (9 + 3)
"""Bytes of a line."""


def test_memory_that_lives_at_once_is_counted() -> None:
    before = torch.ones(1000)
    with Allocated(CPU) as allocated:
        first = before + 1
        assert first.view(10, 100).sum() == 2000
        del first
        second = before.double() * 2
        del second
    assert 16_000 <= allocated.peak <= 16_016


def test_what_is_kept_for_gradients_is_counted() -> None:
    x = torch.ones(100, 50, requires_grad=True)
    with Allocated(CPU) as allocated:
        y = x.exp().exp()
        kept = allocated.tensors.live
        y.sum().backward()
    assert kept == 2 * 20_000
    assert allocated.peak >= 4 * 20_000


def test_weights_averages_and_moments_are_counted_by_their_bytes(tmp_path: Path) -> None:
    found = forecast_of(run(tmp_path), data_bytes=7, data_seconds=3.0)
    memory = found.memory
    assert (memory.gradients, memory.moments, memory.averages) == (WEIGHTS, 2 * WEIGHTS, 2 * WEIGHTS)
    assert (memory.copies, found.samples, found.data_bytes, found.batch) == (0, 50, 7, QUICK.batch)
    assert memory.before > 10**7
    assert found.seconds == 3.0 + 24 * (found.step_seconds or 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, optimiser="adamw", muon=0.01)], ids=["adam", "muon"])
def test_a_forecast_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    for name in ("with", "without"):
        made = run(tmp_path / name, Fit(stages=2), settings)
        for role in made.roles.values():
            role.module.register_buffer("seen", torch.zeros(1))
        made.roles["student"].module.register_forward_hook(count_calls)
        before = torch.get_rng_state()
        if name == "with":
            forecast_of(made)
        assert torch.equal(before, torch.get_rng_state())
        assert all(weight.grad is None for weight in made.roles["student"].module.parameters())
        train(made)
    states = [tmp_path / name / "states/step-00000024/state.safetensors" for name in ("with", "without")]
    assert states[0].read_bytes() == states[1].read_bytes()


def count_calls(module: torch.nn.Module, *_: object) -> None:
    module.seen.add_(1)


class Longer(Fit):
    """Which says that a later step holds three graphs."""

    def memory(self) -> Memory:
        return Memory(graphs=3, copies=2)


def test_activations_grow_with_the_samples_and_with_the_graphs_that_a_method_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "most_held_during", lambda work: (work(), 0))  # as the tensors say alone
    small, large = (
        forecast_of(run(tmp_path, settings=replace(QUICK, batch=batch))).memory.activations for batch in (1000, 2000)
    )
    parts = forecast_of(run(tmp_path, settings=replace(QUICK, batch=2000, accumulate=2))).memory.activations
    longer = forecast_of(run(tmp_path, Longer(), settings=replace(QUICK, batch=1000))).memory
    slope = large - small
    assert slope > 1000 * 4 * 3 * 2
    assert parts == small
    assert longer.activations - small == pytest.approx(2 * slope, rel=0.01)
    assert longer.copies == 2 * WEIGHTS


class Hidden(Fit):
    """Which works in 80 MB that are no tensor of torch's, where a step is whole."""

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        np.ones(10_000_000 * (len(batch) == QUICK.batch))
        yield from super().losses(roles, batch, phase, draws)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process held")
def test_what_the_process_holds_beside_its_tensors_is_seen(tmp_path: Path) -> None:
    plain, more = (forecast_of(run(tmp_path, method)).memory.activations for method in (Fit(), Hidden()))
    assert 70e6 < more - plain < 90e6


def test_what_does_not_fit_is_not_timed_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "free_bytes", lambda device: 10)
    found = forecast_of(run(tmp_path))
    assert found.step_seconds is None
    assert found.seconds is None
    with pytest.raises(InvalidInput, match="are free: lower batch, raise accumulate, or use checkpointing"):
        found.check()
