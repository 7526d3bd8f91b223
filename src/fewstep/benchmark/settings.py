"""What a caller settles before anything is measured: how a model is read, what is drawn, who is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, with_config

from fewstep.core.errors import InvalidInput

STRICT = ConfigDict(strict=True, extra="forbid")
"""How records are read from JSON."""
MOST_IMAGES = 100_000


@with_config(STRICT)
@dataclass(frozen=True)
class Loading:
    """Where a model runs and how its files are read, as arguments of `fewstep.load`.

    Attributes:
        device: such as "cuda".
        variant: of the files of weights, such as "fp16".
        config: folder or id on the hub with the configurations of an original checkpoint.
        allow_pickle: load weights that are only there as a pickle.
        prediction, zero_snr: what the caller says of the network.
        lora: LoRAs to merge into the weights, each a path and a scale.
    """

    device: str = "cpu"
    variant: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    prediction: str | None = None
    zero_snr: bool | None = None
    lora: tuple[tuple[str, float], ...] = ()

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that are not the usual ones."""
        usual = asdict(Loading())
        found = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return {**found, "lora": list(self.lora)} if self.lora else found

    @property
    def words(self) -> list[str]:
        """The options of a command that loads the same model."""
        words = [] if self.device == "cpu" else ["--device", self.device]
        words += [] if self.variant is None else ["--variant", self.variant]
        words += [] if self.config is None else ["--model-config", self.config]
        words += [] if self.prediction is None else ["--prediction", self.prediction]
        words += [] if self.zero_snr is None else ["--zero-snr" if self.zero_snr else "--no-zero-snr"]
        for path, scale in self.lora:
            words += ["--lora", f"{path}:{scale:g}"]
        return words + ["--allow-pickle"] * self.allow_pickle


PLAIN = Loading()
"""On the CPU, the usual files."""


@dataclass(frozen=True)
class Pictures:
    """What every plan draws.

    Attributes:
        count: how many images, 2 to 100,000; 64 unless you say otherwise, or 16 from words.
        batch: how many the network sees at once; 16 unless you say otherwise, or 4 from words.
        seed: names other noise, 0 to 2^20 - 1.
        prompts: a file with a prompt a line, for a model of words; the shipped scenes have their own.
    """

    count: int | None = None
    batch: int | None = None
    seed: int = 0
    prompts: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.count is not None and (type(self.count) is not int or not 2 <= self.count <= MOST_IMAGES):
            raise InvalidInput(f"images must be a whole number from 2 to {MOST_IMAGES}, got {self.count!r}")


USUAL = Pictures()
"""As many as is usual."""


class Stage(NamedTuple):
    """What is going on: the stage in words, and how much of the work is done, of how much, in rows of plans."""

    words: str
    done: float
    of: float


@dataclass(frozen=True)
class Forecast:
    """What the plans that are left will cost.

    Attributes:
        left, kept: plans that are to be measured, and those that are measured already.
        images: that each draws.
        seconds: in all; `row`: those that one row takes for one image, by (guidance, precision).
        what: is measured, in words.
    """

    left: int
    kept: int
    images: int
    seconds: float
    row: dict[tuple[float | None, str], float]
    what: str = "plans"


@dataclass(frozen=True)
class Reporter:
    """Who is told what goes on. What one of them raises ends the work.

    Attributes:
        begin: told by `choose` why it measures, and into which folder.
        announce: told what it will cost, before anything is written.
        watch: told each stage.
    """

    begin: Callable[[str, Path], None] = lambda why, folder: None
    announce: Callable[[Forecast], None] = lambda forecast: None
    watch: Callable[[Stage], None] = lambda stage: None


SILENT = Reporter()
"""Nobody is told."""
