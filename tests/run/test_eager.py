"""The loop: what it computes, what it refuses, what it says when a network fails."""

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.run.noise import START, key_of, unit_noise
from proof.problems import SCHEDULES, played

EDM = SCHEDULES["edm"]
SHAPE = (3, 2, 4)
STABLE = [name for name in fs.SAMPLERS if name not in ("belm", "pndm", "ipndm-4", "lms-4", "deis-4")]


def soft(x, t):
    """Some data estimate, nonlinear in x."""
    return torch.tanh(x) / 2


def plan_of(name="dpmpp-2m", steps=4, kind="edm", grid="karras", **options):
    return fs.compile(name, schedule=SCHEDULES[kind], steps=steps, grid=grid, **options)


@pytest.mark.parametrize("kind", ["scaled_linear", "zero_snr", "edm", "flow"])
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_run_is_the_table_row_by_row(name, kind):
    plan = plan_of(name, 6, kind, "linspace")
    seeds = [4, 9, -2]
    noise = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    got = fs.sample(plan, soft, noise=noise, seed=seeds)

    like = torch.empty(SHAPE, dtype=torch.float64)
    (expected,) = played(
        plan,
        plan.entry[1] * noise.numpy(),
        lambda x, row: np.tanh(x) / 2,
        lambda interval: unit_noise(seeds, key_of(interval), like).numpy(),
    )[:1]
    size = np.abs(expected).max()
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-10 * max(1.0, float(size)))


@pytest.mark.parametrize("name", STABLE)
def test_float32_is_float64_rounded(name):
    plan = plan_of(name, 10, "scaled_linear")
    noise = unit_noise([1], START, torch.empty(1, 16, 16))
    wide = fs.sample(plan, soft, noise=noise.double(), seed=1)
    narrow = fs.sample(plan, soft, noise=noise, seed=1)
    assert (wide.dtype, narrow.dtype) == (torch.float64, torch.float32)
    assert float((wide - narrow).abs().max()) < 2e-4


def test_a_shape_is_noise_of_the_seed_and_noise_is_scaled_to_the_entry():
    plan = plan_of()
    z = unit_noise([7, 8, 9], START, torch.empty(SHAPE))
    first = fs.sample(plan, soft, shape=SHAPE, seed=7)
    assert first.dtype == torch.float32
    assert torch.equal(first, fs.sample(plan, soft, noise=z, seed=7))
    assert torch.equal(first, fs.sample(plan, soft, start=z * 80.0, seed=7))
    assert torch.equal(first, fs.sample(plan, soft, shape=list(SHAPE), seed=[7, 8, 9]))


def test_a_start_in_the_middle_of_the_grid_is_taken_as_it_is():
    data, z = torch.full(SHAPE, 0.3), unit_noise([1, 2, 3], START, torch.empty(SHAPE))
    plan = fs.compile("ddim", schedule=SCHEDULES["linear"], times=[500.0, 250.0, -1.0])
    alpha, sigma = plan.entry
    got = fs.sample(plan, lambda x, t: data, start=alpha * data + sigma * z)
    torch.testing.assert_close(got, data)


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_evaluations_are_counted_and_are_what_the_plan_says(name):
    for steps in (1, 2, 5):
        plan, calls = plan_of(name, steps), []
        fs.sample(plan, lambda x, t: calls.append((tuple(x.shape), t)) or x / 2, shape=SHAPE, check=False)  # noqa: B023
        assert len(calls) == len(plan.rows)
        assert all(shape == SHAPE and t.shape == (3,) for shape, t in calls)
        told = [t.tolist() for _, t in calls]
        assert told == [[float(np.float32(row.t))] * 3 for row in plan.rows]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype):
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = fs.sample(plan_of(), soft, noise=z)
    assert got.dtype == torch.float32
    assert torch.equal(got, fs.sample(plan_of(), soft, noise=z.float()))


