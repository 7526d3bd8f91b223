"""What a discriminator sees inside a network, where that is compiled too."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from fewstep.distillation.terms.heads import heard


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_layers_of_a_compiled_network_are_heard_again_and_again() -> None:
    module, x = network(), torch.ones(5, 3)
    module.compile(backend="eager")
    compiled = module._compiled_call_impl
    usual = module(x)
    for scale in (1.0, 2.0):
        with heard(module, ["0", "1"]) as found:
            module(scale * x)
        first, second = found
        assert torch.equal(first, module[0](scale * x))
        assert torch.equal(second, torch.tanh(first))
    assert module._compiled_call_impl is compiled
    assert torch.equal(module(x), usual)
    assert len(found) == 2
