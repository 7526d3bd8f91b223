"""A drawing: all that somebody asks for, as one value.

Calls, commands, forms and requests fill it in; pictures, manifests and ledgers keep it. It is always complete: a
partial one is an overlay (`fewstep.drawing.overlay`). The device, the batch and callbacks belong to a run, and not to
the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from fewstep.core.errors import InvalidInput
from fewstep.drawing.guidance import Guidance
from fewstep.drawing.lora import MOST_LORAS, LoRA
from fewstep.drawing.sampling import Sampling
from fewstep.drawing.value import Digest, Unbounded, Value, several

MAX_IMAGES, MAX_SIDE, SEED_LIMIT = 10_000, 16_384, 2**64 - 1
LARGEST_THRESHOLD = 3e38
"""Of the estimated data, which are float32."""
LONGEST_PROMPT, MAX_TEXT = 20_000, 500_000
"""Most characters of a prompt (no encoder reads more), and of all prompts of a drawing."""
FITS = Literal["crop", "stretch", "exact"]
MEANINGS = Literal["steps", "noise"]

Text = Annotated[str, StringConstraints(max_length=LONGEST_PROMPT)]
Label = Annotated[int, Field(ge=0, lt=10**6)]
Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT)]
Many = Field(min_length=1, max_length=MAX_IMAGES)
Prompts = Annotated[tuple[Text, ...], BeforeValidator(several), Many]
Labels = Annotated[tuple[Label | None, ...], BeforeValidator(several), Many]
Negatives = Annotated[tuple[Text | Label | None, ...], BeforeValidator(several), Many]
Loras = Annotated[tuple[LoRA, ...], BeforeValidator(several), Field(max_length=MOST_LORAS)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(several), Many]


class Estimate(Value):
    """How each estimate of the data is brought into its range, for models that draw pixels."""

    called: ClassVar[str] = "the estimate"

    clip: bool = Field(default=False, description="Clip the estimated data to their range at each evaluation.")
    threshold: Annotated[tuple[float, Unbounded], BeforeValidator(several)] | None = Field(
        default=None, description="In place of clip: clip to this percentile of the estimate itself, such as 0.995."
    )

    @model_validator(mode="after")
    def _check(self) -> Estimate:
        if self.threshold is None:
            return self
        if self.clip:
            raise InvalidInput("clip and threshold both bring the data into its range: use one of them")
        percentile, maximum = self.threshold
        if not 0 < percentile <= 1 <= maximum or LARGEST_THRESHOLD < maximum < math.inf:
            raise InvalidInput(
                "threshold is a percentile above 0 and up to 1, and a maximum from 1 to "
                f"{LARGEST_THRESHOLD:g}, or infinite, such as (0.995, 1.5), got {self.threshold}"
            )
        return self


class Source(Value):
    """The picture that a drawing starts from. Its pixels travel beside; here is their digest after fitting."""

    called: ClassVar[str] = "the source"

    task: Literal["img2img", "inpaint", "edit"] = Field(
        description="What to do with the picture: img2img, inpaint or edit."
    )
    picture: Digest = Field(description="Digest of the picture's pixels, after fitting.")
    fit: FITS = Field(default="crop", description="How to fit a picture of another size.")
    strength: float = Field(default=1.0, gt=0, le=1, description="How much to draw anew, above 0 and up to 1.")
    strength_of: MEANINGS = Field(default="steps", description="What strength is a share of: steps or noise.")
    mask: Digest | None = Field(default=None, description="Digest of the mask, for inpaint.")
    paste: bool = Field(default=False, description="Put the kept pixels of the picture itself over the result.")
    prompt: Text | None = Field(default=None, description="What the picture shows, for edit.")

    @model_validator(mode="after")
    def _check(self) -> Source:
        if (self.mask is not None) != (self.task == "inpaint") or (self.prompt is not None) != (self.task == "edit"):
            raise InvalidInput(
                "a mask is for inpaint, and a prompt of the picture for edit: leave them out of other tasks"
            )
        return self


class Decode(Value):
    """How latents become pictures."""

    called: ClassVar[str] = "the decoding"

    tiled: bool = Field(default=False, description="Decode in tiles, to save memory.")
    sliced: bool = Field(default=False, description="Decode one image at a time, to save memory.")


class Drawing(Value):
    """What to draw, and how: `count` images of each prompt or label, each from a seed of its own."""

    called: ClassVar[str] = "the drawing"

    prompts: Prompts | None = Field(default=None, description="What to draw, for a model that takes prompts.")
    labels: Labels | None = Field(
        default=None, description="What to draw, for a model of classes, such as 3; none means no condition."
    )
    negative: Negatives = Field(default=(None,), description="Label or words to guide away from.")
    height: int = Field(ge=1, le=MAX_SIDE, description="Height in pixels; models of prompts take certain multiples.")
    width: int = Field(ge=1, le=MAX_SIDE, description="Width in pixels.")
    seed: Seed | Seeds = Field(
        default=0, description="Seed of the first image, the next ones counting up; or one for each."
    )
    count: int = Field(default=1, ge=1, le=MAX_IMAGES, description="Images of each label or prompt.")
    clip_skip: int | None = Field(default=None, ge=1, le=100, description="Layers of CLIP to leave out, from its end.")
    lora: Loras = Field(default=(), description="The LoRAs that are merged into the model.")
    sampling: Sampling
    guidance: Guidance
    estimate: Estimate = Estimate()
    source: Source | None = None
    decode: Decode = Decode()

    @model_validator(mode="after")
    def _check(self) -> Drawing:
        if (self.prompts is None) == (self.labels is None):
            raise InvalidInput("a drawing has prompts, or labels, and not both: give one of them")
        if len(self) > MAX_IMAGES:
            raise InvalidInput(f"a drawing has 1 to {MAX_IMAGES:,} images, got {len(self):,}: use a lower count")
        if len(self.negative) not in (1, len(self.subjects)):
            raise InvalidInput(
                f"give one negative, or one for each of the {len(self.subjects)} subjects, got {len(self.negative)}"
            )
        if isinstance(self.seed, tuple) and len(self.seed) != len(self):
            raise InvalidInput(f"give one seed, or one for each of the {len(self)} images, got {len(self.seed)}")
        if sum(len(text) for text in (*self.subjects, *self.negative) if isinstance(text, str)) > MAX_TEXT:
            raise InvalidInput(f"the prompts of one drawing have more than {MAX_TEXT:,} characters: draw fewer at once")
        return self

    def __len__(self) -> int:
        """How many images it has."""
        return len(self.subjects) * self.count

    @property
    def subjects(self) -> tuple[str | int | None, ...]:
        """The prompts or the labels."""
        return self.labels if self.prompts is None else self.prompts  # type: ignore[return-value]

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each image."""
        if isinstance(self.seed, tuple):
            return self.seed
        return tuple(self.seed + i for i in range(len(self)))

    @property
    def each(self) -> Iterator[Drawing]:
        """Its images, each as a drawing of one."""
        field = "labels" if self.prompts is None else "prompts"
        for i, seed in enumerate(self.seeds):
            subject = i // self.count
            one = {
                field: (self.subjects[subject],),
                "negative": (self.negative[subject % len(self.negative)],),
                "seed": seed,
                "count": 1,
            }
            yield self.model_copy(update=one)  # parts of a validated value need no second look
