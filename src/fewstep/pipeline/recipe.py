"""What a picture was drawn from, as data: enough to draw the same pixels again.

A recipe holds no plan but what the plan was compiled from, and the plan's digest. Only a plan that cannot be compiled
again from its own recipe, such as one that was fitted to a model, is held as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.pipeline.fields import Fields, shown
from fewstep.pipeline.guidance import Guidance
from fewstep.solvers.compile import compile as compile_plan

MAX_IMAGES, MAX_BATCH, MAX_STEPS, MAX_NFE = 10_000, 1024, 10_000, 100_000
MAX_TABLE_CHARACTERS = 1 << 20
SEED_LIMIT = 2**64 - 1
MAX_TEXT, MAX_SIDE = 500_000, 16_384


def compiled(sampler: str, schedule: Schedule, options: Mapping[str, Any], **grid: Any) -> Plan:
    """`fewstep.compile`, where options that would be arguments of its own are bad input too."""
    taken = sorted({"schedule", "reverse", *grid} & set(options))
    if taken:
        raise InvalidInput(
            f"{taken[0]!r} is no option of {sampler}, but an argument of its own: move it out of options"
        )
    return compile_plan(sampler, schedule=schedule, **grid, **options)


@dataclass(frozen=True)
class PlanSource:
    """What a plan was compiled from, and its digest.

    Attributes:
        times: the grid itself where it was given and not made by name, else None; `grid` is then "times".
        table: the JSON of the whole plan, where compiling does not give it again.
        kept: False where such a table was too long to keep; the plan is then needed to draw again.
    """

    sampler: str
    options: Mapping[str, Any]
    steps: int
    grid: str
    grid_options: Mapping[str, Any]
    times: tuple[float, ...] | None
    digest: str
    table: str | None = None
    kept: bool = True

    @staticmethod
    def of(plan: Plan, schedule: Schedule) -> PlanSource:
        """The source of `plan`, tried out: it holds the table unless compiling gives the plan again."""
        recipe = plan.recipe
        source = PlanSource(
            sampler=recipe.sampler,
            options=dict(recipe.options),
            steps=plan.steps,
            grid=recipe.grid,
            grid_options=dict(recipe.grid_options),
            times=None if recipe.grid in GRIDS else recipe.times,
            digest=plan.digest,
        )
        try:
            if source.compile(schedule) == plan:
                return source
        except InvalidInput:
            pass
        table = plan.to_json()
        kept = len(table) <= MAX_TABLE_CHARACTERS
        return PlanSource(**{**vars(source), "table": table if kept else None, "kept": kept})

    def compile(self, schedule: Schedule) -> Plan:
        """The plan. It may differ from `digest` in the last bits on another machine or version."""
        if self.table is not None:
            return Plan.from_json(self.table)
        if not self.kept:
            raise InvalidInput(
                f"the plan {self.digest} was too long to be kept with the picture: give its file with it"
            )
        grid = {"steps": self.steps, "grid": self.grid, "grid_options": self.grid_options}
        where: dict[str, Any] = grid if self.times is None else {"times": self.times}
        return compiled(self.sampler, schedule, self.options, **where)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **vars(self),
            "options": dict(self.options),
            "grid_options": dict(self.grid_options),
            "times": self.times and list(self.times),
            "table": self.table and json.loads(self.table),
        }

    @staticmethod
    def from_json(value: Any) -> PlanSource:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        fields = Fields(value, "the recipe's plan", PlanSource.__dataclass_fields__)
        times = fields.optional("times", fields.numbers, 2, MAX_STEPS + 1)
        return PlanSource(
            sampler=fields.text("sampler"),
            options=fields.options("options"),
            steps=fields.whole("steps", 1, MAX_STEPS),
            grid=fields.text("grid"),
            grid_options=fields.options("grid_options"),
            times=None if times is None else tuple(times),
            digest=fields.digest("digest"),
            table=value["table"] and json.dumps(value["table"]),
            kept=fields.flag("kept"),
        )


@dataclass(frozen=True)
class ImageRecipe:
    """What images were drawn from.

    Attributes:
        model: name of the model, for people: a shipped name or the stem of its file.
        model_digest: over its weights and what they mean; a recipe is for this very model.
        labels: one for each image that was asked for; None is the null class.
        seed: of the first image, the next ones counting up; or one for each.
        batch: how many images the network saw at once, because sums over other sizes round differently.
        keep: indices of the images that are there, where not all are.
    """

    model: str
    model_digest: str
    plan: PlanSource
    labels: tuple[int | None, ...]
    seed: int | tuple[int, ...]
    guidance: Guidance
    batch: int
    keep: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not 1 <= n <= MAX_IMAGES:
            raise InvalidInput(f"a drawing has 1 to {MAX_IMAGES} images, got {n}")
        seeds = (self.seed,) if isinstance(self.seed, int) else self.seed
        if not isinstance(self.seed, int) and len(seeds) != n:
            raise InvalidInput(f"give one seed, or one for each of the {n} images, got {len(seeds)}")
        if not all(type(seed) is int and 0 <= seed <= SEED_LIMIT for seed in seeds):
            raise InvalidInput(f"a seed must be a whole number from 0 to 2**64 - 1, got {shown(self.seed)}")
        if not isinstance(self.batch, int) or not 1 <= self.batch <= MAX_BATCH:
            raise InvalidInput(f"batch must be a whole number from 1 to {MAX_BATCH}, got {self.batch!r}")
        if self.keep is not None and not (self.keep and all(0 <= i < n for i in self.keep)):
            raise InvalidInput(f"keep must name some of the images 0 .. {n - 1}, got {shown(self.keep)}")

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name the recipe."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the images that are there."""
        return tuple(range(len(self.labels))) if self.keep is None else self.keep

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": self.model,
            "model_digest": self.model_digest,
            "plan": self.plan.to_json(),
            "labels": list(self.labels),
            "seed": self.seed if isinstance(self.seed, int) else list(self.seed),
            "guidance": self.guidance.to_json(),
            "batch": self.batch,
            "keep": self.keep and list(self.keep),
        }

    @staticmethod
    def from_json(value: Any) -> ImageRecipe:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        fields = Fields(value, "the recipe", ImageRecipe.__dataclass_fields__)
        return ImageRecipe(**_shared(fields))