def test_the_default_dtype_of_torch_changes_nothing():
    expected = fs.sample(plan_of(), soft, shape=SHAPE)
    torch.set_default_dtype(torch.float64)
    try:
        got = fs.sample(plan_of(), soft, shape=SHAPE)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_no_gradient_is_recorded():
    weight = torch.ones(1, requires_grad=True)
    got = fs.sample(plan_of(), lambda x, t: x * weight / 2, start=torch.ones(SHAPE, requires_grad=True))
    assert not got.requires_grad


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_neither_start_nor_outputs_are_written_to(name):
    plan = plan_of(name, 5)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    kept, outputs = start.clone(), []

    def network(x, t):
        outputs.append((out := torch.tanh(x), out.clone()))
        return out

    fs.sample(plan, network, start=start)
    assert torch.equal(start, kept)
    assert all(torch.equal(out, was) for out, was in outputs)


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("prediction", ["sample", "flow", "epsilon"])
@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_network_may_return_its_input(name, prediction, project):
    plan = plan_of(name, 5, "scaled_linear")

    def run(network):
        denoiser = fs.Network(network, SCHEDULES["scaled_linear"], prediction)
        return fs.sample(plan, fs.clip(denoiser) if project else denoiser, shape=SHAPE)

    assert torch.equal(run(lambda x, t: x), run(lambda x, t: x.clone()))
    assert torch.equal(run(lambda x, t: x.view(-1).view(x.shape)), run(lambda x, t: x.clone()))


@pytest.mark.parametrize("name", fs.SAMPLERS)
def test_a_result_is_no_memory_of_the_network(name):
    plan, memory = plan_of(name, 1, "scaled_linear"), torch.empty(SHAPE)
    denoiser = fs.Network(lambda x, t: memory.copy_(soft(x, t)), SCHEDULES["scaled_linear"], "sample")
    got = fs.sample(plan, denoiser, shape=SHAPE)
    kept = got.clone()
    memory.zero_()
    assert torch.equal(got, kept)


@pytest.mark.parametrize(("name", "prediction"), [("dpmpp-2m", "sample"), ("ipndm-2", "epsilon"), ("lms-2", "epsilon")])
def test_a_network_that_writes_to_a_remembered_output_is_refused(name, prediction):
    plan, memory = plan_of(name, 5, "scaled_linear"), torch.empty(SHAPE)
    network = fs.Network(lambda x, t: memory.copy_(soft(x, t)), SCHEDULES["scaled_linear"], prediction)
    with pytest.raises(fs.InvalidInput, match=r"wrote at step 2 to the memory of an earlier output.*output\.clone\(\)"):
        fs.sample(plan, network, shape=SHAPE)
    euler = plan_of("euler", 5, "scaled_linear")  # remembers nothing
    fs.sample(euler, network, shape=SHAPE)
    constant = torch.full(SHAPE, 0.25)  # the same tensor again is no harm where nobody writes to it
    assert torch.equal(fs.sample(plan_of("dpmpp-2m", 5, "scaled_linear"), lambda x, t: constant, shape=SHAPE), constant)


def test_a_network_that_writes_to_its_times_is_told_and_disturbs_no_later_run():
    plan = plan_of("ddim", 5, "scaled_linear")
    expected = fs.sample(plan, soft, shape=(1, 4))
    with pytest.raises(fs.InvalidInput, match=r"wrote to the times.*use t\.clone\(\)"):
        fs.sample(plan, lambda x, t: soft(x, t.mul_(2)), shape=(1, 4))
    assert torch.equal(fs.sample(plan, soft, shape=(1, 4)), expected)


def test_times_made_in_inference_mode_serve_a_run_with_gradients():
    plan = plan_of("ddim", 3, "scaled_linear")
    with torch.inference_mode():
        fs.sample(plan, soft, shape=(1, 4))
    scale = torch.ones((), requires_grad=True)
    outputs = []

    def network(x, t):
        with torch.enable_grad():
            outputs.append((scale * t).sum())
        return soft(x, t)

    fs.sample(plan, network, shape=(1, 4))
    sum(outputs).backward()
    assert scale.grad == pytest.approx(sum(row.t for row in plan.rows))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of shape, noise and start, got none"),
        ({"shape": SHAPE, "noise": torch.ones(SHAPE)}, "got shape and noise"),
        ({"shape": (3,)}, "shape must be"),
        ({"shape": 3}, "shape must be"),
        ({"shape": (0, 4)}, "shape must be"),
        ({"shape": (2, -1)}, "shape must be"),
        ({"shape": (2, 2.5)}, "shape must be"),
        ({"noise": torch.ones(SHAPE, dtype=torch.int64)}, "floating point"),
        ({"noise": torch.ones(3)}, "floating point tensors"),
        ({"noise": np.ones((2, 3))}, "tensors"),
        ({"start": [1.0, 2.0]}, "starts from 1 states here, got 2"),
        ({"start": (torch.ones(SHAPE), torch.ones(SHAPE))}, "starts from 1 states here, got 2"),
        ({"start": "x"}, "tensors"),
        ({"shape": SHAPE, "seed": [1, 2]}, "3 images, got 2"),
        ({"shape": SHAPE, "seed": 1.5}, "seed"),
    ],
    ids=str,
)
def test_a_wrong_start_is_refused(given, message):
    with pytest.raises(fs.InvalidInput, match=message):
        fs.sample(plan_of(), soft, **given)


