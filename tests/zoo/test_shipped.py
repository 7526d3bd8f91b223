"""The shipped digits model: its file, its facts, and the digits that it draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from fewstep import zoo
from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.recipes.held_out import measured_loss
from fewstep.zoo import digits

GUIDANCE = 1.5


def ddim(loaded: zoo.Loaded, labels: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
    """Plain DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12), independent of the package's samplers."""
    schedule: Schedule = loaded.spec.schedule
    times = [*np.linspace(schedule.t_max, schedule.t_min, steps), schedule.t_clean]
    x = torch.randn(len(labels), *loaded.spec.sample_shape, generator=torch.Generator().manual_seed(0))
    for t, then in itertools.pairwise(times):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        told = torch.full((len(labels),), float(t))
        with torch.no_grad():
            null = loaded.network(x, told)
            v = null + guidance * (loaded.network(x, told, labels) - null)
        x0, eps = alpha * x - sigma * v, sigma * x + alpha * v
        x = float(schedule.alpha(then)) * x0 + float(schedule.sigma(then)) * eps
    return x


@pytest.fixture(scope="module")
def loaded() -> zoo.Loaded:
    return zoo.load_shipped("digits")


@pytest.fixture(scope="module")
def drawn(loaded: zoo.Loaded) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(10).repeat(20)
    return ddim(loaded, labels, steps=30, guidance=GUIDANCE), labels


def test_the_file_is_below_a_megabyte_and_says_how_it_was_made(loaded: zoo.Loaded) -> None:
    assert zoo.shipped_path("digits").stat().st_size < 1_000_000
    spec = loaded.spec
    assert (spec.prediction, spec.schedule.kind, spec.sample_shape, spec.classes) == (
        "v_prediction",
        "linear",
        (1, 8, 8),
        10,
    )
    assert spec.value_range == (-1.0, 1.0)
    config = spec.training["config"]
    assert (config["steps"], config["batch"], config["learning_rate"], config["seed"]) == (3000, 128, 2e-3, 0)
    assert spec.training["command"] == "fewstep train digits --seed 0"
    assert spec.training["data"] == {"name": "digits", "digest": digits.load().digest}


def test_the_losses_in_the_file_are_those_of_its_weights(loaded: zoo.Loaded) -> None:
    _, held = digits.split(digits.load())
    network = Network(loaded.network, loaded.spec.schedule, loaded.spec.prediction)
    loss = measured_loss(network, held, seed=1)
    assert loss == pytest.approx(loaded.spec.training["held_out_loss"], rel=0.02)
    assert loss < 0.2


def test_a_classifier_of_real_digits_reads_the_drawn_ones(drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = drawn
    kept, held = digits.split(digits.load())
    reader = SVC(gamma=0.01, C=10).fit(kept.images.flatten(1).numpy(), kept.labels.numpy())
    assert reader.score(held.images.flatten(1).numpy(), held.labels.numpy()) > 0.97
    assert reader.score(images.clamp(-1, 1).flatten(1).numpy(), labels.numpy()) > 0.97


def test_drawn_digits_vary_as_real_ones_do_and_are_no_copies(drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = drawn
    kept, held = digits.split(digits.load())

    def spread(images: torch.Tensor, labels: torch.Tensor) -> float:
        return float(np.mean([torch.pdist(images[labels == digit].flatten(1)).mean() for digit in range(10)]))

    def nearest(images: torch.Tensor) -> torch.Tensor:
        return torch.cdist(images.flatten(1), kept.images.flatten(1)).min(1).values

    assert 0.8 < spread(images, labels) / spread(kept.images, kept.labels) < 1.05
    assert nearest(images).min() > 0.5
    assert nearest(images).median() > 0.85 * nearest(held.images).median()


def test_an_unknown_shipped_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'digits'"):
        zoo.load_shipped("digit")
