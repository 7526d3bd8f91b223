"""Many images as one piece of work: what each is drawn from, which are drawn together, and what tells two jobs apart.

The batches of a job are fixed by its items and its batch size alone, never by what is already there. Sums over another
batch round differently, so a run that was interrupted draws the batches that are missing whole, and gets the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.pipeline.choices import given_texts
from fewstep.pipeline.conditioning import check_guidance
from fewstep.pipeline.draw import LostImages
from fewstep.pipeline.guidance import GivenScale, Guidance, given_scale
from fewstep.pipeline.images import Images
from fewstep.pipeline.pipeline import GUIDANCE, Pipeline
from fewstep.pipeline.recipe import MAX_BATCH, MAX_SIDE, SEED_LIMIT
from fewstep.pipeline.text import TextPipeline
from fewstep.pipeline.weaker import weaker_of

MAX_ITEMS = 1_000_000
"""Most images of one job."""
_BOTH = ("guidance_method", "guidance_options", "weak", "interval", "rescale")
SETTINGS = {
    TextPipeline: (*_BOTH, "clip_skip", "height", "width", "sliced", "tiled"),
    Pipeline: (*_BOTH, "clip", "dynamic_threshold"),
}
"""Arguments of the pipelines' calls that are one for all images of a job."""


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        subject: a prompt; or a label, None for no condition, where the model draws classes.
        negative: what is guided away from, of the same kind; None is the model's own empty condition.
        guidance: as pipelines take it; None is the model's usual one. A job keeps it as a number, or a tuple by row.
    """

    subject: str | int | None
    seed: int = 0
    negative: str | int | None = None
    guidance: GivenScale = None


@dataclass(frozen=True, eq=False)
class Job:
    """Images to draw, and how.

    Attributes:
        pipe: the model.
        items: the images; the place of one here is its index.
        plan: the sampler, for all of them.
        batch: images that the network sees at once; None is found by trying.
        settings: arguments of the pipeline's call, the same for all; which there are is in `SETTINGS`.
        scale: enlargement of a pixel in the files.

    Raises:
        InvalidInput: for what the pipeline would refuse in any of the items, before anything is drawn.
    """

    pipe: Pipeline | TextPipeline
    items: tuple[Item, ...]
    plan: Plan
    batch: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    scale: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.items) <= MAX_ITEMS:
            raise InvalidInput(f"a job has 1 to {MAX_ITEMS:,} images, got {len(self.items):,}")
        if self.batch is not None and (type(self.batch) is not int or not 1 <= self.batch <= MAX_BATCH):
            raise InvalidInput(f"batch must be a whole number from 1 to {MAX_BATCH}, or None, got {self.batch!r}")
        known = SETTINGS[type(self.pipe)]
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            raise InvalidInput(f"a job of {self.pipe.name} has no setting {unknown[0]!r}: known are {', '.join(known)}")
        weak = weaker_of(self.pipe, self.settings.get("weak"))
        object.__setattr__(self, "settings", {**self.settings, **({} if weak is None else {"weak": weak})})
        model = GUIDANCE if isinstance(self.pipe, Pipeline) else self.pipe.guidance
        method = self.settings.get("guidance_method", "cfg")
        given = {id(i.guidance): i.guidance for i in self.items}  # which many items share
        scales = {key: given_scale(scale, self.plan, method, model) for key, scale in given.items()}
        object.__setattr__(self, "items", tuple(replace(i, guidance=scales[id(i.guidance)]) for i in self.items))
        _check(self)

    def guidance(self, item: Item) -> Guidance:
        """How an image is guided, but for the negative condition."""
        names = {"guidance_method": "method", "guidance_options": "options", "dynamic_threshold": "threshold"}
        shared = ("interval", "rescale", "clip", "weak", *names)
        given = {names.get(name, name): self.settings[name] for name in shared if name in self.settings}
        return Guidance.given(item.guidance, self.plan, 1.0, **given)

    def batches(self) -> list[tuple[int, ...]]:
        """Indices of the images that are drawn together, in the order of drawing.

        Images with one guidance scale and one kind of negative condition go together: one call draws them.
        """
        if self.batch is None:
            raise InvalidInput("the batch size of the job is still to be found: give one")
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(self.items):
            alike = item.negative is None if isinstance(self.pipe, TextPipeline) else item.negative
            groups.setdefault((item.guidance, alike), []).append(index)
        size = self.batch
        return [tuple(own[i : i + size]) for own in groups.values() for i in range(0, len(own), size)]

    def identity(self) -> dict[str, Any]:
        """What decides the images, as plain JSON values; of the items, a digest."""
        settings = {name: self.settings.get(name) for name in SETTINGS[type(self.pipe)]}
        guidance = self.guidance(self.items[0]).to_json()
        settings["interval"] = guidance["interval"]
        settings |= {"guidance_method": guidance.get("method"), "guidance_options": guidance.get("options")}
        settings["weak"] = guidance.get("weak")
        settings |= {"dynamic_threshold": guidance.get("threshold")} if "dynamic_threshold" in settings else {}
        items = hashlib.sha256()
        for i in self.items:
            items.update(json.dumps([i.subject, i.seed, i.negative, i.guidance]).encode() + b"\n")
        return {
            "model": self.pipe.digest,
            "images": len(self.items),
            "prompts and seeds": items.hexdigest(),
            "sampler": self.plan.recipe.sampler,
            "plan": self.plan.digest,
            **settings,
            "dtype": str(self.pipe.dtype),
            "device": str(self.pipe.device).partition(":")[0],
            "scale": self.scale,
            "batch": self.batch,
        }

    def draw(self, indices: Sequence[int], plan: Plan | None = None) -> Images:
        """The images of one batch, those that are not finite too; `plan` in place of the job's own."""
        items = [self.items[i] for i in indices]
        first, seeds = items[0], [item.seed for item in items]
        given: dict[str, Any] = {"sampler": plan or self.plan, "guidance": first.guidance, "seed": seeds}
        given |= {**self.settings, "batch": len(items), "negative": first.negative}
        subjects: list[Any] = [item.subject for item in items]
        if isinstance(self.pipe, TextPipeline) and first.negative is not None:
            given["negative"] = [item.negative for item in items]
        try:
            return self.pipe(subjects, **given)
        except LostImages as error:
            return error.everything


