"""From what a drawing asks for to the conditions of the network: labels of classes, or words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.scale import check_negative
from fewstep.drawing.drawing import Drawing
from fewstep.drawing.guidance import Guidance
from fewstep.models.defaults import CLASS_GUIDANCE
from fewstep.models.encoder import TextEncoder
from fewstep.models.families import NetworkFacts

Conditions = Mapping[str, Tensor]
"""Keyword arguments of the network, tensors (1, ..) on the host."""


class NoEffect(UserWarning):
    """Something that the caller gave cannot act."""


class Condition(NamedTuple):
    """What one image is drawn under; `negative` is what it is guided away from, None where nothing is."""

    positive: Conditions
    negative: Conditions | None


class Conditioner(Protocol):
    """What a model is conditioned on.

    Attributes:
        field: of a `Drawing`, which says what to draw.
        subjects: what is drawn where nobody says it: each class, or nothing.
        usual_scale: of guidance; `guides`: whether there is anything to guide by a scale.
        distilled: whether the network is told the scale, so that guidance costs no further evaluation.
        task: facts that a weaker model for autoguidance has to share, by name.
    """

    @property
    def field(self) -> Literal["prompts", "labels"]: ...

    @property
    def subjects(self) -> tuple[int | None, ...]: ...

    @property
    def usual_scale(self) -> float: ...

    @property
    def guides(self) -> bool: ...

    @property
    def distilled(self) -> bool: ...

    @property
    def task(self) -> dict[str, Any]: ...

    def check(self, name: str, drawing: Drawing, plan: Plan) -> None:
        """Raise `InvalidInput` where the model `name` cannot be asked so, and warn of what cannot act."""
        ...

    def guides_away(self, guidance: Guidance) -> bool:
        """Whether there is a negative branch, another evaluation of the network."""
        ...

    def encode(self, drawings: Sequence[Drawing], warn: bool = False) -> list[Condition]:
        """The conditions of drawings of one image each; `warn` of words that are not read to their end."""
        ...


@dataclass(frozen=True)
class Labels:
    """Labels 0 .. classes - 1; the network knows the null class as label `classes`. Without classes it takes none.

    Where it is `distilled`, the network is told the guidance scale, as `guidance`.
    """

    classes: int
    field: Literal["labels"] = "labels"
    distilled: bool = False

    @property
    def subjects(self) -> tuple[int | None, ...]:
        return tuple(range(self.classes)) or (None,)

    @property
    def usual_scale(self) -> float:
        return CLASS_GUIDANCE if self.classes else 1.0

    @property
    def guides(self) -> bool:
        return self.classes > 0

    @property
    def task(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def check(self, name: str, drawing: Drawing, plan: Plan) -> None:
        if drawing.labels is None:
            raise InvalidInput(f"{name} draws classes, and {drawing.subjects[0]!r:.100} is words: give labels")
        for label in (*drawing.labels, *drawing.negative):
            self._check_label(name, label)
        if drawing.clip_skip is not None or drawing.source is not None:
            what = "clip_skip" if drawing.source is None else drawing.source.task
            raise InvalidInput(f"{name} draws classes; {what} needs a model that takes prompts: leave it out")
        guidance = drawing.guidance
        _check_true(name, guidance, self.distilled)
        if self.distilled:
            _check_told(name, guidance, plan)
        if any(label is not None for label in drawing.negative):
            if guidance.method == "autoguidance":
                raise InvalidInput(
                    "a negative label cannot act in autoguidance, which moves away from the weaker model: leave it out"
                )
            if not guidance.uses_negative:
                check_negative(guidance.scale)
        pointless = guidance.how.negative == "needed" and guidance != Guidance(1.0)
        if not self.classes and (guidance.uses_negative or pointless):
            raise InvalidInput(
                f"{name} takes no condition, so there is nothing to guide: leave guidance out, or use the guidance "
                'method "pag" or "autoguidance"'
            )

    def guides_away(self, guidance: Guidance) -> bool:
        true = guidance.true_cfg is not None or not self.distilled
        return guidance.uses_negative and self.classes > 0 and true

    def encode(self, drawings: Sequence[Drawing], warn: bool = False) -> list[Condition]:
        if not self.classes:
            return [Condition({}, None) for _ in drawings]
        found = []
        for drawing in drawings:
            label, negative = drawing.subjects[0], drawing.negative[0]
            # A label guided away from itself is the conditional model's.
            away = self.guides_away(drawing.guidance) and label != negative
            scale = {"guidance": torch.tensor([drawing.guidance.weights[0]])} if self.distilled else {}
            own, other = ({**self._told(one), **scale} for one in (label, negative))
            found.append(Condition(own, other if away else None))
        return found

    def _told(self, label: Any) -> Conditions:
        return {"label": torch.tensor([self.classes if label is None else label])}

    def _check_label(self, name: str, label: Any) -> None:
        if label is None or (type(label) is int and label < self.classes):
            return
        known = f"known are 0 to {self.classes - 1}, and None" if self.classes else "known is None"
        raise InvalidInput(f"{name} has no label {label!r}: {known} for no condition")


@dataclass(frozen=True, eq=False)
class Words:
    """Prompts, as the text encoders of a family read them.

    Attributes:
        facts: of the network; `sizes`: from (height, width) to the conditions that tell it the size.
        zero_negative: the empty condition is zeros, as SDXL was trained, and not the encoding of no words.
    """

    encoder: TextEncoder
    facts: NetworkFacts
    sizes: Callable[[int, int], dict[str, Tensor]] = lambda height, width: {}
    zero_negative: bool = False
    field: Literal["prompts"] = "prompts"
    subjects: tuple[int | None, ...] = ()
    guides: bool = True

    @property
    def usual_scale(self) -> float:
        return self.facts.guidance

    @property
    def distilled(self) -> bool:
        return self.facts.distilled

    @property
    def task(self) -> dict[str, Any]:
        return {"further input channels": self.facts.extra, "a distilled guidance scale": self.facts.distilled}

    def check(self, name: str, drawing: Drawing, plan: Plan) -> None:
        if drawing.prompts is None:
            raise InvalidInput(f"{name} draws from words, and got labels: give prompts")
        for text in drawing.negative:
            if isinstance(text, int):
                raise InvalidInput(f"the negative of {name} is words, got the label {text}")
        self.encoder.check(drawing.clip_skip)
        inpaints = drawing.source is not None and drawing.source.task == "inpaint"
        if self.facts.extra and not inpaints:
            raise InvalidInput(f"{name} was trained to inpaint and needs a picture and a mask: use inpaint")
        guidance = drawing.guidance
        _check_true(name, guidance, self.facts.distilled)
        if self.facts.distilled:
            _check_told(name, guidance, plan)
        if any(text is not None for text in drawing.negative) and not self.guides_away(guidance):
            advice = ""
            if self.facts.distilled:
                why, advice = "is told its guidance scale", "; true_cfg guides away from it, at twice the cost"
            elif guidance.method == "autoguidance":
                why = "is guided away from the weaker model instead"
            else:
                why = "is not guided at scale 1"
            warnings.warn(
                f"the negative prompt has no effect: {name} {why}, so nothing is guided away from{advice}",
                NoEffect,
                stacklevel=4,
            )

    def encode(self, drawings: Sequence[Drawing], warn: bool = False) -> list[Condition]:
        texts: dict[tuple[str | None, int | None], dict[str, Tensor]] = {}

        def read(text: str | None, clip_skip: int | None) -> dict[str, Tensor]:
            if (text, clip_skip) not in texts:
                if warn and text:
                    self.encoder.warn(text)
                texts[text, clip_skip] = self.encoder(text or "", clip_skip)
            return texts[text, clip_skip]

        found = []
        for drawing in drawings:
            told = self.sizes(drawing.height, drawing.width)
            if self.facts.distilled:
                told["guidance"] = torch.tensor([drawing.guidance.weights[0]])
            own = read(str(drawing.subjects[0]), drawing.clip_skip)
            if not self.guides_away(drawing.guidance):
                found.append(Condition({**own, **told}, None))
                continue
            text = drawing.negative[0]
            if text is None and self.zero_negative:
                other = {name: torch.zeros_like(value) for name, value in own.items()}
            else:
                other = read(None if text is None else str(text), None)  # all layers, as in diffusers
            found.append(Condition({**own, **told}, {**other, **told}))
        return found

    def guides_away(self, guidance: Guidance) -> bool:
        return guidance.uses_negative and (guidance.true_cfg is not None or not self.facts.distilled)


def _check_true(name: str, guidance: Guidance, distilled: bool) -> None:
    """Raise `InvalidInput` for a second scale where there is one that guides."""
    if guidance.true_cfg is not None and not distilled:
        raise InvalidInput(
            f"true_cfg is for a network that is told its guidance scale, and {name} is not: leave it out, as guidance "
            "is the true one here"
        )


def _check_told(name: str, guidance: Guidance, plan: Plan) -> None:
    """Raise `InvalidInput` for guidance that a network which is told its scale cannot follow."""
    told = f"{name} is told its guidance scale"
    allowed = guidance.method in ("cfg", "pag") or guidance.true_cfg is not None
    if not allowed or guidance.method == "autoguidance":
        advice = "" if guidance.method == "autoguidance" else ", or give true_cfg"
        raise InvalidInput(
            f"{told}, so that {guidance.method} has nothing to guide: leave the guidance method out{advice}"
        )
    if isinstance(guidance.scale, tuple):
        raise InvalidInput(f"{told}, one for all rows, and got {len(guidance.scale)} by row: give one")
    if plan.guidance_factors is not None:
        raise InvalidInput(
            f"{told}, and the plan was tuned with guidance by row, which needs a negative branch: tune with "
            "--constant-guidance"
        )
