"""What the tests of guidance by name compare with: networks and conditions put together by hand."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep as fs
from fewstep.pipeline import TextPipeline, load

from .tiny_diffusers import enliven

APG: dict[str, Any] = {"eta": 0.25, "norm_limit": 2.5, "momentum": -0.5}


def other_unet(folder: Path, target: Path) -> Path:
    """A copy of a Stable Diffusion folder with another network."""
    shutil.copytree(folder, target)
    module = load(target).module  # type: ignore[union-attr]
    enliven(module, 5)
    module.save_pretrained(target / "unet")
    return target


def base(pipe: TextPipeline) -> fs.Network:
    scale = pipe.family.time_scale
    return fs.Network(pipe._network, pipe.schedule, pipe.prediction, dtype=pipe.dtype, time_scale=scale)


def said(pipe: TextPipeline, texts: list[str]) -> dict[str, Tensor]:
    """The conditions of texts, the batch first."""
    rows = [pipe.encoder(text) for text in texts]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