@pytest.mark.parametrize("denoiser", [None, 3, "soft"])
def test_what_cannot_be_called_is_no_denoiser(denoiser):
    with pytest.raises(fs.InvalidInput, match="a denoiser is a callable"):
        fs.sample(plan_of(), denoiser, shape=SHAPE)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2, 4), (3, 2, 1), (3, 4, 2)], ids=str)
def test_an_estimate_of_another_shape_is_refused(shape):
    with pytest.raises(fs.InvalidInput, match="shape"):
        fs.sample(plan_of(), lambda x, t: torch.zeros(shape), shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="shape"):
        fs.sample(plan_of(), fs.Network(lambda x, t: torch.zeros(shape), EDM), shape=SHAPE)


def test_an_estimate_of_another_precision_is_cast_to_that_of_the_state():
    for name in ("ddim", "dpmpp-2m", "ipndm-2", "consistency"):
        expected = fs.sample(plan_of(name), lambda x, t: soft(x, t).bfloat16().float(), shape=SHAPE)
        got = fs.sample(plan_of(name), lambda x, t: soft(x, t).bfloat16(), shape=SHAPE)
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)
        assert fs.sample(plan_of(name), lambda x, t: soft(x, t).double(), shape=SHAPE).dtype == torch.float32


def fails_at(row, image, value=float("nan")):
    """A network that answers `value` for one image from one row on."""
    calls = []

    def network(x, t):
        calls.append(t)
        out = soft(x, t)
        if float(t[0]) <= np.float32(row.t):
            out[image] = value
        return out

    return network


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun", "unipc-3", "sde-dpmpp-2m"])
def test_nan_is_reported_with_row_and_label_and_the_other_images_are_good(name, value):
    plan = plan_of(name, 5)
    row = plan.rows[3]
    good = fs.sample(plan, soft, shape=SHAPE, seed=2)
    with pytest.raises(fs.NonFinite, match=row.label) as caught:
        fs.sample(plan, fails_at(row, 1, value), shape=SHAPE, seed=2)
    error = caught.value
    assert (error.row, error.label, error.images) == (3, row.label, [1])
    assert torch.equal(error.result[[0, 2]], good[[0, 2]])
    assert not torch.isfinite(error.result[1]).all()
    assert f"row 3 of {len(plan.rows)} ({row.label}, time {row.t:g})" in str(error)


def test_nan_in_the_start_is_not_blamed_on_the_network():
    start = torch.ones(SHAPE)
    start[2, 0, 0] = torch.nan
    with pytest.raises(fs.NonFinite, match="starting state") as caught:
        fs.sample(plan_of(), soft, start=start)
    assert (caught.value.row, caught.value.label, caught.value.images) == (None, "start", [2])


def test_nan_that_does_not_come_again_is_said_so():
    calls = []

    def network(x, t):
        calls.append(t)
        return soft(x, t) * (float("nan") if len(calls) == 2 else 1.0)

    with pytest.raises(fs.NonFinite, match="a second run did not") as caught:
        fs.sample(plan_of(), network, shape=SHAPE)
    assert caught.value.row is None
    assert caught.value.images == [0, 1, 2]


def test_without_the_check_nan_is_returned():
    plan = plan_of()
    got = fs.sample(plan, fails_at(plan.rows[0], 0), shape=SHAPE, check=False)
    assert torch.isnan(got[0]).all()
    assert torch.isfinite(got[1:]).all()


