"""The doctor names the reading under which a network was made, with and without data."""

import pytest
import torch
from sklearn.datasets import load_digits

import fewstep as fs
from fewstep.doctor import OWN, Claim, readings

DIGITS = torch.tensor(load_digits().data[:300], dtype=torch.float32) / 8 - 1
WIDTH = 0.1


def posterior_mean(x, alpha, sigma):
    """E[x0 | x] for data that are the digits with a little noise, exactly."""
    spread = alpha**2 * WIDTH**2 + sigma**2
    distance = ((x[:, None] - alpha[:, None] * DIGITS) ** 2).sum(-1)
    near = torch.softmax(-distance / (2 * spread), dim=1) @ DIGITS
    return (alpha * WIDTH**2 * x + sigma**2 * near) / spread


def network_of(prediction, schedule, scale):
    """A perfect network that answers as `prediction` asks, told times as `schedule` and `scale` have them."""

    def network(x, time):
        if prediction == "edm":
            ratio = torch.exp(4 * time)[:, None]
            norm = ratio**2 + 0.25
            x = x * norm.sqrt()
            x0 = posterior_mean(x, torch.ones_like(ratio), ratio)
            return (x0 - 0.25 / norm * x) * norm.sqrt() / (0.5 * ratio)
        times = (time.double() / scale).numpy().clip(schedule.t_clean, schedule.t_max)
        alpha = torch.tensor(schedule.alpha(times)).float()[:, None]
        sigma = torch.tensor(schedule.sigma(times)).float()[:, None].clamp_min(1e-3)
        x0 = posterior_mean(x, alpha, sigma)
        eps = (x - alpha * x0) / sigma
        answers = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0, "flow": eps - x0}
        return answers[prediction]

    return network


# A network that predicts data barely depends on the schedule that it is told: those readings are not told apart.
DISTINCT = [r for r in readings() if r[0] != "sample"]


@pytest.mark.parametrize("reading", DISTINCT, ids=lambda r: f"{r[0]}-{r[1]}-{r[3]:g}")
@pytest.mark.parametrize("with_data", [True, False])
def test_the_right_reading_comes_first(reading, with_data):
    prediction, name, schedule, scale = reading
    noise = torch.randn(48, 64, generator=torch.Generator().manual_seed(1))
    data = DIGITS[:48] + WIDTH * noise if with_data else None
    found = fs.diagnose(network_of(prediction, schedule, scale), (48, 64), data=data, steps=15)
    assert found.best is not None
    assert (found.best.prediction, found.best.schedule, found.best.time_scale) == (prediction, name, scale)
    assert found.best.denoising < 0.8
    assert f"prediction={prediction!r}" in found.verdict


def test_a_network_of_noise_is_consistent_with_nothing():
    generator = torch.Generator().manual_seed(0)
    found = fs.diagnose(lambda x, t: torch.randn(x.shape, generator=generator), (32, 64), data=DIGITS[:32])
    assert found.best is None
    assert "No reading denoises better" in found.verdict


def test_a_network_of_nan_is_consistent_with_nothing():
    assert fs.diagnose(lambda x, t: x * float("nan"), (8, 64), steps=3).best is None


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(fs.InvalidInput, match=r"data has shape \(32, 64\)"):
        fs.diagnose(lambda x, t: x, (16, 64), data=DIGITS[:32])
    with pytest.raises(fs.InvalidInput, match="at least 2 images"):
        fs.diagnose(lambda x, t: x, (1, 64))


def diagnosed(prediction, schedule, claim):
    return fs.diagnose(network_of(prediction, schedule, 1.0), (48, 64), data=DIGITS[:48], claim=claim)


def test_a_claim_of_another_prediction_is_contradicted_on_its_own_schedule():
    linear = fs.schedules.linear()
    found = diagnosed("v_prediction", linear, Claim("epsilon", linear))
    assert (found.claimed.prediction, found.claimed.schedule) == ("epsilon", "linear")
    assert (found.fitting.prediction, found.fitting.schedule) == ("v_prediction", "linear")
    assert len(found.table) == len(readings())


def test_a_claim_that_is_right_is_not_contradicted():
    linear = fs.schedules.linear()
    found = diagnosed("v_prediction", linear, Claim("v_prediction", linear))
    assert (found.claimed, found.fitting) == (found.best, None)
    near = diagnosed("epsilon", linear, Claim("epsilon", fs.schedules.linear(beta_end=0.021)))
    assert (near.claimed.schedule, near.fitting) == (OWN, None)


def test_a_schedule_that_is_not_a_usual_one_is_tested_under_every_prediction():
    shifted = fs.schedules.linear(beta_start=0.01, beta_end=0.012)
    found = diagnosed("v_prediction", shifted, Claim("epsilon", shifted))
    assert sorted(one.prediction for one in found.table if one.schedule == OWN) == ["epsilon", "sample", "v_prediction"]
    assert (found.fitting.prediction, found.fitting.schedule) == ("v_prediction", OWN)
    assert "fewstep.Network(network, its_own_schedule, 'v_prediction')" in found.verdict


def test_a_wrong_schedule_is_contradicted_by_the_one_that_fits():
    found = diagnosed("epsilon", fs.schedules.linear(), Claim("epsilon", fs.schedules.linear(beta_end=0.1)))
    assert (found.fitting.prediction, found.fitting.schedule) == ("epsilon", "linear")


def test_epsilon_without_any_signal_at_the_end_fits_nothing():
    ended = fs.schedules.linear(zero_snr=True)
    found = diagnosed("v_prediction", ended, Claim("epsilon", ended))
    assert found.claimed.score == float("inf")
    assert found.fitting.prediction == "v_prediction"


def test_a_hosted_network_runs_in_its_dtype_and_answers_in_that_of_the_states():
    seen = []

    def network(x, time, label):
        seen.append((x.dtype, time.dtype, label))
        return (x.double() + 1,)

    answer = fs.doctor.hosted(network, "cpu", torch.bfloat16)(torch.zeros(2, 3), torch.full((2,), 750.0), label=4)
    assert seen == [(torch.bfloat16, torch.float32, 4)]
    assert answer.dtype == torch.float32
    assert answer.tolist() == [[1.0] * 3] * 2
