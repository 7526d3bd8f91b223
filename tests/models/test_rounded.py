"""Tensors in 8 bits a number, with a step for each output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fewstep import InvalidInput
from fewstep.models.rounded import Rounded, stored, taken


def some() -> Tensor:
    """Outputs of unequal size, one of which is nothing."""
    sizes = torch.tensor([1e-3, 5.0, 0.0, 1e-30]).double()
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).double() * sizes[:, None, None]


def test_each_number_is_off_by_half_a_step_of_its_output_at_most() -> None:
    tensor = some()
    found = Rounded.of(tensor)
    largest = tensor.abs().amax((1, 2), keepdim=True)
    assert found.values.dtype == torch.int8
    assert ((found.tensor() - tensor).abs() <= largest / 254 * (1 + 1e-6)).all()
    assert torch.equal(found.values.abs().amax((1, 2)), torch.tensor([127, 127, 0, 127], dtype=torch.int8))


def test_what_is_stored_is_taken_again_and_what_is_not_rounded_stays() -> None:
    tensors = stored({"a.weight": Rounded.of(some())}) | {"a.bias": torch.ones(4)}
    found = taken(tensors)
    assert torch.equal(found["a.weight"].tensor(), Rounded.of(some()).tensor())
    assert list(tensors) == ["a.bias"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("a.step"),
        lambda tensors: tensors.update({"a.step": torch.ones(3)}),
        lambda tensors: tensors.update({"a.step": torch.ones(4).half()}),
        lambda tensors: tensors.update({"a": torch.ones(4, dtype=torch.int8)}),
    ],
)
def test_numbers_without_their_steps_are_refused(spoil: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = stored({"a": Rounded.of(some())})
    spoil(tensors)
    with pytest.raises(InvalidInput, match=r"a is in 8 bits, and a.step is not a step for each of its outputs"):
        taken(tensors)
