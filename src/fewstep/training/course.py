"""A training on data that is checked: its model, data and method, and what is encoded, trained and written of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.data import Source
from fewstep.denoise.convert import Network
from fewstep.models import copies, is_bare, load_bare, place_of
from fewstep.pipeline import Pipeline, load
from fewstep.training.adapter import merged
from fewstep.training.denoising import Denoising
from fewstep.training.draws import key_of
from fewstep.training.examples import Examples, blank, bytes_of, examples_of, pictures_of, seconds_of
from fewstep.training.forecast import Forecast, forecast_of
from fewstep.training.place import Place
from fewstep.training.processes import Processes
from fewstep.training.roles import STUDENT, Role, student_of
from fewstep.training.run import Run
from fewstep.training.settings import Settings
from fewstep.training.sheets import MOST, SHEETS, Sheets, by_order
from fewstep.zoo import UNet, build

RESULT, FACTS = "model", "training.json"
FIRST_SEED = 0
"""Of the pictures of sheets: what `fewstep generate` begins with."""


class Regimen(NamedTuple):
    """How something is trained on data, whatever it is.

    Attributes:
        mirror: whether each picture is learned with left and right exchanged too.
    """

    method: Denoising
    settings: Settings
    place: Place
    mirror: bool


class Course(NamedTuple):
    """What is trained on what, checked.

    Attributes:
        origin: the files of the model; `anew`: its network has new weights.
        network: to be trained; `pictures`: the data in pixels.
    """

    origin: Path
    anew: bool
    regimen: Regimen
    folder: Path
    processes: Processes
    pipe: Pipeline
    network: Network
    pictures: Examples

    @staticmethod
    def of(origin: Path, anew: bool, source: Source, regimen: Regimen, folder: Path, processes: Processes) -> Course:
        """Load the model. Raises `InvalidInput` where anything does not fit."""
        pipe = opened(origin, regimen)
        network = learner(pipe, regimen.settings.seed if anew else None)
        pictures = pictures_of(source, pipe, regimen.mirror)
        check(regimen.method, pictures)
        regimen.method.plan(network)
        course = Course(origin, anew, regimen, folder, processes, pipe, network, pictures)
        course.roles()  # which refuses what cannot be trained
        return course

    def roles(self) -> dict[str, Role]:
        """The network that is trained, or a low-rank change of it."""
        adapter, seed = self.regimen.settings.adapter, self.regimen.settings.seed
        if adapter is None:
            return {STUDENT: Role(self.network)}
        return {STUDENT: student_of(self.network, adapter=adapter, seed=seed)[STUDENT]}

    def run(self, data: Examples) -> Run:
        """What is trained."""
        regimen, identity = self.regimen, {"model": self.pipe.model.digest, "anew": self.anew}
        return Run(regimen.method, self.roles(), data, regimen.settings, self.folder, identity, regimen.place)

    def forecast(self) -> Forecast:
        """What it needs, by trial steps on latents of noise, or on the first pictures."""
        seconds = seconds_of(self.pictures, self.processes)
        return forecast_of(self.run(blank(self.pictures)), self.processes, bytes_of(self.pictures), seconds)

    def examples(self, watch: Callable[[int, int], None]) -> Examples:
        """The data as the network meets them."""
        source, mirror = self.pictures.source, self.regimen.mirror
        return examples_of(source, self.pipe, self.folder, mirror, watch, self.processes)

    @property
    def recommended(self) -> dict[str, Any]:
        """The overlay that the trained model recommends."""
        plan = self.regimen.method.plan(self.network)
        return recommendation(plan, self.regimen.method, copies.recommended_by(self.origin))

    def sheets(self, data: Examples, every: int) -> Sheets:
        """Pictures of what some samples show, spread over the data, as the trained model draws if asked no more."""
        shown = min(MOST, data.count)
        subjects = [data.sample(number * data.count // shown)[1] for number in range(shown)]
        settings, model = self.regimen.settings, self.pipe.model
        batch = max(1, settings.batch // settings.accumulate // self.processes.count)
        order = self.pipe.order(
            subjects, seed=FIRST_SEED, sampling=self.recommended["sampling"], batch=min(batch, shown)
        )
        return Sheets(by_order(model, order), model.codec.value_range, self.folder / SHEETS, every)

    def finish(self, run: Run) -> tuple[Path, Path | None]:
        """Write the model of a run that is trained. Returns its path, and that of a LoRA that lies apart."""
        module, apart = run.roles[STUDENT].module.eval().requires_grad_(False), None
        if run.settings.adapter is not None:
            module, changes = merged(module)
            apart = copies.write_lora(self.folder, self.origin, changes)
        target = copies.target_of(self.folder, self.origin, RESULT)
        copies.write(target, self.origin, module, self.recommended, run.known_as, FACTS)
        return target, apart


def opened(origin: Path, regimen: Regimen) -> Pipeline:
    """The pipeline of a model, which may have no weights of its network yet."""
    if not is_bare(origin):
        return load(origin, device=regimen.place.here)
    return Pipeline(load_bare(origin, place_of(regimen.place.here), key_of(regimen.settings.seed, "weights")))


def learner(pipe: Pipeline, seed: int | None) -> Network:
    """The network of a pipeline to be trained, with new weights where a seed is given.

    Raises `InvalidInput` for a student of few steps, and for a network that is not a module.
    """
    model = pipe.model
    if model.teacher is not None:
        raise InvalidInput(
            f"{model.name} is a student of few steps, which training on data would undo: let it keep them "
            f"(--keep-steps, or fewstep.distillation.fine_tune), or train its teacher, {model.teacher.name}, and "
            "distil it again"
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
