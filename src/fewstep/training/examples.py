"""A data set as a model meets it: states, and the conditions that say what they show.

Pictures are framed to the model's size. Where the model draws latents, its VAE encodes each picture once, and the
latents are kept in files; captions are encoded by the model's own text encoders, which remember the last ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.data import Source, Tolerant, framed, mirrored
from fewstep.drawing import Guidance
from fewstep.models import Model, TensorCache
from fewstep.pipeline import Pipeline
from fewstep.pipeline.stages import Conditioned, Encoded, encode
from fewstep.run.noise import START, unit_noise
from fewstep.training.batch import Batch
from fewstep.training.parts import ALONE, PART, Part, kept
from fewstep.training.processes import Processes

LATENTS = "latents"
GUIDING = Guidance(2.0)
"""Any scale but 1, so that the conditions have the empty one beside them."""
UNSAID = 0
"""The class of pictures of which nothing is said, in a model of one class."""
TRIED = 64
"""Samples whose subjects a trial takes."""


class Conditions:
    """From what samples show to what the network is told.

    Args:
        guidance: decides whether there is an empty condition beside each; None has it wherever the model knows one.
    """

    def __init__(self, pipe: Pipeline, guidance: Guidance | None = None) -> None:
        self.pipe = pipe
        self.guidance = GUIDING if guidance is None and self.guides else guidance
        self.labels: dict[Any, Encoded] = {}

    @property
    def guides(self) -> bool:
        """Whether there is an empty condition."""
        conditioner = self.pipe.model.conditioner
        return conditioner.guides and not conditioner.distilled

    def of(self, subjects: Sequence[Any]) -> Conditioned:
        """Those of a batch, where the network is."""
        if self.pipe.model.conditioner.field == "labels":
            for one in dict.fromkeys(subjects):
                if one not in self.labels:
                    self.labels[one] = self._encoded([one])[0]
            return Conditioned.of(self.pipe.model, [self.labels[one] for one in subjects])
        return Conditioned.of(self.pipe.model, self._encoded(list(subjects)))

    def _encoded(self, subjects: list[Any]) -> list[Encoded]:
        order = self.pipe.order(subjects, guidance=self.guidance)
        return encode(self.pipe.model, list(order.drawing.each))


@dataclass(frozen=True, eq=False)
class Examples:
    """Samples by their numbers; data for `fewstep.training`.

    With `mirror` each picture is there twice, the second time with left and right exchanged, at its number + count.

    Attributes:
        shape: (c, h, w) of a state.
        parts: encoded states of all, or nothing where states are pixels.
    """

    source: Tolerant
    conditions: Conditions
    shape: tuple[int, ...]
    mirror: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def count(self) -> int:
        """How many there are, mirrored ones too."""
        return self.source.count * (2 if self.mirror else 1)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The data, and what is made of them."""
        return {**self.source.identity, "shape": list(self.shape), "mirror": self.mirror}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some samples, where the network is."""
        found = [self.sample(number) for number in numbers]
        told = self.conditions.of([subject for _, subject in found])
        states = torch.stack([state for state, _ in found]).to(self.conditions.pipe.model.device)
        return Batch(states, None, told.positive, told.negative)

    def sample(self, number: int) -> tuple[Tensor, Any]:
        """The state of a sample, float32 on the host, and its subject."""
        if self.parts:
            part = self.parts[number // PART]
            return part.states[number % PART], part.facts[number % PART]
        sample = self.source.read(number % self.source.count)
        pixels = framed(sample.picture, self.shape)
        return mirrored(pixels) if number >= self.source.count else pixels, subject_of(sample.subject, self.source)


def subject_of(subject: Any, source: Source) -> Any:
    """What a model is told of a sample of which nothing is said: its only class."""
    return UNSAID if source.told == "nothing" else subject


def examples_of(
    source: Source,
    pipe: Pipeline,
    folder: Path,
    mirror: bool = False,
    watch: Callable[[int, int], None] = lambda done, of: None,
    processes: Processes = ALONE,
) -> Examples:
    """The data as the model of a pipeline meets them; latents are kept in `folder`, each encoded by one of the
    processes.

    Raises `InvalidInput` where they do not fit the model, before anything is encoded.
    """
    raw = pictures_of(source, pipe, mirror)
    if not has_latents(pipe.model):
        return raw
    identity = {**raw.identity, "model": pipe.model.digest}
    parts = kept(folder / LATENTS, range(raw.count), identity, lambda numbers: encoded(raw, numbers), watch, processes)
    return replace(raw, shape=pipe.model.state_shape(), parts=tuple(parts))


def pictures_of(source: Source, pipe: Pipeline, mirror: bool = False) -> Examples:
    """The data in pixels, of the size of a model's pictures. Raises `InvalidInput` where they do not fit the model."""
    model = pipe.model
    check(source, model)
    tolerant = source if isinstance(source, Tolerant) else Tolerant(source)
    raw = Examples(tolerant, Conditions(pipe), model.codec.pixel_shape(model.state_shape()), mirror)
    if not has_latents(model):
        raw.sample(0)  # refused here, not in the middle of the first step
    return raw


