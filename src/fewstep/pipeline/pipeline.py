"""A trained network with all that sampling from it needs, and the call that draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.project import clip, dynamic_threshold
from fewstep.denoise.scale import check_negative
from fewstep.pipeline.choices import check_model, chosen_plan, given_seeds
from fewstep.pipeline.decode import Decoder
from fewstep.pipeline.draw import Canvas, Counted, Means, OnRow, draw
from fewstep.pipeline.guidance import EVERYWHERE, METHODS, GivenScale, Guidance, Threshold
from fewstep.pipeline.identity import hint
from fewstep.pipeline.images import Images
from fewstep.pipeline.recipe import ImageRecipe, PlanSource
from fewstep.pipeline.steer import check_steering, module_of, steered
from fewstep.pipeline.tuned import resolved
from fewstep.pipeline.weaker import check_weaker, weaker_of

SAMPLER, STEPS, GRID, GUIDANCE, BATCH = "deis-3", 12, "quadratic", 2.0, 100
"""What is drawn with unless the caller says otherwise: in 6 to 16 steps nearest to the converged digits."""

Label = int | None


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A network, called as `network(x, t, label=label)`, and what its output means. Holds no state of a run.

    Attributes:
        name: for people, and for the names of files.
        digest: of the weights and what they mean.
        schedule: the noise schedule that it was trained with; `prediction` is what it was trained to predict.
        sample_shape: of one image, (C, H, W).
        classes: labels are 0 .. classes - 1; the network knows the null class as label `classes`. With none of them
            it is called as `network(x, t)`.
        value_range: least and greatest value of the data.
        dtype: what the network runs in, None for that of its parameters; `time_scale`: see `fewstep.Network`.
        decoder: of latents, where the network draws them; `sample_shape` is theirs then.
        plans: the folder of the tuned plans that come with the model, for `sampler="tuned"`.
        in_float32: finds the digest that the model has in float32, where it runs in another dtype.
        anonymous: the digest is of no use to another process, as nothing is known of the network.
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
    dtype: torch.dtype | None = None
    time_scale: float = 1.0
    decoder: Decoder | None = None
    plans: Path | None = None
    in_float32: Callable[[], str] | None = None
    anonymous: bool = False

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image: `sample_shape`, unless a decoder makes the images."""
        return self.sample_shape if self.decoder is None else self.decoder.pixels(self.sample_shape)

    @property
    def weights(self) -> str:
        """The digest that the model has in float32, by which tuned plans know it, whatever it runs in."""
        return self.digest if self.in_float32 is None else self.in_float32()

    def denoiser(
        self,
        labels: Sequence[Label] | int | None = None,
        *,
        guidance: GivenScale = None,
        guidance_method: str = "cfg",
        guidance_options: Mapping[str, Any] | None = None,
        weak: Pipeline | str | os.PathLike[str] | None = None,
        negative: Label = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip: bool = False,
        dynamic_threshold: Threshold | None = None,
        plan: Plan | None = None,
    ) -> Denoiser:
        """The denoiser of a batch with these labels, for `fewstep.sample`; for the arguments see `__call__`.

        `plan` is the one it will run, whose guidance by row it then follows; guidance by row or by a schedule needs it.
        """
        weaker = weaker_of(self, weak)
        settings = self._settings(
            plan,
            weaker,
            guidance,
            guidance_method,
            guidance_options,
            negative,
            interval,
            rescale,
            clip,
            dynamic_threshold,
        )
        return self._denoiser(self._labels(labels), settings, weaker, plan=plan)

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
        given = {"steps": steps, "grid": grid, "grid_options": grid_options, "times": times, "sigmas": sigmas}
        return chosen_plan(self.schedule, *resolved(self, sampler, {**given, "options": options}), STEPS, GRID)

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
        guidance: GivenScale = None,
        guidance_method: str = "cfg",
        guidance_options: Mapping[str, Any] | None = None,
        weak: Pipeline | str | os.PathLike[str] | None = None,
        negative: Label = None,
        interval: tuple[float, float] = EVERYWHERE,
        rescale: float = 0.0,
        clip: bool = False,
        dynamic_threshold: Threshold | None = None,
        seed: int | Sequence[int] = 0,
        batch: int = BATCH,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw one image for each label.

        Args:
            labels: 0 .. classes - 1 each, or None for no condition; without labels one image of each class, or one
                where the model has no classes.
            sampler: a name from `fewstep samplers`; or a plan, which then decides steps, grid and options too; or
                "tuned", the plan of `steps` evaluations that was tuned to this model and lies beside it.
            steps, grid, grid_options, times, sigmas: the time grid, as in `fewstep.compile`.
            options: of the sampler, such as `{"eta": 1}` for "ddim".
            guidance: the scale; 1 is the conditional model alone, at half the cost. None is 2, or the method's usual. A
                sequence is one weight for each row of the plan, its evaluations in order; a `GuidanceSchedule` follows
                the level.
            guidance_method, guidance_options, weak: as in `TextPipeline.__call__`. "pag" and "autoguidance" guide a
                model without classes, too.
            negative: the label to be guided away from; None is the null class.
            interval: (low, high) in sigma / alpha where guidance acts; `rescale`: of "cfg", see `Guided`.
            clip: clip the estimate of the data to its range at each evaluation.
            dynamic_threshold: clip it to its own percentile instead and divide by that, see
                `fewstep.dynamic_threshold`: the percentile, such as 0.995, or it and a maximum.
            seed: of the first image, the next ones counting up; or one for each image.
            batch: images that the network sees at once, 1 to 1024; it bounds the memory.
            on_row: called after each network evaluation of each batch; True cancels with `Cancelled`.

        Raises:
            InvalidInput: for unknown names, values out of range, a plan that does not fit, a method of guidance that
                the network or the sampler does not allow, and a negative label that would be ignored.
            LostImages: some images are not finite. The others are in it.
        """
        grids = {"steps": steps, "grid": grid, "grid_options": grid_options, "times": times, "sigmas": sigmas}
        plan = chosen_plan(self.schedule, *resolved(self, sampler, {**grids, "options": options}), STEPS, GRID)
        weaker = weaker_of(self, weak)
        settings = self._settings(
            plan,
            weaker,
            guidance,
            guidance_method,
            guidance_options,
            negative,
            interval,
            rescale,
            clip,
            dynamic_threshold,
        )
        recipe = ImageRecipe(
            model=self.name,
            model_digest=self.digest,
            plan=PlanSource.of(plan, self.schedule),
            labels=self._labels(labels),
            seed=given_seeds(seed),
            guidance=settings,
            batch=batch,
        )
        self._check(settings, plan, weaker)
        return self._draw(recipe, plan, Means(on_row, weak=weaker))

    def redraw(
        self,
        recipe: ImageRecipe,
        *,
        plan: Plan | None = None,
        weak: Pipeline | str | os.PathLike[str] | None = None,
        on_row: OnRow | None = None,
    ) -> Images:
        """Draw the images of a recipe again.

        Args:
            recipe: `fewstep.pipeline.read(path).recipe` of a PNG.
            plan: only needed for a plan too long to be kept in the picture.
            weak: the weaker model, for a recipe of autoguidance.

        Raises:
            InvalidInput: the recipe is for another model, or cannot be used.
        """
        check_model(recipe, self.name, self.digest, plan, hint(self))
        self._labels(recipe.labels)
        self._label(recipe.guidance.negative)
        weaker = weaker_of(self, weak)
        check_weaker(recipe.guidance, weaker)
        plan = plan or recipe.plan.compile(self.schedule)
        self._check(recipe.guidance, plan, weaker)
        return self._draw(recipe, plan, Means(on_row, weak=weaker))

    def _draw(self, recipe: ImageRecipe, plan: Plan, means: Means) -> Images:
        canvas = Canvas(
            shape=self.sample_shape,
            pixels=self.pixel_shape,
            value_range=self.value_range,
            denoiser=lambda counted, part: self._denoiser(
                recipe.labels[part], recipe.guidance, means.weak, counted, plan
            ),
            decode=self.decoder,
            device=self.device,
        )
        return draw(recipe, plan, canvas, means.on_row)

    def _settings(
        self,
        plan: Plan | None,
        weak: Pipeline | None,
        guidance: GivenScale,
        method: str,
        options: Mapping[str, Any] | None,
        negative: Label,
        interval: tuple[float, float],
        rescale: float,
        clip: bool,
        threshold: Threshold | None,
    ) -> Guidance:
        """The guidance that a caller chose; a scale of None is the method's usual one, or this module's."""
        more = {"negative": self._label(negative), "interval": interval, "rescale": rescale, "clip": clip}
        return Guidance.given(
            guidance, plan, GUIDANCE, threshold=threshold, method=method, options=options, weak=weak, **more
        )

    def _check(self, settings: Guidance, plan: Plan | None = None, weak: Pipeline | None = None) -> None:
        """Raise `InvalidInput` where the network or the plan cannot be guided so, and for an idle negative label."""
        if settings.negative is not None:
            if settings.method == "autoguidance":
                raise InvalidInput(
                    "a negative label cannot act in autoguidance, which moves away from the weaker model: leave it out"
                )
            if not settings.uses_negative:
                check_negative(settings.scale)
        alone = settings
        if self.classes == 0:
            self._check_unconditional(settings)
            alone = replace(settings, scale=1.0) if settings.method == "pag" else settings
        weaker = None if weak is None else weak._network()
        check_steering(alone, self._network(), plan, weaker=weaker, module=module_of(self.network))

    def _check_unconditional(self, settings: Guidance) -> None:
        """Raise `InvalidInput` where a model without classes is asked for guidance by its condition."""
        usual = settings.scale in (1, GUIDANCE)
        alone = {"cfg": usual and not settings.rescale and settings.interval == EVERYWHERE, "pag": usual}
        if not alone.get(settings.method, settings.method == "autoguidance"):
            raise InvalidInput(
                f"{self.name} takes no condition, so there is nothing to guide: leave guidance out, or use "
                'guidance_method="pag" or "autoguidance"'
            )

    def _network(self, counted: Counted = lambda network: network) -> Network:
        scale = self.time_scale
        return Network(counted(self.network), self.schedule, self.prediction, dtype=self.dtype, time_scale=scale)

    def _denoiser(
        self,
        labels: Sequence[Label],
        settings: Guidance,
        weak: Pipeline | None,
        counted: Counted = lambda network: network,
        plan: Plan | None = None,
    ) -> Denoiser:
        if self.decoder is not None and (settings.clip or settings.threshold is not None):
            what = "clip" if settings.clip else "dynamic_threshold"
            raise InvalidInput(
                f"{what} is for pixels, and this model draws latents, which have no range: leave it out, or use "
                'rescale or guidance_method="apg" against colours that are too strong'
            )
        guided = self._guided(labels, settings, weak, counted, plan)
        low, high = self.value_range
        if settings.threshold is not None:
            return dynamic_threshold(guided, *settings.threshold, low=low, high=high)
        return clip(guided, low, high) if settings.clip else guided

    def _guided(
        self,
        labels: Sequence[Label],
        settings: Guidance,
        weak: Pipeline | None,
        counted: Counted,
        plan: Plan | None,
    ) -> Denoiser:
        network, module = self._network(counted), module_of(self.network)
        weaker = None if weak is None else weak._network(counted)
        if self.classes == 0:
            self._check_unconditional(settings)
            if settings.method == "cfg":
                return network
            return steered(settings, network, {}, None, weaker=weaker, module=module)

        def known(label: Label) -> int:
            return self.classes if label is None else label

        own = torch.tensor([known(label) for label in labels], device=self.device)
        other = torch.full_like(own, known(settings.negative))
        idle = METHODS[settings.method].idle
        same = settings.uses_negative  # a label guided away from itself is the conditional model's
        acting = settings.weight
        scales = [idle if same and label == settings.negative else acting for label in labels]
        return steered(
            settings,
            network,
            {"label": own},
            {"label": other} if settings.method != "pag" or any(scale != 1 for scale in scales) else None,
            scale=scales if len(set(scales)) > 1 else scales[0],
            weaker=None if weaker is None else weaker.given({"label": own}),
            module=module,
            plan=plan,
        )

    def _labels(self, labels: Sequence[Label] | int | None) -> tuple[Label, ...]:
        if labels is None:
            return tuple(range(self.classes)) or (None,)
        several = [labels] if isinstance(labels, int) else labels.tolist() if hasattr(labels, "tolist") else labels  # type: ignore[union-attr]
        if not several:
            raise InvalidInput("labels are empty: give at least one, or None for one of each class")
        return tuple(self._label(label) for label in several)

    def _label(self, label: Any) -> Label:
        if label is None or (type(label) is int and 0 <= label < self.classes):
            return label
        known = f"known are 0 to {self.classes - 1}, and None" if self.classes else "known is None"
        raise InvalidInput(f"{self.name} has no label {label!r}: {known} for no condition")
