"""Muon and AdamW as one optimiser: each weight moves as the library's own optimiser moves it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.training import Settings
from fewstep.training.muon import Muon


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(3, 8, 3)
        self.inside = nn.Conv2d(8, 8, 3)
        self.line = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.inside(self.conv_in(x)).mean((2, 3)))


def gradients(module: nn.Module, step: int) -> None:
    """Gives the weights gradients of full rank, so that making them orthogonal is well conditioned."""
    generator = torch.Generator().manual_seed(step)
    for weight in module.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def steps(module: nn.Module, optimiser: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        gradients(module, i)
        optimiser.step()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_matrices_move_by_muon_and_the_rest_by_adamw(memory: torch.memory_format) -> None:
    ours, theirs = Small().to(memory_format=memory), Small()  # type: ignore[call-overload]
    steps(ours, Muon(dict(ours.named_parameters()), 1e-3, 2e-2, (0.9, 0.99), 0.01), 4)
    view = nn.Parameter(theirs.inside.weight.detach().view(8, -1))
    muon = torch.optim.Muon([view, theirs.line.weight], lr=2e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    others = [theirs.conv_in.weight, theirs.conv_in.bias, theirs.inside.bias, theirs.line.bias]
    adamw = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    for i in range(4):
        gradients(theirs, i)
        assert theirs.inside.weight.grad is not None
        view.grad = theirs.inside.weight.grad.reshape(8, -1)
        muon.step()
        adamw.step()
    for (name, a), b, began in zip(ours.named_parameters(), theirs.parameters(), Small().parameters(), strict=True):
        moved = (b - began).abs().max()
        bound = 0.02 if name in ("inside.weight", "line.weight") else 1e-4  # the library's Muon rounds to bfloat16
        assert (a - b).abs().max() < bound * moved, name


def test_both_go_on_from_their_state_to_the_same_bits() -> None:
    whole, half = Small(), Small()
    settings = Settings(optimiser="adamw", muon=2e-2, weight_decay=0.01)

    def make(module: nn.Module) -> torch.optim.Optimizer:
        return settings.optimiser_of(dict(module.named_parameters()))

    steps(whole, make(whole), 6)
    first = make(half)
    steps(half, first, 3)
    kept = copy.deepcopy(first.state_dict())
    second = make(half)
    second.load_state_dict(kept)
    steps(half, second, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))


def test_a_rate_that_is_set_reaches_both_in_proportion() -> None:
    module = Small()
    optimiser = Settings(optimiser="adamw", rate=1e-3, muon=4e-3).optimiser_of(dict(module.named_parameters()))
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(module.state_dict())
    steps(module, optimiser, 1)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert [group["ratio"] for group in optimiser.param_groups] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"muon": 1e-3}, "go with the optimiser adamw, got adam"), ({"weight_decay": 0.1, "optimiser": "radam"}, "radam")],
)
def test_muon_goes_with_adamw(given: dict[str, float], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        Settings(**given)  # type: ignore[arg-type]
