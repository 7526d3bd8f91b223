"""A LoRA that a drawing is drawn with, by what is in its file and not by where that lies."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fewstep.drawing.value import Digest, Value

MOST_LORAS, LARGEST_SCALE = 16, 100.0


class LoRA(Value):
    """Low-rank changes of a model's weights, W + scale B A (Hu et al. 2021, arXiv 2106.09685)."""

    called: ClassVar[str] = "the LoRA"

    file: Digest = Field(description="Digest of its file.")
    scale: float = Field(default=1.0, ge=-LARGEST_SCALE, le=LARGEST_SCALE, description="How much of it; 1 is all.")

    def __str__(self) -> str:
        return f"{self.file}:{self.scale!r}"
