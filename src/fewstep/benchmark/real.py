"""Real pictures to measure against: of a folder, or a tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.pipeline.pictures import read_picture

AT_ONCE = 64
"""Pictures that are read at once."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Of the files of pictures; others are passed over."""


def real_pictures(data: str | os.PathLike[str] | Tensor, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Real pictures (B, *shape) in [-1, 1], some at a time.

    Args:
        data: a folder, whose folders are read too; or a tensor (n, *shape) in [-1, 1].
        shape: (C, H, W). From a file the middle is taken, scaled to it; where C is 1 the mean of the colours.

    Raises:
        OSError: a file cannot be read.
        InvalidInput: a tensor of another shape, no folder, one without pictures, and files that are damaged.
    """
    if isinstance(data, Tensor):
        if data.ndim != 4 or tuple(data.shape[1:]) != shape:
            raise InvalidInput(f"real pictures are a tensor (n, *{shape}) in [-1, 1], got shape {tuple(data.shape)}")
        yield from data.float().split(AT_ONCE)
        return
    folder = Path(data)
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder of real pictures: give one with --data")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidInput(f"{folder} holds no pictures ({', '.join(SUFFIXES)}): give a folder of real ones")
    for i in range(0, len(files), AT_ONCE):
        yield _read(files[i : i + AT_ONCE], shape)


def _read(files: Sequence[Path], shape: tuple[int, ...]) -> Tensor:
    """Pictures of files at a size, the middle of each; grey where the model draws greys."""
    pictures = torch.cat([read_picture(file, (shape[1], shape[2])) for file in files])
    return pictures.mean(dim=1, keepdim=True) if shape[0] == 1 else pictures
