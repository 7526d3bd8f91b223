"""Draws are keyed by seed, purpose, step and sample; the order of samples by seed and epoch."""

from __future__ import annotations

import traceback

import numpy as np
import pytest
import torch

from fewstep.training import Draws
from fewstep.training.draws import seed_generators
from fewstep.training.order import members


def draws(samples: list[int], places: list[int] | None = None, step: int = 3, seed: int = 1) -> Draws:
    return Draws(seed, step, samples, places or list(range(len(samples))), 8)


def test_a_sample_meets_the_same_noise_whoever_shares_its_batch() -> None:
    whole, part = draws([5, 2, 9]), draws([9, 5])
    assert torch.equal(whole.normal("noise", (2, 4))[[2, 0]], part.normal("noise", (2, 4)))
    assert np.array_equal(whole.uniform("time")[[2, 0]], part.uniform("time"))


def test_purpose_step_seed_and_sample_all_matter() -> None:
    usual = draws([5]).normal("noise", (4,))
    others = [draws([5]).normal("drop", (4,)), draws([5], step=4).normal("noise", (4,))]
    others += [draws([5], seed=2).normal("noise", (4,)), draws([6]).normal("noise", (4,))]
    assert all(not torch.equal(usual, other) for other in others)
    assert len({draws([5]).key("a"), draws([5]).key("b"), draws([5], step=4).key("a")}) == 3


def test_spread_draws_fall_into_equal_shares_however_a_step_is_shared_out() -> None:
    whole = draws(list(range(8))).spread("time")
    assert sorted(np.floor(whole * 8 - whole.min() * 8 + 1e-9).astype(int).tolist()) == list(range(8))
    parts = [draws([0, 1, 2], [0, 1, 2]).spread("time"), draws([3, 4, 5, 6, 7], [3, 4, 5, 6, 7]).spread("time")]
    assert np.array_equal(whole, np.concatenate(parts))


def test_noise_has_unit_moments() -> None:
    z = draws(list(range(500))).normal("noise", (64,))
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.var()) - 1) < 0.03


def test_an_epoch_takes_every_sample_once_and_each_in_another_order() -> None:
    steps = [members(10, 4, step, seed=0) for step in range(5)]
    taken = [number for step in steps for number in step]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]
    assert steps == [members(10, 4, step, seed=0) for step in range(5)]
    assert members(10, 4, 0, seed=1) != steps[0]


def test_without_a_count_no_sample_comes_again() -> None:
    assert members(None, 3, 4, seed=0) == [12, 13, 14]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch seeds the card at once")
def test_generators_are_seeded_as_by_torch_without_the_stack_being_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[int] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        wanted = torch.rand(4)
        monkeypatch.setattr(traceback, "format_stack", lambda: written.append(1))
        seed_generators(7)
        assert torch.equal(torch.rand(4), wanted)
        assert not written
        seed_generators(8)
        assert not torch.equal(torch.rand(4), wanted)
