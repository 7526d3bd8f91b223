"""How long and how fast to train, whatever the method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.training.adapter import Adapter
from fewstep.training.average import WIDTHS, exponent
from fewstep.training.method import Phase
from fewstep.training.muon import Muon

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}
BETAS = (0.9, 0.99)
"""Of AdamW, alone and beside Muon: its memory of squares is short enough for a run of some hundred steps."""
DECAYS = ("constant", "linear", "cosine", "trapezoid")


@dataclass(frozen=True)
class Settings:
    """Settings of the loop.

    Attributes:
        steps: of the optimiser, in all.
        batch: samples of a step; it is done in `accumulate` equal parts, one after the other, to save memory.
        rate: the learning rate at its peak. It rises over `warmup` steps, and falls to 0 by the end of a stage as
            `decay` says: "constant" does not fall, "linear" and "cosine" do, "trapezoid" in the last `cooldown` steps.
        adapter: the low-rank change that is trained of the student in place of its weights, which its role has to have
            been made with (`student_of`).
        optimiser: "adam", "adamw" or "radam".
        muon: rate of Muon for the matrices inside, beside which "adamw" has the rest at `rate`; 0 is without.
        weight_decay: of AdamW and Muon.
        clip: the norm that a gradient is cut to; 0 does not cut.
        width: of the average of the weights that is the result, a share of a stage; 0 takes the last weights.
        seed: decides everything.
        state_every, log_every: steps between states to go on from, and between lines of the log.
    """

    steps: int = 1000
    batch: int = 128
    accumulate: int = 1
    rate: float = 1e-3
    warmup: int = 0
    decay: str = "cosine"
    cooldown: int = 0
    adapter: Adapter | None = None
    optimiser: str = "adam"
    muon: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    width: float = WIDTHS[0]
    seed: int = 0
    state_every: int = 200
    log_every: int = 50

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.batch % self.accumulate:
            raise InvalidInput(f"a batch of {self.batch} cannot be done in {self.accumulate} equal parts")
        if self.decay not in DECAYS:
            raise unknown_name("decay", str(self.decay), DECAYS)
        if (self.decay == "trapezoid") != (self.cooldown > 0):
            raise InvalidInput(
                "the decay trapezoid has a cooldown of at least 1 step, and no other decay has one: got the decay "
                f"{self.decay} and a cooldown of {self.cooldown}"
            )
        if self.optimiser not in OPTIMISERS:
            raise unknown_name("optimiser", str(self.optimiser), OPTIMISERS)
        if (self.muon or self.weight_decay) and self.optimiser != "adamw":
            raise InvalidInput(
                f"muon and weight_decay go with the optimiser adamw, got {self.optimiser}: give that one"
            )
        if self.muon and not self.rate:
            raise InvalidInput(f"beside muon, at {self.muon:g}, the rest of the weights needs a rate above 0, got 0")
        if self.width:
            exponent(self.width)

    def _check_numbers(self) -> None:
        for name in ("steps", "batch", "accumulate", "state_every", "log_every"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidInput(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("warmup", "cooldown", "seed"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise InvalidInput(f"{name} must be a whole number from 0, got {value!r}")
        for name in ("rate", "clip", "width", "muon", "weight_decay"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InvalidInput(f"{name} must be a number of at least 0, got {value!r}")

    @property
    def widths(self) -> tuple[float, ...]:
        """Of the averages that are kept: the result's, and the two from which others are made."""
        return tuple(dict.fromkeys((self.width, *WIDTHS))) if self.width else WIDTHS

    def learning_rate(self, phase: Phase, peak: float | None = None) -> float:
        """The rate at a step, of what has the usual peak or one of its own."""
        left = phase.begins + phase.steps - phase.step
        falls = {
            "constant": 1.0,
            "linear": 1.0 - phase.share,
            "cosine": 0.5 * (1 + math.cos(math.pi * phase.share)),
            "trapezoid": min(1.0, left / max(1, min(self.cooldown, phase.steps))),
        }
        rises = min(1.0, (phase.step - phase.begins + 1) / max(1, self.warmup))
        return (self.rate if peak is None else peak) * rises * falls[self.decay]

    def optimiser_of(self, weights: Mapping[str, nn.Parameter]) -> Any:
        """A new optimiser of some weights by name."""
        if self.muon:
            return Muon(weights, self.rate, self.muon, BETAS, self.weight_decay)
        more = {"weight_decay": self.weight_decay, "betas": BETAS} if self.optimiser == "adamw" else {}
        return OPTIMISERS[self.optimiser](weights.values(), lr=self.rate, **more)
