"""A trained network with all that sampling from it needs, and the call that draws."""

from __future__ import annotations

import math
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep import zoo
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guidance import Guided
from fewstep.denoise.project import clip
from fewstep.denoise.scale import check_negative
from fewstep.pipeline.images import Images
from fewstep.pipeline.recipe import MAX_NFE, Guidance, ImageRecipe, PlanSource, compiled
from fewstep.run.eager import Cancelled, NonFinite, Progress, sample
from fewstep.run.noise import seeds_of

SAMPLER, STEPS, GRID, GUIDANCE, BATCH = "deis-3", 12, "quadratic", 2.0, 100
"""What is drawn with unless the caller says otherwise: in 6 to 16 steps nearest to the converged digits."""
MAX_BYTES = 4 << 30
EVERYWHERE = (0.0, math.inf)

Label = int | None
OnRow = Callable[[Progress], bool | None]


class LostImages(NonFinite):
    """Some images are NaN or infinite. `everything` holds all of them, `finished` the good ones, or None for none."""

    def __init__(self, message: str, first: NonFinite, images: list[int], everything: Images, finished: Images | None):
        super().__init__(message, first.row, first.label, images, everything.tensor)
        self.everything, self.finished = everything, finished


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A network, called as `network(x, t, label=label)`, and what its output means. Holds no state of a run.

    Attributes:
        name: for people, and for the names of files.
        digest: of the weights and what they mean.
        schedule: the noise schedule that it was trained with; `prediction` is what it was trained to predict.
        sample_shape: of one image, (C, H, W).
        classes: labels are 0 .. classes - 1; the network knows the null class as label `classes`.
        value_range: least and greatest value of the data.
    """

    network: Callable[..., Any]
    name: str
    digest: str
    schedule: Schedule
    prediction: str
    sample_shape: tuple[int, ...]
    classes: int
    value_range: tuple[float, float] = (-1.0, 1.0)
    device: torch.device | str = "cpu"

    def denoiser(
        self,
        labels: Sequence[Label] | int | None = None,
        *,
        guidance: float = GUIDANCE,
        negative: Label = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip: bool = False,
    ) -> Denoiser:
        """The denoiser of a batch with these labels, for `fewstep.sample`; for the arguments see `__call__`."""
        settings = Guidance(guidance, self._label(negative), interval, rescale, clip)
        return self._denoiser(self.network, self._labels(labels), settings)

    def plan(
        self,
        sampler: str = SAMPLER,
        *,
        steps: int | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        times: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Plan:
        """`fewstep.compile` for this model's schedule, with this module's defaults."""
        where: dict[str, Any] = {"grid_options": grid_options}
        if times is None and sigmas is None:
            where |= {"steps": STEPS if steps is None else steps, "grid": grid or GRID}
        elif grid is None:
            where |= {"steps": steps, "times": times, "sigmas": sigmas}
        else:
            raise InvalidInput(f"the grid is given by its times or sigmas: leave out grid {grid!r}")
        return compiled(sampler, self.schedule, options or {}, **where)

    def __call__(
        self,
        labels: Sequence[Label] | int | None = None,
        *,
        sampler: str | Plan = SAMPLER,
        steps: int | None = None,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        times: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance: float = GUIDANCE,
        negative: Label = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip: bool = False,
        seed: int | Sequence[int] = 0,
        batch: int = BATCH,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw one image for each label.

        Args:
            labels: 0 .. classes - 1 each, or None for no condition; without labels one image of each class.
            sampler: a name from `fewstep samplers`, or a plan, which then decides steps, grid and options too.
            steps, grid, grid_options, times, sigmas: the time grid, as in `fewstep.compile`.
            options: of the sampler, such as `{"eta": 1}` for "ddim".
            guidance: scale of classifier-free guidance; 1 is the conditional model alone, at half the cost.
            negative: the label to be guided away from; None is the null class.
            interval: (low, high) in sigma / alpha where guidance acts; `rescale`: see `Guided`.
            clip: clip the estimate of the data to its range at each evaluation.
            seed: of the first image, the next ones counting up; or one for each image.
            batch: images that the network sees at once, 1 to 1024; it bounds the memory.
            on_row: called after each network evaluation of each batch; True cancels with `Cancelled`.

        Raises:
            InvalidInput: for unknown names, values out of range, a plan that does not fit, and a negative label that
                guidance 1 would ignore.
            LostImages: some images are not finite. The others are in it.
        """
        grids = {"steps": steps, "grid": grid, "grid_options": grid_options, "times": times, "sigmas": sigmas}
        given: dict[str, Any] = {**grids, "options": options}
        if isinstance(sampler, Plan):
            twice = [name for name, value in given.items() if value is not None]
            if twice:
                raise InvalidInput(f"the plan already decides {', '.join(twice)}: leave them out, or name a sampler")
            plan = sampler
        else:
            plan = self.plan(sampler, **given)
        recipe = ImageRecipe(
            model=self.name,
            model_digest=self.digest,
            plan=PlanSource.of(plan, self.schedule),
            labels=self._labels(labels),
            seed=_seeds(seed),
            guidance=Guidance(guidance, self._label(negative), interval, rescale, clip),
            batch=batch,
        )
        if negative is not None:
            check_negative(guidance)
        return self._draw(recipe, plan, on_row)

    def redraw(self, recipe: ImageRecipe, *, plan: Plan | None = None, on_row: OnRow | None = None) -> Images:
        """Draw the images of a recipe again.

        Args:
            recipe: `fewstep.pipeline.read(path).recipe` of a PNG.
            plan: only needed for a plan too long to be kept in the picture.

        Raises:
            InvalidInput: the recipe is for another model, or cannot be used.
        """
        if recipe.model_digest != self.digest:
            raise InvalidInput(
                f"the picture was drawn by the model {recipe.model!r} with digest {recipe.model_digest}, this is "
                f"{self.name!r} with digest {self.digest}: give the model that drew it"
            )
        if plan is not None and plan.digest != recipe.plan.digest:
            raise InvalidInput(
                f"the picture was drawn with the plan {recipe.plan.digest}, the given one is {plan.digest}"
            )
        self._labels(recipe.labels)
        self._label(recipe.guidance.negative)
        return self._draw(recipe, plan or recipe.plan.compile(self.schedule), on_row)

    def _draw(self, recipe: ImageRecipe, plan: Plan, on_row: OnRow | None) -> Images:
        n, kept, size = len(recipe.labels), recipe.kept, recipe.batch
        if plan.nfe > MAX_NFE:
            raise InvalidInput(
                f"the plan has {plan.nfe} network evaluations, at most {MAX_NFE} are drawn: use fewer steps"
            )
        if n * math.prod(self.sample_shape) * 4 > MAX_BYTES:
            raise InvalidInput(
                f"{n} images of {self.sample_shape} take more than {MAX_BYTES >> 30} GiB: draw fewer at once"
            )
        seeds = seeds_of(recipe.seed, n)
        starts = [first for first in range(0, n, size) if any(first <= i < first + size for i in kept)]
        began, evaluations, drawn = time.perf_counter(), 0, 0
        result = torch.full((n, *self.sample_shape), torch.nan)
        lost: set[int] = set()
        error: NonFinite | None = None
        for turn, first in enumerate(starts):
            run = _Run(self.network, on_row, turn * plan.nfe, len(starts) * plan.nfe)
            labels, part = recipe.labels[first : first + size], slice(first, min(first + size, n))
            denoiser = self._denoiser(run.network, labels, recipe.guidance)
            shape = (len(labels), *self.sample_shape)
            try:
                states = sample(plan, denoiser, shape=shape, seed=seeds[part], device=self.device, on_row=run.on_row)
            except NonFinite as failure:
                error, states = error or failure, failure.result
                lost |= {first + i for i in failure.images}
            except Cancelled as cancelled:
                raise Cancelled(run.offset + cancelled.row, run.rows, cancelled.preview) from None
            result[part] = states.to("cpu", torch.float32)
            evaluations, drawn = evaluations + run.evaluations, drawn + len(labels)
        seconds, nfe = time.perf_counter() - began, evaluations / drawn
        images = Images(result[list(kept)], self.value_range, recipe, nfe, seconds)
        if error is None or not lost & set(kept):
            return images
        bad = [place for place, i in enumerate(kept) if i in lost]
        good = [place for place, i in enumerate(kept) if i not in lost]
        place = "at the start" if error.row is None else f"at row {error.row} of {plan.nfe} ({error.label})"
        raise LostImages(
            f"{len(bad)} of {len(kept)} images are NaN or infinite, first {place}. Try a lower guidance "
            "scale, clip, or another sampler; where all are lost, the weights or the prediction type may be wrong",
            error,
            bad,
            images,
            images.take(good) if good else None,
        ) from error

    def _denoiser(self, network: Callable[..., Any], labels: Sequence[Label], settings: Guidance) -> Denoiser:
        def known(label: Label) -> int:
            return self.classes if label is None else label

        own = torch.tensor([known(label) for label in labels], device=self.device)
        other = torch.full_like(own, known(settings.negative))
        scales = [1.0 if label == settings.negative else settings.scale for label in labels]
        guided = Guided(
            Network(network, self.schedule, self.prediction),
            {"label": own},
            {"label": other},
            scales if len(set(scales)) > 1 else scales[0],
            interval=settings.interval,
            rescale=settings.rescale,
        )
        return clip(guided, *self.value_range) if settings.clip else guided

    def _labels(self, labels: Sequence[Label] | int | None) -> tuple[Label, ...]:
        if labels is None:
            return tuple(range(self.classes))
        several = [labels] if isinstance(labels, int) else labels.tolist() if hasattr(labels, "tolist") else labels  # type: ignore[union-attr]
        if not several:
            raise InvalidInput("labels are empty: give at least one, or None for one of each class")
        return tuple(self._label(label) for label in several)

    def _label(self, label: Any) -> Label:
        if label is None or (type(label) is int and 0 <= label < self.classes):
            return label
        raise InvalidInput(
            f"{self.name} has no label {label!r}: known are 0 to {self.classes - 1}, and None for no condition"
        )


