"""What is measured: a model in some precisions, the images that it draws, and what its pictures are judged by.

All that a bench and a choice ask of a pipeline is asked here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from fewstep.benchmark.measured import ModelFacts, Precision, key_of
from fewstep.benchmark.settings import PLAIN, USUAL, Loading, Pictures
from fewstep.benchmark.sweep import Target
from fewstep.benchmark.yardstick import SCENE, shows_digits
from fewstep.core.errors import InvalidInput, one_of
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.pipeline import Pipeline, load
from fewstep.run.machine import Machine, machine_of
from fewstep.tuning import Problem
from fewstep.tuning.settings import HELD_OUT
from fewstep.tuning.subject import drawing, labels_of, prompts_of, scale_of, usual_plan
from fewstep.zoo.scenes.prompts import held_out_prompts

FIRST = HELD_OUT
"""The numbers of the images of a bench begin here. They are those on which a certificate compares, so that both give
one figure for one plan, and no tuning learns from their noise.
"""
PROMPTS, PROMPTS_SEED = 64, 1
"""Prompts of scenes where none are given; no tuning meets these words."""

Source = str | os.PathLike[str] | Pipeline
"""A name, path or id as `fewstep.load` takes them, or a pipeline that it made, in float32."""


@dataclass(eq=False)
class Subject:
    """A model to be measured, and the images that it draws; `loading` is for a source that is not loaded yet.

    Raises `InvalidInput` for a callable that is not a pipeline, and a pipeline that is not in float32.
    """

    source: Source
    pictures: Pictures = USUAL
    loading: Loading = PLAIN
    _loaded: dict[str, Pipeline] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self._loaded:
            return
        if not self.is_loaded and callable(self.source):
            raise InvalidInput(
                f"a {type(self.source).__name__} does not say how to read it: make a pipeline of it first, "
                "fewstep.load(network, spec=fewstep.NetworkSpec(schedule, prediction, sample_shape)), and give that"
            )
        if self.is_loaded and self.loading.given:
            raise InvalidInput(f"this model is loaded already: leave out {' and '.join(self.loading.given)}")
        self._loaded["float32"] = self.source if isinstance(self.source, Pipeline) else self._load()
        if rows := self.pipe.model.rows:
            raise InvalidInput(
                f"{self.pipe.name} {rows}, so it is drawn with by DDIM alone, and samplers are measured here: measure "
                "its teacher; how far the student is from it stands in the report.json of its training"
            )
        if lower := sorted(str(dtype) for dtype in self.pipe.model.dtypes - {torch.float32}):
            raise InvalidInput(
                f"a loaded model is measured in float32, this one is in {' and '.join(lower)}: give its path, or where "
                "it is a module of your own, module.float(); a plan that is chosen draws in any precision"
            )

    def drawing(self, pictures: Pictures) -> Subject:
        """The same model, which is not loaded again, with other images."""
        return replace(self, pictures=pictures)

    @property
    def is_loaded(self) -> bool:
        """Whether the source is a pipeline, of which nobody knows where it came from."""
        return isinstance(self.source, Pipeline)

    @property
    def pipe(self) -> Pipeline:
        """The model in float32."""
        return self._loaded["float32"]

    @cached_property
    def model(self) -> ModelFacts:
        """Its name, digest and source, as measurements have them."""
        pipe, weights = self.pipe, self.pipe.model.identity.merged
        if self.is_loaded:
            return ModelFacts(pipe.name, weights, pipe.name, Loading(str(pipe.model.device)))
        return ModelFacts(pipe.name, weights, os.fspath(self.source), self.loading)  # type: ignore[arg-type]

    @property
    def hint(self) -> str:
        """What to add to an error about a digest that is not the one of this model."""
        return self.pipe.model.identity.hint

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device(self.pipe.model.device)

    @property
    def here(self) -> Machine:
        """The machine that it runs on."""
        return machine_of(self.device)

    @property
    def schedule(self) -> Schedule:
        """Its noise schedule at the usual size."""
        return self.pipe.schedule_at()

    @property
    def words(self) -> bool:
        """Whether its conditions are prompts."""
        return self.pipe.model.conditioner.field == "prompts"

    @property
    def guided(self) -> bool:
        """Whether it has a guidance scale."""
        return self.pipe.model.conditioner.guides

    @property
    def count(self) -> int:
        """Images of a measurement."""
        return self.pictures.count or (16 if self.words else 64)

    @property
    def batch(self) -> int:
        """Images that the network sees at once."""
        usual = 4 if self.words else 16
        return min(usual if self.pictures.batch is None else self.pictures.batch, self.count)

    @property
    def numbers(self) -> range:
        """Of the images."""
        return range(FIRST, FIRST + self.count)

    @cached_property
    def conditions(self) -> Sequence[Any]:
        """The labels or prompts that images have in turn.

        Raises `InvalidInput` for a file without a prompt, for one where the model takes none, and for a model of words
        that has no prompts.
        """
        pipe, prompts = self.pipe, self.pictures.prompts
        if not self.words:
            return labels_of(pipe, prompts)
        return prompts_of(pipe, prompts, PROMPTS, PROMPTS_SEED)

    @property
    def conditions_digest(self) -> str:
        """By which measurements of the same labels or prompts are known."""
        return key_of({"conditions": list(self.conditions)})

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the images, for keys."""
        return {
            "model": self.model.digest,
            "first": FIRST,
            "conditions": self.conditions_digest,
            "seed": self.pictures.seed,
            "images": self.count,
            "batch": self.batch,
        }

    @property
    def lacks_prompts(self) -> bool:
        """Whether nothing can be measured without --prompts: the model draws from words, and none are known for it."""
        if self.pictures.prompts is not None or not self.words:
            return False
        try:
            return not self.conditions
        except InvalidInput:
            return True

    @cached_property
    def known_prompts(self) -> list[Any] | None:
        """The prompts of scenes with what they name, where these are drawn; None elsewhere."""
        if not self.words or self.pictures.prompts is not None or self.pixel_shape != SCENE:
            return None
        return held_out_prompts(PROMPTS, PROMPTS_SEED)  # `conditions` has refused other models without prompts

    @property
    def shows_digits(self) -> bool:
        """Whether its pictures are digits as the shipped classifier knows them."""
        return shows_digits(self.pipe)

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """(C, H, W) of a picture."""
        return self.pipe.pixel_shape()

    @property
    def value_range(self) -> tuple[float, float]:
        """Of the pictures."""
        return self.pipe.value_range

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """From states at the end of a run to pictures (B, C, H, W), float32."""
        return self.pipe.decode

    def scale(self, guidance: float | None) -> float | None:
        """The guidance scale as measurements have it: the model's own for None; None where there is nothing to guide.

        Raises `InvalidInput` for a scale that is not a finite number, and where there is nothing to guide.
        """
        scale = scale_of(self.pipe, guidance)
        return scale if self.guided else None

    def target(self, scale: float | None) -> Target:
        """What plans are made for, at a scale; a distilled network guides in one evaluation."""
        twice = scale not in (None, 1.0) and not self.pipe.model.conditioner.distilled
        return Target(self.model, self.schedule, 1 + twice)

    def plan(self, steps: int, *sampler: str) -> Plan:
        """A plan for this model, by its own defaults where no sampler is named."""
        return self.pipe.plan(*sampler, steps=steps) if sampler else usual_plan(self.pipe, steps)

    def condition(self, number: int) -> Any:
        """The label or prompt of an image."""
        return self.conditions[(number - FIRST) % len(self.conditions)]

    def loaded(self, precision: str) -> Pipeline:
        """The model in a precision. Raises `InvalidInput` for a loaded pipeline, which has its own."""
        one_of("precision", precision, get_args(Precision))
        if precision not in self._loaded:
            if self.is_loaded:
                raise InvalidInput(
                    f"a loaded model cannot be measured in {precision} too: give what it was loaded from"
                )
            self._loaded[precision] = self._load(precision)
        return self._loaded[precision]

    def _load(self, precision: str = "float32") -> Pipeline:
        given: dict[str, Any] = {"device": "cpu", **self.loading.given}
        return load(self.source, dtype=precision, **given)

    def problem(self, scale: float | None, precision: str = "float32", negative: str | None = None) -> Problem:
        """What is drawn, at a guidance scale, in a precision; images are numbered from `FIRST`. `negative` is a prompt
        that all of them are guided away from.
        """
        pipe, at = self.loaded(precision), scale_of(self.pipe, scale)
        problem = replace(drawing(pipe, self.condition, at), seed=self.pictures.seed, batch=self.batch)
        if negative is None:
            return problem

        def away(numbers: Sequence[int]) -> Denoiser:
            return pipe.denoiser([self.condition(n) for n in numbers], guidance=at, negative=negative)

        return replace(problem, denoiser=away)
