"""The text encoder of the scenes learns to read captions before any picture: a minute that saves the denoiser hours.

From the state of every token that has seen the whole caption (its end, and the padding behind it) linear heads answer
what there is: count, colour, shape and size of each group, how they lie, the background. What a caption says with
"right of" or "below" is asked as the same scene with "left of" or "above", so that one scene has one answer however it
is put. The heads are let go afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewstep.recipes.module import OfModule, role_of
from fewstep.training import STUDENT, Batch, Draws, Loss, Phase, Progress, Roles, Run, Settings, train
from fewstep.training.draws import key_of
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.scene import (
    BACKGROUNDS,
    COLOURS,
    OPPOSITE,
    RADII,
    RELATIONS,
    SHAPES,
    Description,
    draw_description,
)
from fewstep.zoo.scenes.words import LENGTH, token_ids

GROUP = ((0, 1, 2, 3), (None, *COLOURS), (None, *SHAPES), (None, *RADII))
"""Possible count, colour, shape and size of a group."""
SCENE = ((None, *RELATIONS), (None, *BACKGROUNDS))
"""Possible relation and background."""
CHOICES = [len(names) for names in (*GROUP, *GROUP, *SCENE)]
ASKED = 1000
"""Held-out captions of the figure at the end."""


def answers(description: Description) -> list[int]:
    """The index of the right choice of each question, the questions in the order of `CHOICES`."""
    groups, relation = description.groups, description.relation
    if relation in ("right of", "below"):
        groups, relation = groups[::-1], OPPOSITE[relation]
    elif relation is None:
        groups = tuple(sorted(groups, key=repr))
    named = [(g.count, g.colour, g.shape, g.size) for g in groups]
    named += [(0, None, None, None)] * (2 - len(named))
    right = [names.index(value) for group in named for names, value in zip(GROUP, group, strict=True)]
    return [*right, SCENE[0].index(relation), SCENE[1].index(description.background)]


class Reader(nn.Module):
    """A text encoder (a CLIPTextModel) with heads: from tokens (B, LENGTH) to scores (B, LENGTH, choices)."""

    def __init__(self, text_encoder: Any, seed: int) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.Linear(text_encoder.config.hidden_size, sum(CHOICES))

    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16):
            return self.heads(self.text_encoder(ids).last_hidden_state).float()


@dataclass(frozen=True)
class Reading(OfModule):
    """Every question is answered from every token that has seen the whole caption, by cross-entropy."""

    name: ClassVar[str] = "reading"

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        ids, right = batch.data, batch.condition["answers"]
        weight = share_of_ends(ids, batch.condition["end"])
        scores = roles[STUDENT].module(ids).split(CHOICES, -1)
        total = torch.zeros((), device=ids.device)
        for question, choice in zip(scores, right.unbind(1), strict=True):
            each = F.cross_entropy(question.transpose(1, 2), choice[:, None].expand(-1, LENGTH), reduction="none")
            total = total + (each * weight).sum(1).mean()
        yield Loss(STUDENT, total)


def share_of_ends(ids: Tensor, end: Tensor) -> Tensor:
    """How much each token (B, LENGTH) counts: those at the end of a caption, or behind, alike."""
    ended = (ids == end[:, None]).float()
    return ended / ended.sum(1, keepdim=True)


@dataclass(frozen=True)
class Captions:
    """Random captions without end: their tokens, the token `end`, and the `answers` (B, questions)."""

    tokens: Any
    seed: int
    held_out: bool = False
    device: torch.device | str = "cpu"

    @property
    def count(self) -> None:
        """There is no end of them."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Their name and seed."""
        return {"name": "captions of scenes", "seed": self.seed}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of them."""
        texts: list[str] = []
        right: list[list[int]] = []
        for number in numbers:
            rng = np.random.default_rng(key_of(self.seed, "caption", number))
            description = draw_description(rng, held_out=self.held_out)
            texts.append(caption(description, rng))
            right.append(answers(description))
        told = {
            "answers": torch.tensor(right, device=self.device),
            "end": torch.full((len(texts),), self.tokens.eos_token_id, device=self.device),
        }
        return Batch(token_ids(self.tokens, texts).to(self.device), None, told)


def learn_to_read(
    text_encoder: Any,
    tokens: Any,
    settings: Settings,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    watch: Callable[[Progress], None] = lambda now: None,
) -> float:
    """Train the text encoder (a CLIPTextModel) in place, and return how many of 1,000 held-out captions the heads then
    read right in everything.
    """
    model = Reader(text_encoder, key_of(settings.seed, "heads")).to(device).train()
    data = Captions(tokens, settings.seed, device=device)
    train(Run(Reading(), {STUDENT: role_of(model)}, data, settings, folder), watch)
    model.eval()
    asked = replace(data, seed=key_of(settings.seed, "measure"), held_out=True).batch(range(ASKED))
    with torch.no_grad():
        scores = model(asked.data).split(CHOICES, -1)
    chosen = torch.stack([question.argmax(-1) for question in scores], -1)
    every = (chosen == asked.condition["answers"][:, None]).all(-1).float()
    return float((every * share_of_ends(asked.data, asked.condition["end"])).sum(1).mean())
