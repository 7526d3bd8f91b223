"""What drivers owe to a denoiser: its own estimate, its word on the plan, its memory of one run."""

import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Wrapper, picked
from proof.problems import SCHEDULES

SCHEDULE = SCHEDULES["linear"]
SHAPE = (2, 3)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


class Apart(fs.Denoiser):
    """Data and raw estimates that no network output gives."""

    schedule = SCHEDULE
    affine = False

    def estimate(self, x, level):
        return torch.tanh(x), x


class Counting(fs.Denoiser):
    """Adds how many rows this run has had; refuses plans of more than four."""

    schedule = SCHEDULE
    needs_run = True

    def __init__(self, rows=None):
        self.rows = rows

    def begin(self):
        return Counting([])

    def check(self, plan):
        if len(plan.rows) > 4:
            raise fs.InvalidInput(f"{len(plan.rows)} rows are too many")

    def output(self, x, level):
        if self.rows is None:
            return torch.zeros_like(x)
        self.rows.append(list(level.rows))
        return torch.full_like(x, float(len(self.rows)))


def by_hand(plan, x):
    """DDIM with data tanh(x) and noise from x itself."""
    points = [*((r.alpha, r.sigma) for r in plan.rows), plan.exit]
    for i, (a, s) in enumerate(points[:-1]):
        b, r = points[i + 1]
        x = b * torch.tanh(x) + r * (x - a * x) / s
    return x


@pytest.mark.parametrize("wrap", [lambda d: d, Wrapper, lambda d: fs.clip(d, -9.0, 9.0)])
def test_an_estimate_of_its_own_reaches_every_driver_even_one_that_is_the_input(wrap):
    plan, denoiser = fs.compile("ddim", schedule=SCHEDULE, steps=5), wrap(Apart())
    expected = by_hand(plan, X.double())
    torch.testing.assert_close(fs.sample(plan, denoiser, start=X.double()), expected, rtol=0, atol=1e-12)
    got = fs.Graph(plan, denoiser, SHAPE, mode="eager")(start=X)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)
    slots = fs.Slots(denoiser, SHAPE[1:], 2)
    for x in X:
        slots.admit(plan, fs.Request(start=x))
    done = [f.sample for _ in range(5) for f in slots.step()]
    torch.testing.assert_close(torch.stack(done).double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(X, torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))  # a start is not written to


def test_samplers_that_take_one_estimate_take_the_data():
    plan = fs.compile("dpmpp-2m", schedule=SCHEDULE, steps=5)
    tanh = fs.Network(lambda x, t: torch.tanh(x), SCHEDULE, "sample")
    torch.testing.assert_close(fs.sample(plan, Apart(), start=X), fs.sample(plan, tanh, start=X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda d: d, fs.clip, lambda d: fs.dynamic_threshold(fs.clip(d))])
def test_a_run_has_a_memory_of_its_own_and_the_denoiser_none(wrap):
    plan, seen = fs.compile("ddim", schedule=SCHEDULE, steps=4), []
    denoiser = wrap(Counting())
    for _ in range(2):
        fs.sample(plan, denoiser, start=X, on_row=lambda p: seen.append(float(p.data().max())))
    assert seen == ([1.0, 2.0, 3.0, 4.0] if isinstance(denoiser, Counting) else [1.0] * 4) * 2
    assert denoiser(X, 500.0).max() == 0


def test_rows_are_numbered_and_a_plan_may_be_refused():
    runs = []

    class Kept(Counting):
        def begin(self):
            runs.append(Counting([]))
            return runs[-1]

    fs.sample(fs.compile("heun", schedule=SCHEDULE, steps=2), Kept(), start=X)
    assert runs[0].rows == [[0], [1], [2]]
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=5)
    for refused in (Counting(), fs.clip(Counting())):
        with pytest.raises(fs.InvalidInput, match="5 rows are too many"):
            fs.sample(plan, refused, start=X)


def test_dynamic_thresholds_act_on_what_guidance_gives():
    def network(x, t, label):
        return torch.sin(3 * x) * label.reshape(-1, 1)

    parts = fs.Network(network, SCHEDULE), {"label": torch.ones(1)}, {"label": torch.zeros(1)}
    for guided in (
        fs.Guided(*parts, 5.0),
        fs.Guided(*parts, 5.0, method=fs.APG(norm_limit=1.0)),
        fs.Guided(*parts, 0.9, method="cfg++"),
    ):
        data = guided(3 * X, 700.0)
        s = torch.quantile(data.abs(), 0.8, dim=1, keepdim=True).clamp(1, 50)
        got = fs.dynamic_threshold(guided, 0.8, 50.0)(3 * X, 700.0)
        torch.testing.assert_close(got, data.clamp(-s, s) / s, rtol=1e-6, atol=1e-6)
        assert float(s.max()) > 1


def test_whole_batches_one_after_the_other_are_picked_without_an_index(monkeypatch):
    x = torch.arange(6.0).reshape(3, 2)
    assert picked(x, [2, 0, 0]).tolist() == [[4.0, 5.0], [0.0, 1.0], [0.0, 1.0]]
    assert picked(0.5, [1, 1]) == 0.5
    monkeypatch.setattr(torch, "tensor", None)  # a CUDA graph could not record its way to the device
    assert picked(x, [0, 1, 2]) is x
    assert torch.equal(picked(x, range(3)), x)
    assert torch.equal(picked(x, [0, 1, 2, 0, 1, 2]), torch.cat([x, x]))