@dataclass(frozen=True)
class PromptRecipe(ImageRecipe):
    """What images of a text-to-image model were drawn from; their labels are all None.

    Attributes:
        prompts: one for each image.
        negatives: one for each image, or one for all; None is the model's own empty condition.
        height, width: of the images, in pixels.
        clip_skip: layers of CLIP that were left out, or None.
        sliced, tiled: how the latents were decoded.
    """

    prompts: tuple[str, ...] = ()
    negatives: tuple[str | None, ...] = (None,)
    height: int = 0
    width: int = 0
    clip_skip: int | None = None
    sliced: bool = False
    tiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.labels)
        if len(self.prompts) != n or len(self.negatives) not in (1, n):
            raise InvalidInput(
                f"{n} images need a prompt each, and one negative prompt or one each, got {len(self.prompts)} and "
                f"{len(self.negatives)}"
            )
        if sum(map(len, self.prompts)) + sum(len(text or "") for text in self.negatives) > MAX_TEXT:
            raise InvalidInput(f"the prompts of one drawing have more than {MAX_TEXT:,} characters: draw fewer at once")

    def negative(self, index: int) -> str | None:
        """The negative prompt of image `index`."""
        return self.negatives[index % len(self.negatives)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        own = [name for name in PromptRecipe.__dataclass_fields__ if name not in ImageRecipe.__dataclass_fields__]
        more = {name: getattr(self, name) for name in own}
        return {**super().to_json(), **more, "prompts": list(self.prompts), "negatives": list(self.negatives)}

    @staticmethod
    def from_json(value: Any) -> PromptRecipe:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        fields = Fields(value, "the recipe", PromptRecipe.__dataclass_fields__)
        shared = _shared(fields)
        n, negatives = len(shared["labels"]), value["negatives"]
        if not isinstance(negatives, list):
            raise fields.refuse("negatives", "a list of texts or nulls")
        texts = Fields({"negatives": ["" if v is None else v for v in negatives]}, "the recipe", ("negatives",))
        texts.texts("negatives", 1, n, MAX_TEXT)
        return PromptRecipe(
            **shared,
            prompts=tuple(fields.texts("prompts", n, n, MAX_TEXT)),
            negatives=tuple(negatives),
            height=fields.whole("height", 1, MAX_SIDE),
            width=fields.whole("width", 1, MAX_SIDE),
            clip_skip=fields.optional("clip_skip", fields.whole, 1, 100),
            sliced=fields.flag("sliced"),
            tiled=fields.flag("tiled"),
        )


def recipe_from_json(value: Any) -> ImageRecipe:
    """The recipe that `to_json` of either kind wrote. Raises `InvalidInput`, naming the field."""
    kind = PromptRecipe if isinstance(value, dict) and "prompts" in value else ImageRecipe
    return kind.from_json(value)


def _shared(fields: Fields) -> dict[str, Any]:
    """The fields that every recipe has."""
    value = fields.value
    labels = value["labels"]
    if not isinstance(labels, list) or not 1 <= len(labels) <= MAX_IMAGES:
        raise fields.refuse("labels", f"a list of 1 to {MAX_IMAGES} labels")
    if not all(label is None or (type(label) is int and 0 <= label < 10**6) for label in labels):
        raise fields.refuse("labels", "whole numbers from 0, or null")
    several = isinstance(value["seed"], list)
    keep = fields.optional("keep", fields.wholes, 0, len(labels) - 1, len(labels))
    seeds = tuple(fields.wholes("seed", 0, SEED_LIMIT, MAX_IMAGES)) if several else fields.whole("seed", 0, SEED_LIMIT)
    return {
        "model": fields.text("model"),
        "model_digest": fields.digest("model_digest"),
        "plan": PlanSource.from_json(value["plan"]),
        "labels": tuple(labels),
        "seed": seeds,
        "guidance": Guidance.from_json(value["guidance"]),
        "batch": fields.whole("batch", 1, MAX_BATCH),
        "keep": None if keep is None else tuple(keep),
    }
