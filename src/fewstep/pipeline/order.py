"""An order: a complete drawing, and what travels beside it.

The arguments of a call become an overlay. It is laid over what the model recommends, completed, and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.scale import GuidanceSchedule
from fewstep.drawing import Drawing, Sampling, merged
from fewstep.drawing.made import MAX_BATCH
from fewstep.drawing.overlay import Overlay
from fewstep.models import Model, learned_plans, preset_for, weaker_of, with_tuned_plan
from fewstep.models.defaults import on_schedule
from fewstep.run.eager import Progress

SAMPLING = ("sampler", "steps", "grid")
FIELDS = ("negative", "height", "width", "seed", "count", "clip_skip")
PARTS = ("sampling", "guidance", "estimate", "decode")
RUN = ("batch", "overlap", "on_row")
KNOWN = (*SAMPLING, *FIELDS, *PARTS, *RUN, "preset", "weak")
"""The arguments of a call, beside what to draw."""

OnRow = Callable[[Progress], bool | None]


@dataclass(frozen=True, eq=False)
class Run:
    """How to draw, as far as that is not part of the drawing.

    Attributes:
        batch: images that the network sees at once, 1 to 1024; it bounds the memory.
        overlap: decode a batch while the next one is denoised; it holds the memory of both.
        on_row: called after each network evaluation of each batch; True cancels with `Cancelled`.
    """

    batch: int
    overlap: bool = False
    on_row: OnRow | None = None

    def __post_init__(self) -> None:
        if type(self.batch) is not int or not 1 <= self.batch <= MAX_BATCH:
            raise InvalidInput(f"batch must be a whole number from 1 to {MAX_BATCH}, got {self.batch!r}")


@dataclass(frozen=True, eq=False)
class Origin:
    """What images come from beside noise.

    Attributes:
        latents: (1, c, h, w), brought to the noise level of the plan's entry; `states`: (1, ..) or one for each
            image, taken as they are.
        known: latents and mask, (1, 1, h, w), for ordinary networks that inpaint: 1 where the network decides.
        channels: input channels of the network beside the state, (1, c, h, w).
        pasted: mask (1, 1, H, W) and picture (1, C, H, W), whose pixels are kept where the mask is 0.
        seconds: that the stages which made these took, by name.
    """

    latents: Tensor | None = None
    states: tuple[Tensor, ...] = ()
    known: tuple[Tensor, Tensor] | None = None
    channels: Tensor | None = None
    pasted: tuple[Tensor, Tensor] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def of(self, part: slice) -> Origin:
        """Of some of the images, where each has states of its own."""
        several = any(len(state) > 1 for state in self.states)
        return replace(self, states=tuple(state[part] for state in self.states)) if several else self

    def paste(self, pictures: Tensor) -> Tensor:
        """Pictures (B, C, H, W) with the pixels that are kept."""
        if self.pasted is None:
            return pictures
        mask, pixels = self.pasted
        return torch.where(mask > 0, pictures, pixels)


NOISE_ALONE = Origin()


@dataclass(frozen=True, eq=False)
class Order:
    """A drawing with its plan, the run, the weaker model, and what images come from beside noise."""

    drawing: Drawing
    plan: Plan
    run: Run
    weaker: Model | None = None
    origin: Origin = NOISE_ALONE


PlanOf = Callable[[Model, Sampling, tuple[int, int]], Plan]


def compiled(model: Model, sampling: Sampling, size: tuple[int, int]) -> Plan:
    """The plan of a sampling for images of a size, (height, width) in pixels."""
    return _compiled(sampling, model.schedule_at(*size))  # type: ignore[arg-type]  # frozen values have a hash


@lru_cache(maxsize=64)
def _compiled(sampling: Sampling, schedule: Schedule) -> Plan:
    """Kept, as plans hold no state and many calls ask for the same one."""
    return sampling.compile(schedule)


def ordered(
    model: Model,
    subjects: Any,
    call: Mapping[str, Any],
    usual: Overlay | None = None,
    plan_of: PlanOf = compiled,
) -> Order:
    """The order of a call.

    Args:
        subjects: prompts or labels, one or several; None is one of each class.
        call: some of `KNOWN`, by name; None counts as not given.
        usual: an overlay over what the model recommends, below the call.
        plan_of: makes the plan of a complete sampling.

    Raises:
        InvalidInput: for unknown names, values out of range, and what the model cannot do.
    """
    for name in call:
        if name not in KNOWN:
            raise unknown_name("argument", name, KNOWN)
    said = {name: value for name, value in call.items() if value is not None}
    wanted = preset_for(model, said["preset"]) if "preset" in said else {}
    asked = with_tuned_plan(model, merged(wanted, overlay_of(said)))
    whole = merged(model.recommended, on_schedule(usual or {}, model.schedule.kind), asked)
    run = whole.pop("run", {})
    weaker = weaker_of(model, said.get("weak"))
    whole["height"] = whole.get("height", model.sizes.height)
    whole["width"] = whole.get("width", model.sizes.width)
    model.sizes.check(model.name, whole["height"], whole["width"])
    whole["sampling"] = Sampling.of(sampled(model, whole["sampling"]))
    plan = plan_of(model, whole["sampling"], (whole["height"], whole["width"]))
    scale = lowered(whole["guidance"].get("scale"), plan)
    whole["guidance"] = {**whole["guidance"], "scale": scale, "weaker": None if weaker is None else weaker.digest}
    whole["lora"] = model.lora
    whole[model.conditioner.field] = _several(model, subjects)
    if isinstance(whole.get("negative"), str | int):
        whole["negative"] = (whole["negative"],)
    return Order(Drawing.of(whole), plan, Run(**{"batch": model.batch, **run}), weaker)


def sampled(model: Model, sampling: Overlay) -> Overlay:
    """A sampling, completed where the model recommends a plan of its own, and so no sampler or grid to fall back on.

    Raises `InvalidInput` for a grid without a sampler, and for steps without one of which the model has no plan.
    """
    if "plan" not in model.recommended.get("sampling", {}) or "plan" in sampling:
        return sampling
    if "sampler" in sampling:
        usual = on_schedule({"sampling": {"grid": "trailing"}}, model.schedule.kind)["sampling"]
        return {**usual, **sampling} if "steps" in sampling else sampling
    plans = learned_plans(model)
    if set(sampling) == {"steps"} and sampling["steps"] in plans:
        return {"plan": plans[sampling["steps"]]}
    own = f" of {' or '.join(map(str, plans))} steps" if len(plans) > 1 else ""
    raise InvalidInput(
        f"{model.name} draws by a plan of its own{own}, which decides {' and '.join(sorted(sampling))}: leave that "
        "out, or name a sampler too, such as ddim"
    )


def overlay_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as an overlay, with the part `run`."""
    parts: dict[str, Any] = {name: _part(name, call[name]) for name in PARTS if name in call}
    flat = {name: call[name] for name in SAMPLING if name in call}
    if isinstance(flat.get("sampler"), Plan):
        flat["plan"] = flat.pop("sampler")
    sampling = {**parts.pop("sampling", {}), **flat}
    run = {name: call[name] for name in RUN if name in call}
    fields = {name: call[name] for name in FIELDS if name in call}
    return {**fields, **parts, **({"sampling": sampling} if sampling else {}), **({"run": run} if run else {})}


def lowered(scale: Any, plan: Plan) -> Any:
    """A scale as data: what follows the noise level becomes one weight for each row of the plan."""
    if isinstance(scale, GuidanceSchedule):
        return tuple(scale.over(plan))
    if callable(scale):
        return tuple(GuidanceSchedule(cast(Callable[[float], float], scale)).over(plan))
    return scale.tolist() if hasattr(scale, "tolist") else scale


def _several(model: Model, subjects: Any) -> Any:
    if subjects is None:
        return model.conditioner.subjects
    if isinstance(subjects, str | int):
        return (subjects,)
    if isinstance(subjects, Sequence) and not len(subjects):
        raise InvalidInput(f"there are no {model.conditioner.field}: give at least one")
    return subjects


def _part(name: str, value: Any) -> Any:
    """A part of a drawing as a mapping; guidance may be its scale alone."""
    if isinstance(value, Mapping):
        return {str(field): inner for field, inner in value.items()}
    if hasattr(value, "model_fields_set"):
        return {field: inner for field, inner in value if inner is not None}
    if name == "guidance":
        return {"scale": value}
    raise InvalidInput(
        f"{name} is a mapping of its fields, or a value such as fewstep.{name.title()}, got {value!r:.80}"
    )
