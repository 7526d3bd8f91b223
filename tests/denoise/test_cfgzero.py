"""CFG-Zero*: the best multiple of the unconditional velocity, and the rows that stand still."""

import pytest
import torch

import fewstep as fs
from proof.conditional import EMPTY, LABELS, SHAPE, Counting, along, dot, state
from proof.problems import SCHEDULES

FLOW = SCHEDULES["flow"]


def zero_star(scale, *, network=None, labels=LABELS, zero_init=0, **options):
    network = fs.Network(network or Counting(), FLOW, "flow")
    method = fs.CFGZero(zero_init=zero_init)
    return fs.Guided(network, {"label": labels}, {"label": EMPTY}, scale, method=method, **options)


def cfg(scale, network=None):
    return fs.Guided(fs.Network(network or Counting(), FLOW, "flow"), {"label": LABELS}, {"label": EMPTY}, scale)


def velocities(x, t):
    each = torch.full((3,), t, dtype=x.dtype)
    return Counting()(x, each, LABELS), Counting()(x, each, EMPTY)


@pytest.mark.parametrize("scale", [4.0, 0.0, [2.0, -1.0, 7.5]])
def test_the_formula_is_that_of_the_paper(scale):
    x, t = state(), 0.6
    yes, no = velocities(x, t)
    s = dot(yes, no) / dot(no, no)
    v = s * no + along(torch.tensor(scale, dtype=x.dtype)) * (yes - s * no)
    torch.testing.assert_close(zero_star(scale)(x, t), x - t * v, rtol=0, atol=1e-12)
    assert float((s - 1).abs().min()) > 0.05


@pytest.mark.parametrize(
    ("negative", "expected"),
    [
        ([0.0, 3.0], [4.0, 0.0]),  # orthogonal branches: nothing of the negative one is left, w v_c
        ([1.0, 0.0], [1.0, 0.0]),  # parallel ones: s v_n is v_c itself, and guidance does nothing
        ([-5.0, 0.0], [1.0, 0.0]),
        ([0.5, 0.5], [4.0 - 3 * 0.5, -3 * 0.5]),
        ([0.0, 0.0], [4.0, 0.0]),  # no direction: s v_n is 0
    ],
)
def test_what_is_left_of_the_negative_branch_is_its_share_of_the_conditional_one(negative, expected):
    def network(x, t, v):
        return v

    branches = ({"v": torch.tensor([v], dtype=torch.float64)} for v in ([1.0, 0.0], negative))
    denoiser = fs.Guided(fs.Network(network, FLOW, "flow"), *branches, 4.0, method=fs.CFGZero(zero_init=0))
    v = -denoiser(torch.zeros(1, 2, dtype=torch.float64), 1.0)
    torch.testing.assert_close(v, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_first_rows_stand_still_and_cost_nothing(rows):
    plan, network = fs.compile("euler", schedule=FLOW, steps=6), Counting()
    got = fs.sample(plan, zero_star(3.0, network=network, zero_init=rows), noise=state())
    assert network.calls == [6] * (6 - rows)
    later = fs.compile("euler", schedule=FLOW, times=[row.t for row in plan.rows[rows:]] + [0.0])
    torch.testing.assert_close(got, fs.sample(later, zero_star(3.0), start=state()), rtol=0, atol=1e-12)


def test_scale_1_is_bitwise_the_conditional_model_at_its_cost_zero_init_included():
    plan, network = fs.compile("euler", schedule=FLOW, steps=6), Counting()
    got = fs.sample(plan, zero_star(1.0, network=network, zero_init=2), shape=SHAPE)
    conditional = fs.Network(Counting(), FLOW, "flow", condition={"label": LABELS})
    assert torch.equal(got, fs.sample(plan, conditional, shape=SHAPE))
    assert network.calls == [3] * 6


def test_an_image_is_the_same_alone_and_in_a_mixed_batch():
    plan, scales, network = fs.compile("euler", schedule=FLOW, steps=5), [5.0, 1.0, 3.0], Counting()
    batch = fs.sample(plan, zero_star(scales, network=network, zero_init=1), shape=SHAPE, seed=4)
    for i, w in enumerate(scales):
        alone = zero_star(w, labels=LABELS[i : i + 1], zero_init=1)
        expected = fs.sample(plan, alone, shape=(1, *SHAPE[1:]), seed=4 + i)
        torch.testing.assert_close(batch[i : i + 1], expected, rtol=0, atol=1e-6)
    assert network.calls == [1, 5, 5, 5, 5]  # in the first row the unguided image alone


def test_graph_and_slots_agree_with_the_loop_each_image_at_its_own_row():
    plan, denoiser = fs.compile("euler", schedule=FLOW, steps=4), zero_star(3.0, labels=EMPTY + 2, zero_init=2)
    alone = [fs.sample(plan, denoiser, shape=(1, *SHAPE[1:]), seed=seed) for seed in (5, 6)]
    graph = fs.Graph(plan, denoiser, (1, *SHAPE[1:]), mode="eager")
    assert torch.equal(graph(seed=5), alone[0])
    own, empty = {"label": torch.tensor(2.0)}, {"label": torch.tensor(0.0)}
    asked = {"condition": own, "negative": empty, "scale": 3.0, "method": fs.CFGZero(zero_init=2)}
    for what, request in ((denoiser, {}), (fs.Network(Counting(), FLOW, "flow"), asked)):
        slots = fs.Slots(what, SHAPE[1:], 2)
        slots.admit(plan, fs.Request(seed=5, **request))
        done = slots.step() + slots.step()
        slots.admit(plan, fs.Request(seed=6, **request))  # its first row meets the third of the other
        while slots.tickets:
            done += slots.step()
        for finished, expected in zip(done, alone, strict=True):
            torch.testing.assert_close(finished.sample, expected[0], rtol=0, atol=1e-5)
    assert [finished.nfe for finished in done] == [4, 4]  # two rows that stand still, and two of two branches


def test_samplers_that_would_remember_the_noise_as_data_are_refused():
    for name, rows in (("heun", 1), ("dpmpp-2m", 2), ("unipc-3", 2)):
        plan = fs.compile(name, schedule=FLOW, steps=6)
        with pytest.raises(fs.InvalidInput, match=f"{name} remembers the data estimates of its first rows"):
            fs.sample(plan, zero_star(3.0, zero_init=rows), shape=SHAPE)
        fs.sample(plan, zero_star(3.0), shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="zero_init=6 leaves none of the 6 rows"):
        fs.sample(fs.compile("euler", schedule=FLOW, steps=6), zero_star(3.0, zero_init=6), shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="counts or remembers the rows"):
        fs.sample_adaptive(zero_star(3.0, zero_init=1), shape=SHAPE)


@pytest.mark.parametrize("zero_init", [-1, 0.5, True, None])
def test_impossible_settings_are_refused(zero_init):
    with pytest.raises(fs.InvalidInput, match="a whole number from 0"):
        zero_star(3.0, zero_init=zero_init)


def test_a_network_that_predicts_no_velocity_is_refused():
    network = fs.Network(Counting(), SCHEDULES["linear"], "epsilon")
    with pytest.raises(fs.InvalidInput, match=r"predicts flow, got epsilon: use the guidance method 'cfg'"):
        fs.Guided(network, {"label": LABELS}, {"label": EMPTY}, 3.0, method="cfg-zero*")
    assert not torch.allclose(zero_star(3.0)(state(), 0.5), cfg(3.0)(state(), 0.5), atol=1e-2)
