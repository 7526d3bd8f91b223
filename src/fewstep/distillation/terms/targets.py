"""Estimates that are to be alike: with one dropout on both sides, and the data themselves where a trajectory ends."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewstep.denoise.base import Denoiser, Level
from fewstep.training import Draws
from fewstep.training.draws import seed_generators
from fewstep.training.levels import either


def masked(denoiser: Denoiser, x: Tensor, level: Level, draws: Draws) -> Tensor:
    """The estimate of the data with the dropout of this step, the same whenever it is asked for."""
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_generators(draws.key("dropout"))
        return denoiser.estimate(x, level)[0]


def aim(
    denoiser: Denoiser, states: tuple[Tensor, Tensor], levels: tuple[Level, Level], ends: np.ndarray, draws: Draws
) -> Tensor:
    """The target at the second of two states on a trajectory: the estimate there, or its data where this `ends`."""
    (x, nearer), (here, there) = states, levels
    # No network was trained where no noise is left: there it is asked for what is not taken, at the first.
    asked = torch.where(mask_of(ends, x), x, nearer)
    return ended(nearer, there, ends, masked(denoiser, asked, either(ends, here, there, x), draws))


def ended(x: Tensor, level: Level, ends: np.ndarray, estimate: Tensor) -> Tensor:
    """The target: the state itself where the trajectory ends, as data, and else the estimate."""
    return torch.where(mask_of(ends, x), x / level.alpha, estimate)


def mask_of(chosen: np.ndarray, x: Tensor) -> Tensor:
    """(B, 1, ..) of some samples (B,) of states."""
    return torch.from_numpy(np.asarray(chosen)).to(x.device).reshape(-1, *[1] * (x.ndim - 1))
