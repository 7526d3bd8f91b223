"""What is measured: a model in some precisions, the images that it draws, and what its pictures are judged by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.benchmark.loading import PLAIN, Loading
from fewstep.benchmark.row import PRECISIONS, Model, key_of
from fewstep.core.errors import InvalidInput, one_of
from fewstep.pipeline import Pipeline, TextPipeline, load
from fewstep.pipeline.steer import module_of
from fewstep.tuning import Problem
from fewstep.tuning.subject import drawing, labels_of, prompts_of, scale_of

FIRST = 3 * 2**28
"""The numbers of the images of a bench begin here: no tuning meets their noise."""
PROMPTS, PROMPTS_SEED = 64, 1
"""Prompts of scenes where none are given; no tuning meets these words."""
SCENE = (3, 64, 64)
"""Pictures that can be read for what their prompts name."""
BATCHES = {Pipeline: 16, TextPipeline: 4}
"""Images that the network sees at once unless the caller says otherwise."""


def conditions_of(pipe: Pipeline | TextPipeline, prompts: str | os.PathLike[str] | None) -> Sequence[Any]:
    """The labels or prompts that images of a bench have in turn; `prompts` is as in `Subject`.

    Raises `InvalidInput` for a file without a prompt, and for one where the model takes none.
    """
    if not isinstance(pipe, TextPipeline):
        return labels_of(pipe, prompts)
    found = prompts_of(pipe, prompts, PROMPTS, PROMPTS_SEED)
    if not found:
        raise InvalidInput(f"{prompts} has no prompt: give one a line")
    return found


def conditions_digest(conditions: Sequence[Any]) -> str:
    """By which rows of the same labels or prompts are known."""
    return key_of({"conditions": list(conditions)})


@dataclass(eq=False)
class Subject:
    """A model to be measured.

    Attributes:
        source: a name, path or id as `fewstep.load` takes them, or a pipeline that it made, in float32.
        prompts: a file with a prompt a line, for a model of words; None are those of scenes.
        seed: of the noise; `batch`: images that the network sees at once.
        loading: how the files of `source` are read.
        conditions: the labels or prompts that images have in turn.
    """

    source: Any
    prompts: str | os.PathLike[str] | None = None
    seed: int = 0
    batch: int | None = None
    device: torch.device | str = "cpu"
    loading: Loading = PLAIN
    conditions: Sequence[Any] = field(init=False, repr=False)
    _loaded: dict[str, Pipeline | TextPipeline] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        given = isinstance(self.source, Pipeline | TextPipeline)
        if not given and callable(self.source):
            raise InvalidInput(
                f"a {type(self.source).__name__} says nothing of itself: make a pipeline of it first, "
                "fewstep.load(network, schedule=.., prediction=.., sample_shape=..), and give that"
            )
        if given and self.loading.given:
            raise InvalidInput(
                f"{' and '.join(self.loading.given)}: for reading the files of a model, and this one is loaded: leave "
                "it out"
            )
        self._loaded["float32"] = self.source if given else self._load("float32")
        if lower := sorted(str(dtype) for dtype in _dtypes(self.pipe) - {torch.float32}):
            raise InvalidInput(
                f"a loaded model is measured in float32, this one is in {' and '.join(lower)}: give its path, or where "
                "it is a module of your own, module.float()"
            )
        self.batch = BATCHES[type(self.pipe)] if self.batch is None else self.batch
        self.device = self.pipe.device
        self.conditions = conditions_of(self.pipe, self.prompts)
        self.problem(None)  # refuses a seed or a batch out of range

    @property
    def pipe(self) -> Pipeline | TextPipeline:
        """The model in float32."""
        return self._loaded["float32"]

    @property
    def model(self) -> Model:
        """Its name, digest and source, as rows have them."""
        given = isinstance(self.source, Pipeline | TextPipeline)
        return Model(self.pipe.name, self.pipe.digest, self.pipe.name if given else str(self.source), self.loading)

    @cached_property
    def known_prompts(self) -> list[Any] | None:
        """The prompts of scenes with what they name, where these are drawn; None elsewhere."""
        from fewstep.zoo.scenes.prompts import held_out_prompts

        pipe = self.pipe
        if not isinstance(pipe, TextPipeline) or self.prompts is not None or self.pixel_shape != SCENE:
            return None
        return held_out_prompts(PROMPTS, PROMPTS_SEED)  # `conditions` has refused other models without prompts

    @property
    def conditions_digest(self) -> str:
        """Of the labels or prompts."""
        return conditions_digest(self.conditions)

    @property
    def words(self) -> bool:
        """Whether its conditions are prompts."""
        return isinstance(self.pipe, TextPipeline)

    @property
    def guided(self) -> bool:
        """Whether it has a guidance scale."""
        return self.words or self.pipe.classes > 0  # type: ignore[union-attr]

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """(C, H, W) of a picture."""
        pipe = self.pipe
        return pipe.decoder.pixels(pipe.latent_shape()) if isinstance(pipe, TextPipeline) else pipe.pixel_shape

    @property
    def value_range(self) -> tuple[float, float]:
        """Of the pictures."""
        pipe = self.pipe
        return pipe.value_range if isinstance(pipe, Pipeline) and pipe.decoder is None else (-1.0, 1.0)

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """From states at the end of a run to pictures (B, C, H, W), float32."""
        decoder = self.pipe.decoder
        return (lambda states: states.float().cpu()) if decoder is None else decoder

    def scale(self, guidance: float | None) -> float | None:
        """The guidance scale as rows have it: the model's own for None, and None where there is nothing to guide."""
        scale = scale_of(self.pipe, guidance)
        return scale if self.guided else None

    def condition(self, number: int) -> Any:
        """The label or prompt of an image."""
        return self.conditions[(number - FIRST) % len(self.conditions)]

    def loaded(self, precision: str) -> Pipeline | TextPipeline:
        """The model in a precision. Raises `InvalidInput` for a loaded pipeline, which has its own."""
        one_of("precision", precision, PRECISIONS)
        if precision not in self._loaded:
            if isinstance(self.source, Pipeline | TextPipeline):
                raise InvalidInput(
                    f"a loaded model cannot be measured in {precision} too: give what it was loaded from"
                )
            self._loaded[precision] = self._load(precision)
        return self._loaded[precision]

    def _load(self, precision: str) -> Pipeline | TextPipeline:
        return load(self.source, device=self.device, dtype=precision, **self.loading.given)

    def problem(self, scale: float | None, precision: str = "float32") -> Problem:
        """What is drawn, at a guidance scale, in a precision; images are numbered from `FIRST`."""
        pipe = self.loaded(precision)
        batch = BATCHES[type(pipe)] if self.batch is None else self.batch
        return replace(drawing(pipe, self.condition, scale_of(pipe, scale)), seed=self.seed, batch=batch)


def _dtypes(pipe: Pipeline | TextPipeline) -> set[torch.dtype]:
    """What the network runs in, as far as that is known: of a callable, the dtypes of its parameters."""
    if pipe.dtype is not None:
        return {pipe.dtype}
    module = module_of(pipe.network) if isinstance(pipe, Pipeline) else None
    return set() if module is None else {p.dtype for p in module.parameters() if p.is_floating_point()}
