"""The weaker model of autoguidance: loaded where it is a path, and refused where it is of another task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.pipeline.guidance import Guidance

if TYPE_CHECKING:
    from fewstep.pipeline.pipeline import Pipeline
    from fewstep.pipeline.text import TextPipeline

    Model = Pipeline | TextPipeline
    Weak = Pipeline | TextPipeline | str | os.PathLike[str] | None


def weaker_of(pipe: Model, weak: Weak, size: tuple[int, int] | None = None) -> Any:
    """The weaker model for `pipe`, loaded on its device and in its dtype where `weak` is a path, a name or a hub id.

    Args:
        size: (height, width) of the pictures, for models that have a choice.

    Raises:
        InvalidInput: it is of another kind, draws other states, cannot make the size, or is `pipe` itself, which guides
            nowhere.
    """
    if weak is None:
        return None
    if isinstance(weak, str | os.PathLike):
        from fewstep.pipeline.loading import load

        weak = load(weak, device=pipe.device, dtype=pipe.dtype)
    if type(weak) is not type(pipe):
        kind = type(pipe).__name__
        raise InvalidInput(f"weak is a {type(weak).__name__}; {pipe.name} is a {kind}, and so has to be the weaker one")
    for what, own, theirs in _facts(pipe, weak):
        if own != theirs:
            raise InvalidInput(
                f"the weaker model {weak.name} has {what} {theirs}, and {pipe.name} has {own}: autoguidance needs a "
                "smaller or less trained model of the same task"
            )
    if weak.digest == pipe.digest:
        raise InvalidInput(
            f"weak is {pipe.name} itself, so there is nothing to move away from: give a smaller or less trained model"
        )
    if size is not None:
        weak._size(*size)  # type: ignore[union-attr]
    return weak


def check_weaker(settings: Guidance, weak: Model | None) -> None:
    """Raise `InvalidInput` unless `weak` is the weaker model that a recipe names."""
    got = None if weak is None else weak.digest
    if settings.weak is not None and got is None:
        raise InvalidInput(
            f"this was drawn by autoguidance with a weaker model of digest {settings.weak}: give it as weak="
        )
    if got != settings.weak:
        named = f"the weaker model {settings.weak}" if settings.weak else "no weaker model"
        raise InvalidInput(f"this was drawn with {named}, and weak has the digest {got}: leave it out, or give that")


def _facts(pipe: Any, weak: Any) -> list[tuple[str, Any, Any]]:
    """What has to be alike: the name of each fact, of `pipe` and of `weak`."""
    from fewstep.pipeline.text import TextPipeline

    def facts(model: Any) -> dict[str, Any]:
        where = {"the device": torch.device(model.device).type}
        if not isinstance(model, TextPipeline):
            return {"the shape of states": model.sample_shape, "classes": model.classes, **where}
        return {
            "latent channels": model.family.channels(model.config),
            "pixels a latent": model.decoder.factor,
            "further input channels": model.family.extra(model.config),
            "a distilled guidance scale": model.distilled,
            **where,
        }

    return [(name, own, theirs) for (name, own), theirs in zip(facts(pipe).items(), facts(weak).values(), strict=True)]