def has_latents(model: Model) -> bool:
    """Whether the states of a model are not its pixels."""
    shape = model.state_shape()
    return model.codec.factor != 1 or model.codec.pixel_shape(shape) != shape


def blank(raw: Examples) -> Examples:
    """Pictures as they are, and noise in the place of latents: what a trial has before these are there."""
    model = raw.conditions.pipe.model
    if not has_latents(model):
        return raw
    shape = model.state_shape()
    state = unit_noise([0], START, torch.empty(1, *shape))
    subjects = [raw.sample(number)[1] for number in range(min(TRIED, raw.count))]
    part = Part(state.expand(PART, *shape), [subjects[number % len(subjects)] for number in range(PART)])
    return replace(raw, shape=shape, parts=(part,) * math.ceil(raw.count / PART))


def bytes_of(raw: Examples) -> int:
    """Of the latents on the disk; 0 where there are none."""
    model = raw.conditions.pipe.model
    return raw.count * math.prod(model.state_shape()) * 4 if has_latents(model) else 0


def seconds_of(raw: Examples, processes: Processes = ALONE) -> float:
    """Until the latents are there, by one picture that is encoded twice; 0 where there are none."""
    if not has_latents(raw.conditions.pipe.model):
        return 0.0
    encoded(raw, range(1))
    began = time.perf_counter()
    encoded(raw, range(1))
    return (time.perf_counter() - began) * raw.count / min(processes.count, math.ceil(raw.count / PART))


def encoded(raw: Examples, numbers: range) -> Part:
    """The latents of some pictures, float32 on the host, and their subjects."""
    forgets, model = TensorCache(max_bytes=0), raw.conditions.pipe.model
    states, subjects = [], []
    for number in numbers:
        pixels, subject = raw.sample(number)
        states.append(model.codec.encode(pixels[None], forgets))
        subjects.append(subject)
    return Part(torch.cat(states), subjects)


def check(source: Source, model: Model) -> None:
    """Raise `InvalidInput` where data do not say what the model has to be told, or say it otherwise."""
    field, classes = model.conditioner.field, len(model.conditioner.subjects)
    if field == "prompts":
        if source.told != "prompts":
            raise InvalidInput(f"{model.name} is trained on captions, and the data have {source.told}: give captions")
        if model.conditioner.task.get("further input channels"):
            raise InvalidInput(f"{model.name} was trained to inpaint, from pictures with a mask: give another model")
    elif source.told == "prompts":
        raise InvalidInput(
            f"{model.name} is trained on classes, and the data have captions: train a model that takes words, from its "
            "folder"
        )
    elif source.classes > classes or (source.told == "labels" and model.conditioner.subjects == (None,)):
        raise InvalidInput(f"{model.name} has {classes} classes, and the data have {source.classes}: train a new model")
    elif source.told == "nothing" and classes > 1:
        raise InvalidInput(f"{model.name} is trained on {classes} classes, and the data have no labels: give labels")
    if model.codec.value_range != (-1.0, 1.0):
        raise InvalidInput(f"{model.name} draws values in {model.codec.value_range}; only -1 to 1 is trained here")
