"""Where and how a run computes: nothing but the precision changes what comes of it, and all is undone at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.training import STUDENT, Place, Run, student_of, train

from .linear import QUICK, Fit, Line, Samples

SHORT = replace(QUICK, steps=6)


class Watched(Line):
    """Counts how often it is called, and keeps the precision of what it answered last."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.answered: torch.dtype | None = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1  # here, as computing again ends where all is there
        found = super().forward(x, t)
        self.answered = found.dtype
        return found


class Asks(Fit):
    """Asks the network as methods do, twice for each loss."""

    def losses(self, roles: Any, batch: Any, phase: Any, draws: Any) -> Any:
        t = torch.zeros(len(batch.data))
        for loss in super().losses(roles, batch, phase, draws):
            call = roles[STUDENT].network.network
            more = call(call(batch.data, t), t)
            yield loss._replace(value=loss.value + 0.1 * more.float().square().mean())


def run_at(folder: Path, place: Place, network: nn.Module | None = None) -> Run:
    roles = student_of(fs.Network(network or Watched(), schedules.flow(), "sample"))
    return Run(Asks(), roles, Samples(), SHORT, folder, place=place)


def weights(run: Run) -> list[Tensor]:
    return [weight.detach().clone() for weight in train(run).parameters()]


def test_activations_that_are_computed_again_are_the_same_to_the_bit_with_dropout(tmp_path: Path) -> None:
    runs = {kept: run_at(tmp_path / str(kept), Place(checkpointing=not kept)) for kept in (True, False)}
    found = {kept: weights(run) for kept, run in runs.items()}
    assert all(torch.equal(a, b) for a, b in zip(found[True], found[False], strict=True))
    calls = {kept: run.roles[STUDENT].module.calls for kept, run in runs.items()}
    assert calls == {True: 18, False: 30}  # of 6 steps: once by itself, and twice through the role


def test_networks_that_compute_activations_again_by_themselves_do_so_while_they_are_trained(tmp_path: Path) -> None:
    class Own(Watched):
        _supports_gradient_checkpointing = True

        def __init__(self) -> None:
            super().__init__()
            self.told: list[str] = []

        def enable_gradient_checkpointing(self) -> None:
            self.told.append("on")

        def disable_gradient_checkpointing(self) -> None:
            self.told.append(f"off after {self.calls}")

    run = run_at(tmp_path, Place(checkpointing=True), Own())
    train(run)
    assert run.roles[STUDENT].module.told == ["on", "off after 18"]
    assert run.roles["teacher"].module.told == []


def test_in_bfloat16_the_network_runs_lower_from_weights_in_float32(tmp_path: Path) -> None:
    run = run_at(tmp_path / "low", Place(precision="bfloat16"))
    low, usual = weights(run), weights(run_at(tmp_path / "usual", Place()))
    assert all(weight.dtype is torch.float32 for weight in low)
    assert run.roles[STUDENT].module.answered is torch.bfloat16
    differences = [float((a - b).abs().max()) for a, b in zip(low, usual, strict=True)]
    assert 0 < max(differences) < 0.05
    with pytest.raises(InvalidInput, match="precision is 'bfloat16' there and None here"):
        train(run_at(tmp_path / "low", Place()))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an item for each call of a network that is compiled, here to what it is."""
    calls: list[int] = []

    def compile_module(module: nn.Module) -> None:
        def call(*args: Any, **more: Any) -> Any:
            calls.append(1)
            return module._call_impl(*args, **more)

        module._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(Watched, "compile", compile_module)
    return calls


def test_a_compiled_network_is_asked_by_its_compiled_call_until_the_end(compiled: list[int], tmp_path: Path) -> None:
    run = run_at(tmp_path / "compiled", Place(compile=True))
    found = weights(run)
    assert len(compiled) == 18
    assert run.roles[STUDENT].module._compiled_call_impl is None
    usual = weights(run_at(tmp_path / "usual", Place()))
    assert all(torch.equal(a, b) for a, b in zip(found, usual, strict=True))


def test_all_is_undone_where_a_run_fails(compiled: list[int], tmp_path: Path) -> None:
    run = run_at(tmp_path, Place(compile=True, precision="bfloat16"))
    student = run.roles[STUDENT].network
    call = student.network
    with pytest.raises(RuntimeError, match="enough"):
        train(run._replace(settings=replace(SHORT, log_every=1)), watch=_enough)
    assert len(compiled) == 3
    assert student.network is call
    assert student.module._compiled_call_impl is None  # type: ignore[union-attr]


def _enough(now: Any) -> None:
    raise RuntimeError("enough")


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown precision 'bfloat15': did you mean 'bfloat16'"):
        Place(precision="bfloat15")
