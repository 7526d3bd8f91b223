"""Memory of a run: the registers and little more, however many steps it takes."""

import gc
import warnings

import pytest
import torch
from torch import Tensor

import fewstep as fs

from .problems import SCHEDULES

SHAPE = (3, 7, 11)  # of no other tensor


def alive() -> int:
    """How many blocks of memory hold a state, by whatever tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some objects that gc knows answer isinstance with a deprecation
        tensors = [o for o in gc.get_objects() if isinstance(o, Tensor)]
    size = torch.Size(SHAPE).numel()
    return len({t.untyped_storage().data_ptr() for t in tensors if t.untyped_storage().nbytes() in (4 * size, 8 * size)})


class Watched:
    """A network that counts the states in memory when it is called, its input included."""

    def __init__(self):
        self.most = 0

    def __call__(self, x, t):
        self.most = max(self.most, alive())
        return torch.sin(x)


def most(plan, prediction, projected=False):
    watched = Watched()
    denoiser = fs.Network(watched, SCHEDULES["flow"], prediction)
    gc.collect()
    before = alive()
    x0 = fs.sample(plan, fs.clip(denoiser) if projected else denoiser, shape=SHAPE)
    assert x0.shape == SHAPE
    return watched.most - before


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("prediction", ["flow", "sample"])
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_run_holds_its_registers_and_little_more_whatever_the_steps(name, prediction, projected):
    few, many = (fs.compile(name, schedule=SCHEDULES["flow"], steps=n, grid="karras") for n in (8, 24))
    assert many.registers == few.registers
    held = most(many, prediction, projected)
    assert held == most(few, prediction, projected)
    print(name, prediction, projected, many.registers, held-many.registers)
