"""How good drawn images are: their distance to data on two kinds of features, their diversity, and adherence."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from mixture import IMAGES, STD
from torch import Tensor

import fewstep as fs
from fewstep.measure import Figure, PixelFeatures, Summary, diversity, frechet_distance, precision_recall
from fewstep.pipeline.images import pixels_of
from fewstep.zoo import classifier, digits
from fewstep.zoo.scenes.check import adheres, read_picture
from literature import intervals
from literature.claim import Interval
from literature.subject import adherence_on, pipeline, prompt, states

PIXELS = PixelFeatures((1, 8, 8))
TRUE, NEIGHBOURS = 20_000, 1_000
"""Images drawn from the mixture itself to measure against, and how many of each side recall looks at."""


class Distances(NamedTuple):
    """Fréchet distances to the data, squared as usual, on the 64 pixels and on 32 features of the classifier."""

    pixels: Figure
    classes: Figure


class Reference(NamedTuple):
    """The data: all real digits, or images drawn from the mixture itself."""

    images: Tensor
    labels: Tensor
    pixels: Summary
    classes: Summary


@lru_cache
def reference(model: str) -> Reference:
    """What images of a model are measured against."""
    data = digits.load()
    images, labels = data.images, data.labels
    if model != "digits":
        rng = torch.Generator().manual_seed(0)
        picks = torch.randint(IMAGES, (TRUE,), generator=rng)
        images = images[:IMAGES][picks] + STD * torch.randn(TRUE, 1, 8, 8, generator=rng)
        labels = torch.zeros(TRUE, dtype=torch.int64)
    return Reference(images, labels, _summary(images), _summary(images, of_classes=True))


def _summary(images: Tensor, of_classes: bool = False) -> Summary:
    found = Summary(_classifier() if of_classes else PIXELS)
    for part in images.split(1000):
        found.update(part)
    return found


@lru_cache
def _classifier() -> classifier.ClassifierFeatures:
    return classifier.load_shipped()


_drawn: dict[tuple[str, str, int], Tensor] = {}
_distances: dict[tuple[str, str, int], Distances] = {}


def drawn(own: fs.Plan, model: str, images: int) -> Tensor:
    """The images of a plan, kept for the claims that share them."""
    key = (own.digest, model, images)
    if key not in _drawn:
        _drawn[key] = states(own, model, images)
    return _drawn[key]


def distances(own: fs.Plan, model: str, images: int) -> Distances:
    """Of so many images of a plan."""
    key = (own.digest, model, images)
    if key not in _distances:
        pictures, data = drawn(own, model, images), reference(model)
        _distances[key] = Distances(
            frechet_distance(_summary(pictures), data.pixels),
            frechet_distance(_summary(pictures, of_classes=True), data.classes),
        )
    return _distances[key]


def by_class(images: Tensor, labels: Tensor) -> list[Summary]:
    """The pixels of the images of each class."""
    return [_summary(images[labels == label]) for label in labels.unique()]


def diversities(images: Tensor, labels: Tensor) -> list[Figure]:
    """How far apart the pixels of two images are, in each class, of at most `NEIGHBOURS` images."""
    return [diversity(summary) for summary in by_class(images[:NEIGHBOURS], labels[:NEIGHBOURS])]


def recall(images: Tensor, model: str) -> Interval:
    """The share of the data that lies near drawn images, of at most a thousand of each."""
    data = reference(model)
    real = _summary(data.images[:NEIGHBOURS])
    return intervals.of(precision_recall(_summary(images[:NEIGHBOURS]), real).recall)


def labels_of(model: str, count: int) -> Tensor:
    """The classes that drawn images have; the mixture has none."""
    return torch.arange(count) % (10 if model == "digits" else 1)


def read_right(own: fs.Plan, images: int) -> Tensor:
    """1 for each scene that is right in every attribute that its prompt names, else 0."""
    count = adherence_on(images)
    pipe = pipeline("scenes")
    pictures = [pipe.decode(part) for part in states(own, "scenes", count).split(32)]
    shown = pixels_of(torch.cat(pictures), pipe.value_range)
    return torch.tensor(
        [float(adheres(read_picture(one), prompt(i).description)) for i, one in enumerate(shown)], dtype=torch.float64
    )
