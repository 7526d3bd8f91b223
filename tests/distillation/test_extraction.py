"""From two networks to the least change between them for its bytes."""

from __future__ import annotations

import copy
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewstep import InvalidInput
from fewstep.distillation import lora_of, rounded_of
from fewstep.distillation.extraction import LAYER, NAMED, cut_of, error_of, ranks_of
from fewstep.models import lowrank
from models.tiny_diffusers import sd_unet


def unet(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return sd_unet()


def matrix(rows: int, columns: int, values: list[float], seed: int) -> torch.Tensor:
    """With known singular values."""
    draw = torch.Generator().manual_seed(seed)
    sides = [torch.linalg.qr(torch.randn(n, len(values), generator=draw).double())[0] for n in (rows, columns)]
    return sides[0] @ torch.diag(torch.tensor(values).double()) @ sides[1].T


def test_a_difference_of_low_rank_is_found_with_that_rank() -> None:
    base = unet()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.conv_in.weight += matrix(8, 36, [2.0, 1.0], 0).float().reshape(8, 4, 3, 3)
        tuned.time_embedding.linear_1.weight += matrix(32, 8, [3.0, 1.0, 0.5], 1).float()
        tuned.conv_norm_out.bias += 0.25
    for dtype, most in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        found = lora_of(base, tuned, 1 << 20, dtype)
        assert {name: change.rank for name, change in found.low_rank.items()} == {
            "conv_in": 2,
            "time_embedding.linear_1": 3,
        }
        assert list(found.whole) == ["conv_norm_out.bias"]
        assert error_of(base, tuned, found) < most
        again = copy.deepcopy(base)
        lowrank.add(again, found)
        assert torch.allclose(again.conv_in.weight, tuned.conv_in.weight, atol=2 * most)
        assert torch.equal(again.conv_out.weight, base.conv_out.weight)


def test_files_keep_to_the_limit_and_the_error_falls_with_it(tmp_path: Path) -> None:
    base, tuned = unet(0), unet(1)
    errors = []
    for limit in (20_000, 30_000, 50_000, 80_000, 400_000):
        found = lora_of(base, tuned, limit)
        folder = tmp_path / str(limit)
        folder.mkdir()
        lowrank.write(folder, "unet", found)
        size = sum(file.stat().st_size for file in folder.iterdir())
        assert 0.6 * min(limit, 80_000) < size <= limit
        errors.append(error_of(base, tuned, found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_no_other_ranks_of_the_same_bytes_leave_much_less() -> None:
    """Of all ranks of three layers, which cost unlike bytes: within one singular value of the best."""
    differences = {
        "a": matrix(16, 16, [4.0, 2.0, 1.0, 0.5], 0),
        "b": matrix(64, 24, [5.0, 4.0, 0.3], 1),
        "c": matrix(8, 8, [1.0, 0.9, 0.8, 0.7, 0.6], 2),
    }
    cuts = {name: cut_of(difference, 2) for name, difference in differences.items()}

    def price(ranks: dict[str, int]) -> int:
        return sum(rank * cuts[n].price + (LAYER + NAMED * len(n) if rank else 0) for n, rank in ranks.items())

    def left(ranks: dict[str, int]) -> float:
        return sum(float(cuts[n].values[rank:].square().sum()) for n, rank in ranks.items())

    every = [dict(zip(cuts, ranks, strict=True)) for ranks in product(range(5), range(4), range(6))]
    for limit in range(400, 2600, 100):
        found = ranks_of(cuts, limit)
        assert price(found) <= limit
        best = min(left(ranks) for ranks in every if price(ranks) <= limit)
        gains = [float(cut.values[i]) ** 2 for cut in cuts.values() for i in range(len(cut.values))]
        assert best <= left(found) + 1e-9 <= best + max(gains)
    whole = ranks_of(cuts, 10_000)
    assert whole == {"a": 4, "b": 3, "c": 5}


def test_singular_values_are_taken_by_what_they_remove_for_their_bytes() -> None:
    """The largest value costs ten times as much here as two that remove nearly as much together."""
    cuts = {"large": cut_of(matrix(400, 400, [1.0], 0), 2), "small": cut_of(matrix(40, 40, [0.9, 0.8], 1), 2)}
    assert ranks_of(cuts, 1000) == {"large": 0, "small": 2}
    assert ranks_of(cuts, 10_000) == {"large": 1, "small": 2}


def test_networks_that_cannot_be_compared_are_refused() -> None:
    base, tuned = unet(), unet(1)
    with pytest.raises(InvalidInput, match=r"what has to be kept whole takes \d\d,\d\d\d bytes, and max_bytes is 500"):
        lora_of(base, tuned, 500)
    with pytest.raises(InvalidInput, match="not of one shape: they differ in weight"):
        lora_of(nn.Linear(2, 3), nn.Linear(3, 3), 1000)
    with pytest.raises(InvalidInput, match="not of one shape: they differ in bias"):
        lora_of(nn.Linear(2, 3), nn.Linear(2, 3, bias=False), 1000)
    with torch.no_grad():
        tuned.conv_in.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(InvalidInput, match=r"conv_in\.weight of the two networks has a difference that is not finite"):
        lora_of(base, tuned, 1 << 20)


def test_equal_networks_have_no_changes() -> None:
    found = lora_of(unet(), unet(), 1000)
    assert not found.low_rank
    assert not found.whole


def test_eight_bits_keep_a_change_of_full_rank_and_are_smaller_than_a_lora_that_loses_it(tmp_path: Path) -> None:
    base, tuned = unet(0), unet(1)
    found = rounded_of(base, tuned)
    assert error_of(base, tuned, found) < 0.01
    lowrank.write(tmp_path, "unet", found)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert error_of(base, tuned, lora_of(base, tuned, size)) > 0.2
    again = copy.deepcopy(base)
    lowrank.add(again, lowrank.read(tmp_path, "unet"))
    for name, tensor in tuned.state_dict().items():
        difference = (tensor - base.state_dict()[name]).abs()
        assert (again.state_dict()[name] - tensor).abs().max() <= difference.max() / 200, name
    assert not rounded_of(base, copy.deepcopy(base))
