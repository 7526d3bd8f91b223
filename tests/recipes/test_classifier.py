"""The classifier's recipe: seeded, and resumed to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.recipes import CLASSIFIER, train_classifier
from fewstep.recipes.classifier import Classifying
from fewstep.training import Draws, Progress
from fewstep.zoo import classifier
from fewstep.zoo.dataset import ImageSet

QUICK = replace(CLASSIFIER, steps=40, batch=64, seed=3, state_every=15, log_every=20)


def test_a_training_is_the_same_twice_and_another_seed_is_not(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    path = tmp_path / "c.safetensors"
    first, again = (train_classifier(QUICK, path) for _ in range(2))
    other = train_classifier(replace(QUICK, seed=4), tmp_path / "d.safetensors")
    assert first.digest == again.digest == classifier.load(path).digest
    assert first.digest != other.digest
    assert first.training["accuracy"] > 0.5
    assert first.training["settings"]["rate"] == 3e-3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(p.requires_grad for p in first.network.parameters())


def test_what_was_interrupted_writes_no_file_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.losses:
            raise KeyboardInterrupt

    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_classifier(QUICK, path, watch=stop)
    assert not path.exists()
    seen: list[int] = []
    found = train_classifier(QUICK, path, watch=lambda now: seen.append(now.step))
    assert seen[0] == 15
    assert found.digest == train_classifier(QUICK, tmp_path / "whole.safetensors").digest
    assert [one.name for one in (tmp_path / "c").iterdir()] == ["log.jsonl"]


def test_images_move_by_a_pixel_at_most_and_get_noise_of_their_own_strength() -> None:
    """Without noise, a white pixel is seen in each of the nine places about as often as in the others."""
    images = torch.full((1800, 1, 8, 8), -1.0)
    images[:, 0, 3, 4] = 1.0
    numbers = range(1800)
    draws = Draws(0, 0, numbers, numbers, 1800)
    moved = Classifying(noise=0.0).varied(images, draws)
    places = (moved == 1).float().sum(0)[0]
    assert float(places.sum()) == 1800
    assert bool((places[2:5, 3:6] > 140).all())
    noisy = Classifying(noise=0.2).varied(images, draws) - moved
    strength = noisy.flatten(1).std(1)
    assert float(strength.max()) < 0.28
    assert float(strength.mean()) == pytest.approx(0.1, abs=0.01)


def test_images_that_are_no_digits_and_other_paths_are_refused(tmp_path: Path) -> None:
    wide = ImageSet("wide", torch.zeros(40, 1, 16, 16), torch.arange(40) % 10, 10)
    with pytest.raises(InvalidInput, match=r"'wide' are \(1, 16, 16\) of 10"):
        train_classifier(QUICK, tmp_path / "c.safetensors", data=wide)
    with pytest.raises(InvalidInput, match=r"ends in \.safetensors"):
        train_classifier(QUICK, tmp_path / "c.pt")