def test_previews_are_the_estimates_of_the_data():
    plan, seen, inputs = plan_of("heun", 3), [], []

    def network(x, t):
        inputs.append(x.clone())
        return soft(x, t)

    def on_row(progress):
        seen.append((progress.index, progress.rows, progress.row, progress.data()))

    result = fs.sample(plan, network, shape=SHAPE, on_row=on_row)
    assert [s[0] for s in seen] == list(range(len(plan.rows)))
    assert {s[1] for s in seen} == {len(plan.rows)}
    assert [s[2] for s in seen] == list(plan.rows)
    assert all(torch.equal(data, soft(x, None)) for (*_, data), x in zip(seen, inputs, strict=True))
    assert torch.equal(result, fs.sample(plan, soft, shape=SHAPE))


@pytest.mark.parametrize("projected", [False, True])
def test_previews_of_a_network_are_converted_and_clipped(projected):
    schedule = SCHEDULES["linear"]
    plan, seen = fs.compile("dpmpp-2m", schedule=schedule, steps=4), []
    network = fs.Network(lambda x, t: torch.sin(3 * x), schedule, "v_prediction")
    denoiser = fs.clip(network, -0.4, 0.4) if projected else network
    fs.sample(plan, denoiser, shape=SHAPE, on_row=lambda p: seen.append(p.data()))
    x = unit_noise([0, 1, 2], START, torch.empty(SHAPE)) * plan.entry[1]
    row = plan.rows[0]
    x0 = row.alpha * x - row.sigma * torch.sin(3 * x)
    torch.testing.assert_close(seen[0], x0.clamp(-0.4, 0.4) if projected else x0)
    assert (float(torch.stack(seen).abs().max()) < 0.41) == projected


def test_a_cancelled_run_stops_and_shows_what_it_had():
    plan, calls = plan_of("ddim", 10), []

    def network(x, t):
        calls.append(t)
        return soft(x, t)

    with pytest.raises(fs.Cancelled, match="cancelled after 4 of 10 network evaluations") as caught:
        fs.sample(plan, network, shape=SHAPE, on_row=lambda p: p.index == 3)
    assert len(calls) == 4
    assert caught.value.row == 3
    assert caught.value.preview.shape == SHAPE


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp-2m", "dpmpp-3s", "unipc-3", "sde-dpmpp-2m", "rk4"])
def test_a_network_on_another_schedule_gives_the_same_pictures(name):
    own = SCHEDULES["linear"]
    sigmas = [50.0, 20.0, 8.0, 3.0, 1.0, 0.3, 0.1]
    network = fs.Network(lambda x, t: torch.sin(x + t[:, None, None] / 500), own, "epsilon")
    z = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"path": "sigma"} if name in ("heun", "rk4") else {}
    noise = {"eta": 0.0} if name.startswith("sde") else {}
    here = fs.compile(name, schedule=own, sigmas=sigmas, **options, **noise)
    there = fs.compile(name, schedule=EDM, sigmas=sigmas, **options, **noise)
    x = fs.sample(here, network, noise=z)
    y = fs.sample(there, fs.OnSchedule(network, EDM), start=z * 50.0)
    # Both ended at sigma / alpha = 0.1, in their own coordinates: x = alpha y.
    torch.testing.assert_close(x, here.exit[0] * y, rtol=0, atol=1e-6)


def test_a_pair_goes_there_and_back():
    schedule = SCHEDULES["linear"]
    down = fs.compile("belm", schedule=schedule, times=[600.0, 500.0, 400.0, 300.0], start="pair")
    up = fs.compile("belm", schedule=schedule, times=[600.0, 500.0, 400.0, 300.0], reverse=True)
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pair = fs.sample_pair(up, soft, start=x)
    assert len(pair) == up.outputs == 2
    with pytest.raises(fs.InvalidInput, match="starts from a pair"):
        fs.sample(down, soft, shape=SHAPE)
    with pytest.raises(fs.InvalidInput, match="must have one shape"):
        fs.sample_pair(down, soft, start=(x, x[:1]))
    assert torch.equal(fs.sample(down, soft, start=pair), fs.sample_pair(down, soft, start=pair)[0])
    back = fs.sample_pair(down, soft, start=pair)[0]
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
