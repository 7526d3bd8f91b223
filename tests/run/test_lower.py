"""From a table to instructions: the same numbers, in few passes, without writing to what belongs to others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewstep as fs
from fewstep.core.plan import Interval, Plan, Recipe, Row
from fewstep.run.eager import run_rows
from fewstep.run.lower import DATA, RAW, combinations, lower
from fewstep.run.noise import key_of, unit_noise
from proof.problems import SCHEDULES

RECIPE = Recipe("a test", {}, "times", {}, 1, (1.0, 0.0), {"kind": "edm"}, "none")


def table(A, B, s, init=None, outputs=1):
    """A plan of a table as it is."""
    n, k = len(A), len(A[0])
    return Plan(
        recipe=RECIPE,
        rows=tuple(
            Row(float(n - i), 1.0, 1.0, f"row {i}", True, Interval(n - i, n - i - 1.0) if np.any(s[i]) else None)
            for i in range(n)
        ),
        init=np.eye(k, 2) if init is None else init,
        A=np.array(A, np.float64),
        B=np.array(B, np.float64),
        s=np.array(s, np.float64),
        start_noise=None,
        entry=(1.0, 1.0),
        exit=(1.0, 0.0),
        companion=None,
        outputs=outputs,
        tolerance=1e-12,
    )


class Recorded(fs.Denoiser):
    """Answers row i with outputs[i] and remembers what it was asked; `folds` are its coefficients in the rows."""

    def __init__(self, outputs, folds, project=None):
        self.outputs, self.folds, self.project = outputs, folds, project
        self.asked = []

    def coefficients(self, t, alpha, sigma):
        return self.folds[len(self.folds) - int(t)]

    def output(self, x, level):
        self.asked.append(x.clone())
        return self.outputs[len(self.asked) - 1].clone()


def plainly(plan, start, network, seeds):
    """All inputs and results by the plan's definition, and for each how large its parts were."""
    bank = [float(w[0]) * start for w in plan.init]
    size = [w.abs() for w in bank]
    inputs = []
    for i, row in enumerate(plan.rows):
        skip, out = network.folds[i]
        raw = skip * bank[0] + out * network.outputs[i]
        raw_size = abs(skip) * size[0] + abs(out) * network.outputs[i].abs()
        data = raw if network.project is None else network.project(raw)
        data_size = raw_size if network.project is None else data.abs()
        z = torch.zeros_like(start) if row.noise is None else unit_noise(seeds, key_of(row.noise), start)
        inputs.append((bank[0], size[0]))
        A, B, s = plan.A[i], plan.B[i], plan.s[i]
        k = range(plan.registers)
        new = [sum(A[r, j] * bank[j] for j in k) + B[r, 0] * data + B[r, 1] * raw + s[r] * z for r in k]
        size = [
            sum(abs(A[r, j]) * size[j] for j in k) + abs(B[r, 0]) * data_size + abs(B[r, 1]) * raw_size
            + abs(s[r]) * z.abs()
            for r in k
        ]  # fmt: skip
        bank = new
    return [*inputs, *list(zip(bank, size, strict=True))[: plan.outputs]]


def assert_same(plan, folds, project=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    outputs = torch.randn(len(plan.rows), 2, 3, dtype=torch.float64, generator=generator)
    network = Recorded(outputs, folds, project)
    ends = run_rows(plan, network, [start], [5, 9])
    expected = plainly(plan, start, network, [5, 9])
    for i, (got, (number, size)) in enumerate(zip([*network.asked, *ends], expected, strict=True)):
        assert torch.all((got - number).abs() <= 1e-12 * size), (i, got, number)


PLAIN = st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, -1.0, 0.5, 2.0])
ANY = st.one_of(PLAIN, st.floats(-3, 3).map(lambda c: round(c, 3)))
EXTREME = st.one_of(ANY, st.sampled_from([1e12, -1e-12, 1e-30, 3e8, 1e-8]))


def tables(numbers, rows=5):
    def build(draw):
        n, k = draw(st.integers(1, rows)), draw(st.integers(1, 4))
        array = lambda *shape: np.array(  # noqa: E731
            draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        ).reshape(shape)
        init = np.zeros((k, 2))
        init[:, 0] = array(k)
        return table(array(n, k, k), array(n, k, 2), array(n, k), init, draw(st.integers(1, k)))

    return st.composite(build)()


