"""What the tests of drawing compare with: networks and conditions put together by hand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep as fs
from fewstep.core.plan import TunedFor
from fewstep.pipeline import Pipeline, load
from fewstep.tuning.table import Table, plan_of, table_of

from .tiny_diffusers import enliven

APG: dict[str, Any] = {"eta": 0.25, "norm_limit": 2.5, "momentum": -0.5}


def other_unet(folder: Path, target: Path) -> Path:
    """A copy of a Stable Diffusion folder with another network."""
    shutil.copytree(folder, target)
    module: Any = load(target).model.module
    enliven(module, 5)
    module.save_pretrained(target / "unet")
    return target


def base(pipe: Pipeline) -> fs.Network:
    """The network, its condition still to be given."""
    model = pipe.model
    return fs.Network(model.network, model.schedule, model.prediction, dtype=model.dtype, time_scale=model.time_scale)


def encoder(pipe: Pipeline) -> Any:
    """The text encoder."""
    conditioner: Any = pipe.model.conditioner
    return conditioner.encoder


def said(pipe: Pipeline, texts: list[str]) -> dict[str, Tensor]:
    """The conditions of texts, the batch first."""
    rows = [encoder(pipe)(text) for text in texts]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def fitted(
    plan: fs.Plan, by: float = 1.01, model: str | None = None, factors: Sequence[float] | None = None
) -> fs.Plan:
    """A plan such as tuning gives, which no recipe compiles to: its weights moved, and its guidance by row."""
    table = table_of(plan)
    assert table is not None
    weights = table.weights.copy()
    for i in range(1, len(weights)):
        weights[i, i] += by - 1
        weights[i, 0] -= by - 1
    moved = plan_of(Table(table.times, weights), fs.schedules.from_spec(plan.recipe.schedule))
    tuned_for = None if model is None else TunedFor(model)
    return replace(moved, tuned_for=tuned_for, guidance_factors=None if factors is None else tuple(factors))
