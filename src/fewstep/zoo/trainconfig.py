"""What a training run is decided by. Two runs with equal configs on equal data give equal weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import BetaSchedule
from fewstep.zoo.network import UNetConfig


@dataclass(frozen=True)
class TrainConfig:
    """The settings of `train`. The defaults made the shipped digits model.

    Attributes:
        network: the architecture; its channels, size and classes have to be those of the data.
        schedule: the noise schedule, one with alpha^2 + sigma^2 = 1 (a beta schedule).
        seed: decides the split, the first weights, batches, noise, times and dropped classes.
        steps: optimiser steps.
        batch: images a step.
        learning_rate: peak of AdamW's rate: rises linearly for `warmup_steps`, then falls to 0 as a half
            cosine.
        warmup_steps: at most `steps`.
        weight_decay: AdamW's, on every weight.
        gradient_clip: the gradient's norm is cut to this.
        ema_decay: the weights that are kept are an exponential moving average; step k decays by
            min(ema_decay, (1 + k) / (10 + k)), so that the first weights are soon forgotten.
        class_dropout: share of the training images whose label is replaced by the null class, for guidance.
        lambda_spread: half the log signal-to-noise ratio of the training times is logistic around 0 with this
            scale (cut to the schedule), so most work goes where the picture is decided.
        held_out: share of the images, of every class, that is never trained on.
        validate_every: steps between measurements of the held-out loss.
        state_every: steps between writings of the resumable state.
        threads: CPU threads. Part of what decides the weights, because sums over threads round differently.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: BetaSchedule = field(default_factory=schedules.linear)
    seed: int = 0
    steps: int = 3000
    batch: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    class_dropout: float = 0.12
    lambda_spread: float = 1.0
    held_out: float = 0.1
    validate_every: int = 500
    state_every: int = 200
    threads: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.network, UNetConfig):
            raise InvalidInput(f"network is {self.network!r}; it has to be a UNetConfig")
        if not isinstance(self.schedule, BetaSchedule):
            raise InvalidInput(
                f"schedule is {getattr(self.schedule, 'kind', self.schedule)!r}; v-prediction is trained on "
                "a beta schedule: linear, scaled_linear, cosine, betas or alphas_cumprod"
            )
        most = 2**31
        for name, low, high in (
            ("seed", 0, 2**63 - 1),
            ("steps", 1, most),
            ("batch", 1, 1 << 20),
            ("warmup_steps", 0, self.steps),
            ("validate_every", 1, most),
            ("state_every", 1, most),
            ("threads", 1, 256),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidInput(f"{name} is {value!r}; it has to be a whole number from {low} to {high}")
        for name, low, high in (
            ("learning_rate", 1e-12, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("gradient_clip", 1e-6, 1e6),
            ("ema_decay", 0.0, 0.999999),
            ("class_dropout", 0.0, 1.0),
            ("lambda_spread", 1e-3, 100.0),
            ("held_out", 1e-6, 0.999999),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                raise InvalidInput(f"{name} is {value!r}; it has to be a number from {low:g} to {high:g}")
            object.__setattr__(self, name, float(value))

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ... steps - 1."""
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def decay(self, step: int) -> float:
        """Decay of the moving average at step 0, 1, ... steps - 1."""
        return min(self.ema_decay, (1 + step) / (10 + step))

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights, as JSON values: not how often the run measures and saves."""
        values = {k: v for k, v in self.to_json().items() if k not in ("validate_every", "state_every")}
        return json.loads(json.dumps(values))

    def to_json(self) -> dict[str, Any]:
        """Every setting as plain JSON values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "network": self.network.to_json(), "schedule": self.schedule.spec}