def _seeds(seed: Any) -> int | tuple[int, ...]:
    try:
        return operator.index(seed) if not hasattr(seed, "__len__") else tuple(operator.index(s) for s in seed)
    except TypeError as error:
        raise InvalidInput(f"a seed must be a whole number, or one for each image, got {seed!r}") from error


class _Run:
    """Counts the network's evaluations in one batch, and reports rows over all batches."""

    def __init__(self, network: Callable[..., Any], on_row: OnRow | None, offset: int, rows: int):
        self.inner, self.report, self.offset, self.rows = network, on_row, offset, rows
        self.seen = self.evaluations = 0

    def network(self, x: Tensor, t: Tensor, **condition: Any) -> Any:
        self.seen += x.shape[0]
        return self.inner(x, t, **condition)

    def on_row(self, progress: Progress) -> bool | None:
        self.evaluations = self.seen  # not read at the end: a failed run is repeated to find the row
        if self.report is None:
            return None
        return self.report(replace(progress, index=self.offset + progress.index, rows=self.rows))


def load(source: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Pipeline:
    """The pipeline of a model.

    Args:
        source: the name of a shipped model ("digits"), or the path of a .safetensors file that fewstep trained.
        device: where the network runs.

    Raises:
        FileNotFoundError: there is no file at the path.
        InvalidInput: for an unknown name, and for a file that is damaged or not of fewstep.
    """
    path = Path(source)
    if isinstance(source, str) and source in zoo.SHIPPED:
        loaded, name = zoo.load_shipped(source), source
    elif path.suffix == ".safetensors" or path.exists():
        loaded, name = zoo.load(path), "".join(filter(str.isprintable, path.stem))[:100]
    else:
        error = unknown_name("model", str(source), zoo.SHIPPED)
        raise InvalidInput(f"{error}; or give the path of a .safetensors file that `fewstep train` wrote")
    spec = loaded.spec
    return Pipeline(
        network=loaded.network.to(device),
        name=name,
        digest=loaded.digest,
        schedule=spec.schedule,
        prediction=spec.prediction,
        sample_shape=spec.sample_shape,
        classes=spec.classes,
        value_range=spec.value_range,
        device=device,
    )
