"""Figures and pictures of a run for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewstep.core.errors import InvalidInput


class TensorBoard:
    """A logger that writes a folder for `tensorboard --logdir FOLDER`.

    A run that goes on from a state writes a file of its own, from which on TensorBoard hides what was written of later
    steps before. Raises `InvalidInput` where tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InvalidInput("TensorBoard needs tensorboard: pip install 'fewstep[train]'") from error
        self.folder, self.kind = folder, SummaryWriter
        self.writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        writer = self.at(step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        self.at(step).add_images(name, images, step)

    def at(self, step: int) -> Any:
        """The writer, made at the first step of a sitting that is written."""
        if self.writer is None:
            self.writer = self.kind(log_dir=os.fspath(self.folder), purge_step=step)
        return self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
