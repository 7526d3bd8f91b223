"""What tells a better guidance scale from a worse one: whether pictures show what was asked for, or how far they are
from real ones.

The distance to the converged solution tells nothing of it. Each scale has a solution of its own, which is as near at a
bad scale as at a good one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.benchmark.real import real_pictures
from fewstep.core.errors import InvalidInput
from fewstep.measure.adherence import ClipScore, mean_score, prompts_digest
from fewstep.measure.backbones import backbone
from fewstep.measure.features import Features, FunctionFeatures
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure
from fewstep.measure.frechet import frechet_distance
from fewstep.measure.kernel import kernel_distance
from fewstep.measure.summary import Summary
from fewstep.pipeline import Pipeline
from fewstep.pipeline.images import pixels_of
from fewstep.zoo import classifier, digits
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.prompts import Prompt
from fewstep.zoo.scenes.scene import Description

SCENE, DIGIT = (3, 64, 64), (1, 8, 8)
"""Pictures that can be read for what their prompts name, and those that the shipped classifier knows."""
FRECHET_WIDTHS = 10
"""A Frechet distance needs so many images for each number of the features: that of fewer is mostly their number."""
THUMBNAIL = 8
LEAST_REAL = 16
"""Fewest real pictures that say anything of a distance."""


class Yardstick(Protocol):
    """What pictures are judged by.

    Attributes:
        name: of the figure; `digest`: of all that decides its values.
        least: images that a figure needs.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def least(self) -> int: ...

    def read(self, pictures: Tensor, subjects: Sequence[Any]) -> Tensor:
        """What is kept of each picture, (B, d), of pictures (B, C, H, W) in [-1, 1] and what they were drawn for."""
        ...

    def figure(self, values: Tensor, subjects: Sequence[Any], bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """The figure of what was read, (n, d). Raises `InvalidInput` for fewer than `least` images."""
        ...


class Adherence:
    """The share of pictures of scenes that show all that their prompts name, and nothing else."""

    name, digest, least = "adherence", "adherence-1", 2

    def __init__(self, prompts: Sequence[Prompt]):
        self.named: Mapping[str, Description] = {prompt.text: prompt.description for prompt in prompts}

    def read(self, pictures: Tensor, subjects: Sequence[Any]) -> Tensor:
        """1 or 0 of each, (B, 1)."""
        pixels = pixels_of(pictures, (-1.0, 1.0))
        right = [adheres(read_picture(one), self.named[subject]) for one, subject in zip(pixels, subjects, strict=True)]
        return torch.tensor(right, dtype=torch.float64)[:, None]

    def figure(self, values: Tensor, subjects: Sequence[Any], bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """Their mean."""
        return mean_score("adherence", values[:, 0], reference=prompts_digest(subjects), bootstrap=bootstrap)


class ClipScores:
    """CLIP's score of pictures under their prompts, of weights in a folder."""

    name, least = ClipScore.name, 2

    def __init__(self, clip: ClipScore):
        self.clip, self.digest = clip, clip.digest

    def read(self, pictures: Tensor, subjects: Sequence[Any]) -> Tensor:
        """The score of each, (B, 1)."""
        return self.clip(pictures, subjects)[:, None]

    def figure(self, values: Tensor, subjects: Sequence[Any], bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """Their mean."""
        facts = {"features": self.clip.name, "feature_digest": self.digest, "reference": prompts_digest(subjects)}
        return mean_score(self.clip.name, values[:, 0], bootstrap=bootstrap, **facts)


class Distance:
    """The distance of pictures to real ones, on features: Frechet's on those of digits, where `least` images are
    enough of them, else the kernel distance, which has no bias at any number of images.
    """

    def __init__(self, features: Features, real: Summary, frechet: bool):
        self.features, self.real, self.frechet = features, real, frechet
        self.name = "distance" if frechet else "kernel distance"
        self.digest = f"{self.name} {features.digest} {real.digest}"
        self.least = FRECHET_WIDTHS * features.width if frechet else 2

    def read(self, pictures: Tensor, subjects: Sequence[Any]) -> Tensor:
        """The features of each, (B, width)."""
        with torch.no_grad():
            return self.features(pictures.clamp(-1, 1)).flatten(1).cpu()

    def figure(self, values: Tensor, subjects: Sequence[Any], bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """Their distance to the real pictures."""
        if len(values) < self.least:
            raise InvalidInput(f"{len(values)} images are too few for a {self.name}, which needs {self.least}")
        own = Summary(self.real.id, keep=max(2, len(values)))
        own.update_features(values)
        measure: Callable[..., Figure] = frechet_distance if self.frechet else kernel_distance
        return measure(own, self.real, bootstrap=bootstrap)


def yardstick_of(
    pipe: Pipeline,
    prompts: Sequence[Prompt] | None = None,
    clip: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | Tensor | None = None,
) -> Yardstick:
    """What tells a better guidance scale of a model: what is given, else what is known of it.

    Args:
        prompts: of scenes, with what they name, where these are drawn.
        clip: a folder with the weights of CLIP: its score; with `data` the features of the distance.
        data: a folder of real pictures, or a tensor (n, C, H, W) in [-1, 1]: the distance to them.

    Raises:
        InvalidInput: nothing is given and nothing is known; --clip for a model of classes without `data`; and files
            that cannot be used.
    """
    words = pipe.model.conditioner.field == "prompts"
    if data is not None:
        return _to_data(pipe, data, clip)
    if clip is not None:
        if not words:
            raise InvalidInput(
                f"--clip scores pictures under prompts, and {pipe.name} draws classes: give --data FOLDER of real "
                "pictures with it, and the distance is measured on CLIP's features"
            )
        return ClipScores(ClipScore(clip, device=pipe.model.device))
    if prompts is not None:
        return Adherence(prompts)
    if shows_digits(pipe):
        return Distance(classifier.load_shipped(), real_digits(), frechet=True)
    give = (
        "--clip FOLDER with CLIP's weights, --data FOLDER of real pictures"
        if words
        else "--data FOLDER of real pictures"
    )
    raise InvalidInput(
        f"nothing is known of {pipe.name} that tells a better guidance scale, as the error to the converged solution "
        f"tells none: give {give}, or a scale"
    )


def shows_digits(pipe: Pipeline) -> bool:
    """Whether the pictures of a model are digits as the shipped classifier knows them."""
    return len(pipe.model.conditioner.subjects) == 10 and tuple(pipe.pixel_shape()) == DIGIT


def real_digits() -> Summary:
    """The digits that the classifier was trained on, on its features. Raises `InvalidInput` without them."""
    found = Summary(classifier.load_shipped())
    found.update(digits.load().split(classifier.HELD_OUT, classifier.SPLIT_SEED)[0].images)
    return found


def thumbnails(shape: Sequence[int]) -> Features:
    """Pictures (C, H, W) at a size of 8 x 8, or their own where that is less."""
    channels, sides = shape[0], (min(shape[1], THUMBNAIL), min(shape[2], THUMBNAIL))
    return FunctionFeatures(
        lambda pictures: torch.nn.functional.adaptive_avg_pool2d(pictures, sides),
        f"thumbnails {channels}x{sides[0]}x{sides[1]}",
        channels * sides[0] * sides[1],
        "thumbnails-1",
    )


def signed(pictures: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Pictures in [-1, 1], of those in the range of a model, cut off as in a file."""
    low, high = value_range
    return ((pictures - low) * (2 / (high - low)) - 1).clamp(-1, 1)


def _to_data(pipe: Pipeline, data: str | os.PathLike[str] | Tensor, clip: str | os.PathLike[str] | None) -> Distance:
    """The distance to real pictures: on CLIP's features, on those of digits, or on thumbnails."""
    of_digits = clip is None and shows_digits(pipe)
    features = features_of(pipe, clip)
    real = Summary(features)
    for pictures in real_pictures(data, tuple(pipe.pixel_shape())):
        real.update(pictures)
    if real.n < LEAST_REAL:
        raise InvalidInput(f"{real.n} real pictures say too little of a distance: give at least {LEAST_REAL}")
    return Distance(features, real, frechet=of_digits and real.n >= FRECHET_WIDTHS * features.width)


def features_of(pipe: Pipeline, clip: str | os.PathLike[str] | None = None) -> Features:
    """What the pictures of a model are compared on: CLIP's features where its folder is given, those of the shipped
    classifier for digits, else thumbnails.
    """
    if clip is not None:
        return backbone("clip", clip, device=pipe.model.device)
    return classifier.load_shipped() if shows_digits(pipe) else thumbnails(pipe.pixel_shape())