def _check(job: Job) -> None:
    """Raise `InvalidInput` for items and settings that the pipeline refuses."""
    pipe, settings = job.pipe, job.settings
    for item in job.items:
        if type(item.seed) is not int or not 0 <= item.seed <= SEED_LIMIT:
            raise InvalidInput(f"a seed must be a whole number from 0 to 2**64 - 1, got {item.seed!r}")
    weak = settings.get("weak")
    alike = {item.guidance: job.guidance(item) for item in job.items}
    if isinstance(pipe, TextPipeline):
        for text in {text for item in job.items for text in (item.subject, item.negative)} - {None}:
            given_texts(text, "prompt")
        if any(item.subject is None for item in job.items):
            raise InvalidInput(f"{pipe.name} draws from prompts: an image without one cannot be drawn")
        height, width = settings.get("height"), settings.get("width")
        pipe.latent_shape(height, width)
        sides = [own if given is None else given for own, given in zip(pipe.size, (height, width), strict=True)]
        if max(sides) * job.scale > MAX_SIDE:
            raise InvalidInput(
                f"scale {job.scale} makes pictures of more than {MAX_SIDE} pixels a side: use a lower one"
            )
        pipe.encoder.check(settings.get("clip_skip"))
        for guidance in alike.values():
            check_guidance(pipe, guidance, plan=job.plan, weak=weak)
        return
    for scale, negative in dict.fromkeys((item.guidance, item.negative) for item in job.items):
        pipe._check(replace(alike[scale], negative=negative), job.plan, weak)
    for label, negative in dict.fromkeys((item.subject, item.negative) for item in job.items):
        if type(label) is str or type(negative) is str:
            raise InvalidInput(f"{pipe.name} draws classes, and {label or negative!r} is words: give labels")
        inside = {name: settings[name] for name in ("clip", "dynamic_threshold") if name in settings}
        pipe.denoiser([label], negative=negative, **inside)  # type: ignore[list-item, arg-type]
