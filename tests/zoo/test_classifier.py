"""The digits classifier: its file, and what its features see."""

import json

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import Summary, frechet_distance
from fewstep.zoo import classifier, container, digits
from fewstep.zoo.classifier import HELD_OUT, SPLIT_SEED, DigitsClassifier


@pytest.fixture(scope="module")
def shipped():
    return classifier.load_shipped()


@pytest.fixture(scope="module")
def parts():
    return digits.load().split(HELD_OUT, SPLIT_SEED)


def test_the_shipped_one_reads_digits_that_it_never_saw(shipped, parts):
    _, held = parts
    accuracy = float((shipped.classify(held.images) == held.labels).double().mean())
    assert accuracy == pytest.approx(shipped.training["accuracy"], abs=1 / len(held))
    assert accuracy > 0.98
    assert classifier.shipped_path().stat().st_size < 300_000
    assert shipped.training["data"]["digest"] == digits.load().digest
    assert {name: shipped.training[name] for name in ("seed", "steps")} == {"seed": 0, "steps": 800}


def test_its_features_see_a_missing_digit_and_noise(shipped, parts):
    kept, _ = parts
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    first, second = order[:800], order[800:1600]
    real = Summary(shipped)
    real.update(kept.images[first])

    def distance(images):
        summary = Summary(shipped)
        summary.update(images)
        return frechet_distance(summary, real).value

    alike = distance(kept.images[second])
    noise = torch.randn(800, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert distance(kept.images[second] + 0.3 * noise) > 2 * alike
    assert distance(kept.images[second][kept.labels[second] != 3]) > 2 * alike


def test_files_that_are_no_classifier_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(FileNotFoundError):
        classifier.load(path)
    weights = dict(DigitsClassifier().state_dict())
    facts = {"width": 32, "classes": 10, "training": {}}
    wrong = {
        "not those of a classifier": {**weights, "score.bias": torch.zeros(9)},
        "NaN or infinite": {**weights, "score.bias": torch.full((10,), torch.nan)},
    }
    for message, tensors in wrong.items():
        container.write(path, tensors, {classifier.KEY: facts})
        with pytest.raises(InvalidInput, match=message):
            classifier.load(path)
    container.write(path, weights, {"other": {}})
    with pytest.raises(InvalidInput, match="not a classifier of digits"):
        classifier.load(path)
    path.write_bytes(json.dumps(facts).encode())
    with pytest.raises(InvalidInput, match=r"c\.safetensors"):
        classifier.load(path)


def test_images_of_another_size_are_refused(shipped):
    with pytest.raises(InvalidInput, match=r"images \(batch, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        shipped(torch.zeros(2, 3, 8, 8))
