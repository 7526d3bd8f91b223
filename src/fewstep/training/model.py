"""From data to a model: a new network is trained, or one goes on from where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.data import Source, Tolerant, open_data
from fewstep.denoise.convert import Network
from fewstep.models import copies
from fewstep.pipeline import Pipeline, load
from fewstep.training.denoising import Denoising
from fewstep.training.draws import key_of
from fewstep.training.examples import Examples, examples_of
from fewstep.training.fresh import New
from fewstep.training.loop import Progress, train
from fewstep.training.method import STUDENT, Role
from fewstep.training.place import Place
from fewstep.training.run import Run
from fewstep.training.settings import Settings
from fewstep.zoo import UNet, build

START, RESULT, FACTS = "start.safetensors", "model", "training.json"


@dataclass(frozen=True)
class Anew:
    """A model whose network is trained from new weights; its other parts stay as they are."""

    model: str | os.PathLike[str]


class Watching(NamedTuple):
    """Who is told how it goes on: of pictures that are encoded, (done, of), and of training."""

    encoding: Callable[[int, int], None] = lambda done, of: None
    training: Callable[[Progress], None] = lambda now: None


class Trained(NamedTuple):
    """A trained model: its pipeline, where it lies, and why some samples could not be read, by number."""

    pipe: Pipeline
    path: Path
    lost: dict[int, str]


def train_on(
    data: str | os.PathLike[str] | Source,
    start: New | Anew | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    method: Denoising | None = None,
    settings: Settings | None = None,
    mirror: bool = False,
    device: torch.device | str = "cpu",
    watch: Watching | None = None,
) -> Trained:
    """Train a model on pictures, and write it as a model of its own.

    In `folder` there are the states from which the same call goes on, the log, latents where the model has a VAE, and
    in the end the model: `model.safetensors`, or `model` in the format of diffusers. Interrupt it in any way.

    Args:
        data: see `fewstep.data.open_data`.
        start: a new network; a model with new weights; or a model to go on from, a shipped one, a .safetensors file of
            `fewstep train`, or a folder in the format of diffusers.
        method: what is learned and how; None is what is usual.
        mirror: whether each picture is learned with left and right exchanged too.

    Raises:
        InvalidInput: data, model, method and folder do not fit together, or too many samples cannot be read.
        Diverged: a loss is not finite.
        OSError: a file cannot be read or written; what was written before stays.
    """
    settings, watch, place = settings or Settings(), watch or Watching(), Path(folder)
    source = Tolerant(open_data(data, place))
    if isinstance(start, New):
        origin = start.write(place / START, source, settings.seed)
    else:
        origin = copies.source_of(start.model if isinstance(start, Anew) else start, "a trained model")
    pipe = load(origin, device=device)
    network = learner(pipe, settings.seed if isinstance(start, Anew) else None)
    found = examples_of(source, pipe, place, mirror, watch.encoding)
    method = method or Denoising()
    check(method, found)
    plan = method.plan(network)
    identity = {"model": pipe.model.digest, "anew": isinstance(start, Anew)}
    run = Run(method, {STUDENT: Role(network)}, found, settings, place, identity, Place(device))
    module = train(run, watch.training).eval().requires_grad_(False)
    target = copies.target_of(place, origin, RESULT)
    recommended = recommendation(plan, method, copies.recommended_by(origin))
    copies.write(target, origin, module, recommended, run.known_as, FACTS)
    return Trained(load(target, device=device), target, dict(found.source.lost))


def learner(pipe: Pipeline, seed: int | None) -> Network:
    """The network of a pipeline to be trained, with new weights where a seed is given.

    Raises `InvalidInput` for a student of few steps, and for a network that is not a module.
    """
    model = pipe.model
    if model.teacher is not None:
        raise InvalidInput(
            f"{model.name} is a student of few steps, which training on data would undo: train its teacher, "
            f"{model.teacher.name}, and distil it again"
        )
    network = model.denoiser()
    network.schedule = model.schedule_at()
    module = Role(network).module
    if seed is not None:
        renew(module, seed)
    module.requires_grad_(True).train()
    return network


def renew(module: nn.Module, seed: int) -> None:
    """Give a module the weights that a new one of its configuration begins with, by the seed alone."""
    if isinstance(module, UNet):
        fresh: Any = build(module.config, key_of(seed, "weights"))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key_of(seed, "weights"))
            fresh = type(module).from_config(module.config)  # type: ignore[attr-defined]  # of diffusers
    module.load_state_dict(fresh.state_dict())


def check(method: Denoising, found: Examples) -> None:
    """Raise `InvalidInput` for dropout where there is no empty condition."""
    if method.dropout and not found.conditions.guides:
        raise InvalidInput(
            f"{found.conditions.pipe.model.name} has no empty condition to tell some samples: set dropout=0"
        )


def recommendation(plan: Plan, method: Denoising, own: Mapping[str, Any]) -> dict[str, Any]:
    """The overlay that a trained model recommends: its own, over it the sampler of the plan where one was asked for, or
    where it has none.
    """
    asked = (method.sampler, method.grid, method.rows) != (None, None, Denoising.rows)
    recipe = plan.recipe
    sampling = {"sampler": recipe.sampler, "steps": recipe.steps, "grid": recipe.grid}
    return {**own, "sampling": sampling if asked or "sampling" not in own else own["sampling"]}
