"""Memory of a run: the registers and one output, however many steps it takes."""

import gc
import warnings

import pytest
import torch
from torch import Tensor

import fewstep as fs

from .problems import SCHEDULES

SHAPE = (3, 7, 11)


@pytest.fixture
def alive():
    """How many blocks of memory hold a state, by whatever tensor, that were made during the test."""
    gc.freeze()  # what is older is not looked at
    size = torch.Size(SHAPE).numel()

    def count() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some objects answer isinstance with a deprecation
            tensors = [o for o in gc.get_objects() if isinstance(o, Tensor)]
        blocks = [t.untyped_storage() for t in tensors]
        return len({b.data_ptr() for b in blocks if b.nbytes() in (4 * size, 8 * size)})

    yield count
    gc.unfreeze()


@pytest.mark.parametrize(
    ("prediction", "projected"),
    [("flow", False), ("v_prediction", False), ("epsilon", False), ("sample", False), ("sample", True)],
)
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_run_holds_its_registers_and_one_output_whatever_the_steps(name, prediction, projected, alive):
    start = torch.ones(SHAPE)
    schedule = SCHEDULES["scaled_linear" if prediction == "epsilon" else "flow"]
    mine, asked, answered = alive(), [], []

    def network(x, t):
        asked.append(alive() - mine)
        return torch.sin(x)

    denoiser = fs.Network(network, schedule, prediction)
    denoiser = fs.clip(denoiser) if projected else denoiser
    for steps in (16, 32):
        plan = fs.compile(name, schedule=schedule, steps=steps, grid="karras")
        asked.clear()
        answered.clear()
        fs.sample(plan, denoiser, start=start, on_row=lambda _: answered.append(alive() - mine))
        assert max(asked) <= plan.registers
        assert max(answered) <= plan.registers + 1 + projected  # and the output, clipped and as it was


def test_the_count_sees_a_tensor_that_is_held(alive):
    held = []
    before = alive()
    held.append(torch.ones(SHAPE))
    held.append(held[0].view(-1))
    assert alive() == before + 1
    held.append(torch.ones(SHAPE, dtype=torch.float64))
    assert alive() == before + 2
