"""The weaker model of autoguidance: loaded from its path, and refused if its task is another."""

from __future__ import annotations

import os
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.models.loading import load_model, place_of
from fewstep.models.model import Model

Weak = Any
"""A pipeline, a model, or what `fewstep.load` takes."""


def weaker_of(model: Model, weak: Weak) -> Model | None:
    """The weaker model for `model`, loaded on its device and in its dtype where `weak` is a path, a name or a hub id.

    Raises:
        InvalidInput: it draws other states or is conditioned otherwise, or is `model` itself, which guides nowhere.
    """
    if weak is None:
        return None
    if isinstance(weak, str | os.PathLike):
        found = load_model(weak, place_of(model.device, model.dtype))
    else:
        found = getattr(weak, "model", weak)
    if not isinstance(found, Model):
        raise InvalidInput(f"weak is a loaded pipeline or its path, got {type(weak).__name__}")
    for (what, own), theirs in zip(_facts(model).items(), _facts(found).values(), strict=False):
        if own != theirs:
            raise InvalidInput(
                f"the weaker model {found.name} has {what} {theirs}, and {model.name} has {own}: autoguidance needs a "
                "smaller or less trained model of the same task"
            )
    if found.digest == model.digest:
        raise InvalidInput(
            f"weak is {model.name} itself, so there is nothing to move away from: give a smaller or less trained model"
        )
    return found


def check_weaker(wanted: str | None, weaker: Model | None) -> None:
    """Raise `InvalidInput` unless `weaker` is the weaker model of this digest, which a drawing names."""
    got = None if weaker is None else weaker.digest
    if wanted is not None and got is None:
        raise InvalidInput(f"this was drawn by autoguidance with a weaker model of digest {wanted}: give it as weak=")
    if got != wanted:
        named = f"the weaker model {wanted}" if wanted else "no weaker model"
        raise InvalidInput(f"this was drawn with {named}, and weak has the digest {got}: leave it out, or give that")


def _facts(model: Model) -> dict[str, Any]:
    """What both models have to share, by name."""
    sizes = model.sizes
    fixed = (sizes.height, sizes.width) if not sizes.multiple else None
    return {
        "subjects": model.conditioner.field,
        "the channels of states": sizes.channels,
        "pixels a state value": sizes.factor,
        "the size of images": fixed,
        **model.conditioner.task,
        "the device": torch.device(model.device).type,
    }