FOLDS = st.sampled_from([(0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (0.7, -1.3), (25.0, -24.5), (0.0, 0.0)])


@pytest.mark.parametrize("numbers", [PLAIN, ANY, EXTREME], ids=["plain", "any", "extreme"])
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_random_table_lowers_to_the_same_numbers(numbers, data):
    plan = data.draw(tables(numbers))
    folds = data.draw(st.lists(FOLDS, min_size=len(plan.rows), max_size=len(plan.rows)))
    project = data.draw(st.sampled_from([None, lambda x0: x0.clamp(-0.5, 0.5)]))
    assert_same(plan, folds, project)


@pytest.mark.parametrize("fold", [(0.0, 1.0), (1.25, -0.75)])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_every_sampler_lowers_to_the_same_numbers(name, projected, fold):
    for kind in ("zero_snr", "edm"):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=7)
        network = Recorded([], [fold] * len(plan.rows))
        network.coefficients = lambda t, alpha, sigma: fold
        start = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
        network.outputs = torch.sin(torch.arange(len(plan.rows) * 6, dtype=torch.float64)).reshape(-1, 2, 3)
        network.project = torch.tanh if projected else None
        ends = run_rows(plan, network, [start], [0, 1])
        expected = plainly(plan, start, network, [0, 1])
        for got, (number, size) in zip([*network.asked, *ends], expected, strict=True):
            assert torch.all((got - number).abs() <= 1e-12 * size)


@pytest.mark.parametrize(
    ("A", "B"),
    [
        ([[0, 1], [1, 0]], [[0, 0], [0, 0]]),  # a swap
        ([[1, 0], [1, 0]], [[0, 0], [0, 0]]),  # two names for one tensor
        ([[0, 1], [0, 1]], [[0, 0], [0, 0]]),
        ([[0, 0], [0, 0]], [[1, 0], [1, 0]]),  # both are the network's output
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),  # nothing is left
        ([[0, 0], [1, 0]], [[0, 0], [0, 0]]),
        ([[0, 1], [0, 0]], [[0, 0], [1, 0]]),  # history of one
        ([[2, 0], [0, 0.5]], [[1, 0], [0, 0]]),
        ([[1e12, 0], [0, 1e-12]], [[1, 0], [1, 0]]),
    ],
    ids=str,
)
def test_moves_swaps_and_zeros_repeat_without_harm(A, B):
    for n in (1, 2, 5):
        plan = table([A] * n, [[[b, 0] for b, _ in B]] * n, [[0, 0]] * n, np.array([[1.0, 0.0], [3.0, 0.0]]), 2)
        for fold in ((0.0, 1.0), (1.5, -0.5)):
            assert_same(plan, [fold] * n)


def test_a_small_part_of_a_large_register_is_not_dropped():
    # The second row starts from the same sum as the first, and what is left beside it is small only in its coefficient.
    A = [[[1e6, 1, 0], [1e6, 0, 1], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    plan = table(A, [[[1, 0], [1, 0], [0, 0]]] * 2, np.zeros((2, 3)), np.array([[1e-9, 0], [1, 0], [2, 0]]), 3)
    assert_same(plan, [(0.0, 1.0)] * 2)


def passes(plan, denoiser):
    folds = tuple(denoiser.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows)
    program = lower(plan, folds)
    count = lambda op: (op.factor is not None) + (op.first is not None) + len(op.rest)  # noqa: E731
    return [sum(map(count, ops)) for ops in program.rows[3:-3]]


@pytest.mark.parametrize(("name", "most"), [("ddim", 2), ("euler", 2), ("dpmpp-2m", 4), ("unipc-2", 5), ("unipc-3", 6)])
def test_the_usual_samplers_take_few_passes_over_memory_in_a_row(name, most):
    schedule = SCHEDULES["scaled_linear"]
    plan = fs.compile(name, schedule=schedule, steps=20)
    assert max(passes(plan, fs.Network(torch.sin, schedule, "epsilon"))) <= most


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_program_needs_one_buffer_more_than_registers_at_most(name):
    for kind in ("scaled_linear", "flow"):
        plan = fs.compile(name, schedule=SCHEDULES[kind], steps=20)
        network = fs.Network(torch.sin, SCHEDULES[kind], "flow")
        folds = tuple(network.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows)
        assert lower(plan, folds).buffers <= plan.registers + 1
        assert lower(plan, None).buffers <= plan.registers + 1


def test_combinations_fold_the_denoiser_into_the_table():
    plan = table([[[0.5]]], [[[2.0, 3.0]]], [[0.0]])
    assert combinations(plan, 0, None) == [{0: 0.5, DATA: 2.0, RAW: 3.0}]
    assert combinations(plan, 0, (0.1, -4.0)) == [{0: 0.5 + 5.0 * 0.1, DATA: -20.0}]
    assert combinations(plan, 0, (-0.1, 0.0)) == [{}]
