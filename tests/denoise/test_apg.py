"""Adaptive projected guidance: its formula, its memory, and what it costs."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fewstep as fs
from proof.conditional import EMPTY, LABELS, SHAPE, Counting, along, dot, state
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["linear"]


def apg(scale, *, network=None, prediction="epsilon", labels=LABELS, **options):
    network = fs.Network(network or Counting(), SCHEDULE, prediction)
    more = {"interval": options.pop("interval")} if "interval" in options else {}
    return fs.Guided(network, {"label": labels}, {"label": EMPTY}, scale, method=fs.APG(**options), **more)


def data_of(x, t, label, prediction="epsilon"):
    return fs.Network(Counting(), SCHEDULE, prediction, condition={"label": label})(x, t)


def by_hand(x, t, w, *, eta=0.0, norm_limit=None, momentum=0.0, past=0.0, prediction="epsilon"):
    """(x0, d) as in the paper, with norms and projections written out image by image."""
    yes, no = (data_of(x, t, label, prediction) for label in (LABELS, EMPTY))
    d = yes - no + momentum * past
    moved = d
    if norm_limit is not None:
        moved = torch.stack([v * min(1.0, norm_limit / float(v.norm())) for v in moved])
    unit = yes / dot(yes, yes).sqrt()
    parallel = dot(moved, unit) * unit
    return yes + (w - 1) * (moved - parallel + eta * parallel), d


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow", "edm"])
@pytest.mark.parametrize("options", [{}, {"eta": 0.4}, {"norm_limit": 0.7}, {"eta": -0.5, "norm_limit": 2.0}], ids=str)
def test_the_formula_is_that_of_the_paper(options, prediction):
    x = state()
    got = apg([4.0, 0.0, -2.0], prediction=prediction, **options)(x, 300.0)
    w = along(torch.tensor([4.0, 0.0, -2.0], dtype=x.dtype))
    torch.testing.assert_close(got, by_hand(x, 300.0, w, prediction=prediction, **options)[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun"])
def test_with_all_of_the_parallel_part_and_nothing_else_it_is_cfg(name):
    plan = fs.compile(name, schedule=SCHEDULE, steps=6)
    cfg = fs.Guided(fs.Network(Counting(), SCHEDULE), {"label": LABELS}, {"label": EMPTY}, 5.0)
    got, expected = (fs.sample(plan, d, noise=state()) for d in (apg(5.0, eta=1.0), cfg))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-7 if name == "heun" else 1e-11)
    assert not torch.allclose(fs.sample(plan, apg(5.0), noise=state()), expected, atol=1e-2)


def test_without_the_parallel_part_guidance_moves_at_right_angles_to_the_data():
    x = state()
    yes = data_of(x, 300.0, LABELS)
    assert float(dot(apg(6.0)(x, 300.0) - yes, yes).abs().max()) < 1e-12
    assert float(dot(by_hand(x, 300.0, 6.0, eta=1.0)[0] - yes, yes).abs().max()) > 0.1


def test_momentum_goes_from_row_to_row_of_a_run():
    plan, options = fs.compile("ddim", schedule=SCHEDULE, steps=4), {"eta": 0.3, "norm_limit": 1.5, "momentum": -0.6}
    x, past = plan.entry[1] * state(), 0.0
    points = [*((r.t, r.alpha, r.sigma) for r in plan.rows), (-1.0, *plan.exit)]
    for (t, alpha, sigma), (_, next_alpha, next_sigma) in itertools.pairwise(points):
        data, past = by_hand(x, t, 4.0, past=past, **options)
        x = next_alpha * data + next_sigma * (x - alpha * data) / sigma
    denoiser = apg(4.0, **options)
    for _ in range(2):  # the second run knows nothing of the first
        torch.testing.assert_close(fs.sample(plan, denoiser, noise=state()), x, rtol=0, atol=1e-10)
    without = fs.sample(plan, apg(4.0, eta=0.3, norm_limit=1.5), noise=state())
    assert not torch.allclose(without, x, atol=1e-2)


def test_a_call_outside_a_run_has_no_past_and_leaves_none():
    denoiser, x = apg(4.0, momentum=-0.6), state()
    first = denoiser(x, 300.0)
    denoiser(2 * x, 700.0)
    assert torch.equal(denoiser(x, 300.0), first)
    assert torch.equal(first, apg(4.0)(x, 300.0))


def test_a_row_without_guidance_leaves_the_memory_as_it_was():
    denoiser, x = apg(fs.GuidanceSchedule.rows([3.0, 1.0, 3.0]), momentum=0.5), state()
    plan = fs.compile("ddim", schedule=SCHEDULE, times=[900.0, 600.0, 300.0, -1.0])
    seen = []
    fs.sample(plan, denoiser, start=x, on_row=lambda p: seen.append(p.data().clone()))
    states = [x]
    for row, q, data in zip(plan.rows, [*plan.rows[1:]], seen, strict=False):
        states.append(q.alpha * data + q.sigma * (states[-1] - row.alpha * data) / row.sigma)
    _, d = by_hand(x, 900.0, 3.0)
    torch.testing.assert_close(seen[1], data_of(states[1], 600.0, LABELS), rtol=0, atol=1e-10)
    expected, _ = by_hand(states[2], 300.0, 3.0, momentum=0.5, past=d)
    torch.testing.assert_close(seen[2], expected, rtol=0, atol=1e-10)


def test_threads_that_share_the_denoiser_do_not_share_its_memory():
    plan, denoiser = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=12), apg(4.0, momentum=-0.7, norm_limit=1.0)
    alone = [fs.sample(plan, denoiser, shape=SHAPE, seed=10 * i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: fs.sample(plan, denoiser, shape=SHAPE, seed=10 * i), range(8)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_image_is_the_same_alone_and_in_a_mixed_batch():
    plan, scales = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=5), [5.0, 1.0, 3.0]
    options = {"momentum": -0.5, "norm_limit": 1.0, "interval": (0.05, 50.0)}
    network = Counting()
    batch = fs.sample(plan, apg(scales, network=network, **options), shape=SHAPE, seed=4)
    acts = [0.05 < row.sigma / row.alpha <= 50 for row in plan.rows]
    assert 0 < sum(acts) < len(plan.rows)
    assert network.calls == [5 if on else 3 for on in acts]
    for i, w in enumerate(scales):
        alone = apg(w, labels=LABELS[i : i + 1], **options)
        torch.testing.assert_close(
            batch[i : i + 1], fs.sample(plan, alone, shape=(1, *SHAPE[1:]), seed=4 + i), rtol=0, atol=1e-6
        )


def test_scale_1_is_bitwise_the_conditional_model_at_its_cost():
    plan, network = fs.compile("unipc-3", schedule=SCHEDULE, steps=5), Counting()
    got = fs.sample(plan, apg(1.0, network=network, momentum=-0.5, norm_limit=2.0), shape=SHAPE)
    conditional = fs.Network(Counting(), SCHEDULE, condition={"label": LABELS})
    assert torch.equal(got, fs.sample(plan, conditional, shape=SHAPE))
    assert network.calls == [3] * 5


def test_the_graph_keeps_the_memory_too_and_adaptive_steps_and_slots_around_the_denoiser_refuse_it():
    plan, denoiser = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=5), apg(4.0, momentum=-0.5)
    for d in (denoiser, fs.clip(denoiser)):
        graph = fs.Graph(plan, d, SHAPE, mode="eager")
        for seed in (3, 4):
            assert torch.equal(graph(seed=seed), fs.sample(plan, d, shape=SHAPE, seed=seed))
        with pytest.raises(fs.InvalidInput, match="remembers earlier rows of a run"):
            fs.Slots(d, SHAPE[1:], 3)
        with pytest.raises(fs.InvalidInput, match="counts or remembers the rows"):
            fs.sample_adaptive(d, shape=SHAPE)
    assert not torch.equal(
        fs.sample(plan, fs.clip(denoiser), shape=SHAPE), fs.sample(plan, fs.clip(apg(4.0)), shape=SHAPE)
    )


@pytest.mark.parametrize("options", [{"norm_limit": 1.0}, {"momentum": -0.5, "eta": 0.3}], ids=str)
def test_slots_run_it_and_keep_the_memory_of_each_image(options):
    plan = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=4)
    slots = fs.Slots(fs.Network(Counting(), SCHEDULE, "epsilon"), SHAPE[1:], 2)
    label, empty = ({"label": torch.tensor(v)} for v in (2.0, 0.0))
    asked = {"condition": label, "negative": empty, "scale": 4.0, "method": fs.APG(**options)}
    slots.admit(plan, fs.Request(seed=5, **asked))
    slots.step()
    slots.admit(plan, fs.Request(seed=6, **asked))
    done = [finished.sample for _ in range(4) for finished in slots.step()]
    for got, seed in zip(done, (5, 6), strict=True):
        alone = apg(4.0, labels=torch.tensor([2.0]), **options)
        expected = fs.sample(plan, alone, shape=(1, *SHAPE[1:]), seed=seed)[0]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_equal_branches_and_data_of_zeros_divide_by_nothing():
    def still(x, t, label):
        return 0 * x

    network = fs.Network(still, SCHEDULES["edm"], "sample")
    both = fs.Guided(network, {"label": LABELS}, {"label": EMPTY}, 4.0, method=fs.APG(norm_limit=1.0))
    assert torch.equal(both(state(), 1.0), torch.zeros(SHAPE, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": math.nan}, "option eta is a finite number, got nan"),
        ({"norm_limit": 0.0}, "norm_limit must be a finite number above zero"),
        ({"norm_limit": math.inf}, "norm_limit must be a finite number above zero"),
        ({"momentum": 1.0}, r"momentum of projected guidance must lie in \(-1, 1\)"),
        ({"momentum": math.nan}, "option momentum is a finite number, got nan"),
        ({"interval": (2.0, 1.0)}, "0 <= low < high"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        apg(3.0, **options)
