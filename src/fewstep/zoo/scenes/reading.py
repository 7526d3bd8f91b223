"""The text encoder learns to read captions before any picture: a minute that saves the denoiser hours.

From the state of every token that has seen the whole caption (its end, and the padding behind it) linear heads answer
what there is: count, colour, shape and size of each group, how they lie, the background. What a caption says with
"right of" or "below" is asked as the same scene with "left of" or "above", so that one scene has one answer however it
is put. The heads are let go afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from fewstep.zoo.scenes.training import Draws, Settings, train
from fewstep.zoo.scenes.words import LENGTH

GROUP = ((0, 1, 2, 3), (None, *COLOURS), (None, *SHAPES), (None, *RADII))
"""Possible count, colour, shape and size of a group."""
SCENE = ((None, *RELATIONS), (None, *BACKGROUNDS))
"""Possible relation and background."""
CHOICES = [len(names) for names in (*GROUP, *GROUP, *SCENE)]


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


def token_ids(tokens: Any, texts: Sequence[str]) -> Tensor:
    """Tokens (B, LENGTH) of texts, as StableDiffusionPipeline makes them."""
    return tokens(list(texts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def learn_to_read(
    text_encoder: Any,
    tokens: Any,
    settings: Settings,
    steps: int,
    folder: Path,
    report: Callable[[int, float, float], None] | None = None,
) -> float:
    """Train the text encoder (a CLIPTextModel) in place for `steps` steps, and return how many of 1,000 held-out
    captions the heads then read right in everything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        heads = nn.Linear(text_encoder.config.hidden_size, sum(CHOICES))
    device = torch.device(settings.device)
    model = nn.ModuleDict({"text_encoder": text_encoder, "heads": heads})

    def read(draws: Draws, count: int, *, held_out: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, LENGTH, choices), weights of the tokens (B, LENGTH), answers (B, questions)."""
        asked = [draw_description(draws.scenes, held_out=held_out) for _ in range(count)]
        ids = token_ids(tokens, [caption(one, draws.scenes) for one in asked]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = heads(text_encoder(ids).last_hidden_state)
        ended = (ids == tokens.eos_token_id).float()
        right = torch.tensor([answers(one) for one in asked], device=device)
        return logits.float(), ended / ended.sum(1, keepdim=True), right

    def loss(draws: Draws) -> Tensor:
        logits, weight, right = read(draws, settings.batch, held_out=False)
        total = torch.zeros((), device=device)
        for question, choice in zip(logits.split(CHOICES, -1), right.unbind(1), strict=True):
            each = F.cross_entropy(question.transpose(1, 2), choice[:, None].expand(-1, LENGTH), reduction="none")
            total = total + (each * weight).sum(1).mean()
        return total

    how = replace(settings, steps=steps, cooldown=max(1, steps // 4), warmup=min(settings.warmup, steps))
    train(model, loss, how, folder, {"part": "reading", "steps": steps}, report)
    with torch.no_grad():
        logits, weight, right = read(Draws.of(settings.seed + 1, 0), 1000, held_out=True)
    chosen = torch.stack([question.argmax(-1) for question in logits.split(CHOICES, -1)], -1)
    every = (chosen == right[:, None]).all(-1).float()
    return float((every * weight).sum(1).mean())
