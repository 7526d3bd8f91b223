"""The impulse response of a plan, applied to numbers, is a run of the plan on those numbers."""

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.measure.impulse import impulse

WIDTH = 4


class Recorder:
    """Answers with outputs that were fixed beforehand, and writes down what it is asked."""

    def __init__(self, outputs):
        self.outputs, self.inputs = outputs, []

    def __call__(self, x, t):
        self.inputs.append(x[0].numpy().copy())
        return self.outputs[len(self.inputs) - 1][None].expand_as(x)


def states(plan, start, outputs):
    recorder = Recorder(outputs)
    result = fs.sample(plan, recorder, start=start[None], seed=5)
    return np.stack([*recorder.inputs, result[0].numpy()])


def numbers(count):
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("sampler", ["heun", "unipc-3", "lms-4", "dpmpp-3s", "dpmpp-sde", "edm", "sa", "tcd"])
def test_the_table_applied_to_numbers_is_the_run(sampler):
    plan = fs.compile(sampler, schedule=fs.schedules.scaled_linear(), steps=5)
    table = impulse(plan)
    start, outputs = numbers(1)[0], numbers(len(plan.rows))
    silent = states(plan, 0 * start, 0 * outputs)  # what the noise alone does
    run = states(plan, start, outputs) - silent
    assert table.states.shape == (len(plan.rows) + 1, 1 + len(plan.rows) + len(table.draws))
    expected = table.states[:, : table.noise.start] @ np.vstack([start[None].numpy(), outputs.numpy()])
    np.testing.assert_allclose(run, expected, rtol=0, atol=1e-12)
    assert plan.stochastic == bool(len(table.draws)) == bool(np.abs(silent).max() > 0)


def test_the_noise_columns_are_what_a_step_adds():
    schedule = fs.schedules.edm()
    table = impulse(fs.compile("euler-a", schedule=schedule, sigmas=[10.0, 5.0, 1.0, 0.0]))
    added = [5 * np.sqrt(1 - (5 / 10) ** 2), 1 * np.sqrt(1 - (1 / 5) ** 2)]
    assert [(draw.start, draw.end) for draw in table.draws] == [(10.0, 5.0), (5.0, 1.0)]
    np.testing.assert_allclose(table.inputs[1, table.noise], [added[0], 0], rtol=1e-14)
    np.testing.assert_allclose(table.inputs[2, table.noise], [added[0] * 1 / 25, added[1]], rtol=1e-12)
    np.testing.assert_array_equal(table.result, [0, 0, 0, 1, 0, 0])


def test_no_state_depends_on_what_comes_later():
    table = impulse(fs.compile("unipc-4", schedule=fs.schedules.flow(), steps=6))
    assert table.starts == 1
    np.testing.assert_array_equal(np.triu(table.inputs[:, table.data]), 0)
    assert np.all(np.diagonal(table.states[1:, table.data]) != 0)


def test_a_pair_has_two_starts():
    schedule = fs.schedules.edm()
    plan = fs.compile("belm", schedule=schedule, steps=4, reverse=True)
    again = fs.compile("belm", schedule=schedule, steps=4, start="pair")
    assert impulse(plan).starts == 1
    assert impulse(again).starts == 2
    assert impulse(again).states.shape == (len(again.rows) + 1, 2 + len(again.rows))
