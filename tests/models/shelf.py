"""A tiny model in the place of the shipped ones, and a student that holds only what differs from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import zoo
from fewstep.distillation import write_adapted
from fewstep.models.lowrank import Changes, LowRank

from .tiny_diffusers import Twins

LAYERS = {"conv_in": 2, "time_embedding.linear_1": 3, "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 2}


def changes(module: Any, seed: int = 0) -> Changes:
    """Of ranks that differ, and of a bias and a norm."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, rank in LAYERS.items():
        out, *inner = module.get_submodule(name).weight.shape
        shapes = (rank, *inner), (out, rank, *[1] * (len(inner) - 1))
        found[name] = LowRank(*(0.2 * torch.randn(shape, generator=draw) for shape in shapes))
    whole = {"conv_in.bias": torch.randn(8, generator=draw), "conv_norm_out.weight": torch.randn(8, generator=draw)}
    return Changes(found, whole)


def stocked(twins: Twins, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship a tiny Stable Diffusion as "tiny", and a student of it as "tiny-turbo", whose folder is returned."""
    shutil.copytree(twins.folder, folder / "tiny")
    real = zoo.shipped_path
    monkeypatch.setattr(zoo, "SHIPPED", ("digits", "tiny", "tiny-turbo"))
    monkeypatch.setattr(zoo, "shipped_path", lambda name: real(name) if name == "digits" else folder / name)
    pipe = fs.load("tiny")
    plan = fs.compile("ddim", schedule=pipe.model.schedule, steps=2, grid="trailing")
    facts = {"student": {"teacher": "tiny", "guidance": 4.0}}
    write_adapted(folder / "tiny-turbo", "tiny", changes(pipe.model.module), [plan], facts)
    return folder / "tiny-turbo"
