"""The loop that trains each part of the text-to-image model: seeded, logged, resumable to the same bits.

Every draw of a step comes from generators keyed by (seed, step), so no random state is kept: an interrupted run goes on
from its last state file as if nothing had happened. What is kept in the end is an exponential moving average of the
weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.zoo import container
from fewstep.zoo.scenes.optimiser import Optimiser

STATE, LOG = "training.state.safetensors", "training.log.jsonl"
PROLONGING = ("steps", "cooldown", "state_every", "threads", "device")


@dataclass(frozen=True)
class Settings:
    """How to train. The rates are level after the warm-up and fall to 0 over the last `cooldown` steps; `muon` is that
    of the matrices (0: AdamW takes them too).

    A run may go on with other `PROLONGING` settings: for longer than planned, as long as its rate is still level.
    """

    seed: int = 0
    steps: int = 2500
    batch: int = 32
    learning_rate: float = 1e-3
    muon: float = 0.0
    warmup: int = 100
    cooldown: int = 800
    weight_decay: float = 0.01
    clip: float = 1.0
    decay: float = 0.999
    state_every: int = 250
    threads: int = 2
    device: str = "cpu"

    def share(self, step: int) -> float:
        """Share of the full learning rates at step 0, 1 .. steps - 1."""
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / self.cooldown)


@dataclass(frozen=True)
class Draws:
    """The random sources of one step: numpy's for scenes and captions, torch's for noise."""

    scenes: np.random.Generator
    noise: torch.Generator

    @staticmethod
    def of(seed: int, step: int) -> Draws:
        """Those of a step, unrelated to any other's."""
        scenes, noise = np.random.SeedSequence((seed, step)).spawn(2)
        return Draws(np.random.default_rng(scenes), torch.Generator().manual_seed(int(noise.generate_state(1)[0])))


def train(
    model: nn.Module,
    loss: Callable[[Draws], Tensor],
    settings: Settings,
    folder: Path,
    what: dict[str, Any],
    report: Callable[[int, float, float], None] | None = None,
) -> nn.Module:
    """Train `model` on `loss(draws)`, a scalar, and give it the averaged weights.

    In `folder` there are the state, which is removed by the caller once the result is written, and the log. `what`
    says which run this is; a state of another one is refused. `report(step, loss, seconds)` is called every 50 steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.threads)
    names = dict(model.to(settings.device).named_parameters())
    optimiser = Optimiser(names, settings.learning_rate, settings.muon, settings.weight_decay)
    average = {name: p.detach().clone() for name, p in names.items()}
    plain = {name: value for name, value in asdict(settings).items() if name not in PROLONGING}
    what = json.loads(json.dumps({**what, **plain}))
    step, seconds = _restore(folder / STATE, what, names, average, optimiser)
    recent: list[float] = []
    model.train()
    while step < settings.steps:
        began = time.perf_counter()
        value = loss(Draws.of(settings.seed, step))
        recent.append(float(value.detach()))
        if not math.isfinite(recent[-1]):
            raise ArithmeticError(
                f"the loss is {recent[-1]} at step {step + 1}: lower the learning rate and start anew"
            )
        optimiser.step(value, settings.share(step), settings.clip)
        weight = 1 - min(settings.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in names.items():
                average[name].lerp_(parameter, weight)
        step, seconds = step + 1, seconds + time.perf_counter() - began
        if step % 50 == 0 or step == settings.steps:
            mean, recent = sum(recent) / len(recent), []
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "loss": mean, "seconds": round(seconds, 1)}) + "\n")
            if report is not None:
                report(step, mean, seconds)
        if step % settings.state_every == 0 or step == settings.steps:
            _save(folder / STATE, what, names, average, optimiser, step, seconds)
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(average[name])
    return model.eval()


def _save(
    path: Path,
    what: dict[str, Any],
    names: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: Optimiser,
    step: int,
    seconds: float,
) -> None:
    tensors = {f"average.{name}": tensor for name, tensor in average.items()}
    tensors |= {f"weight.{name}": parameter.detach() for name, parameter in names.items()}
    tensors |= optimiser.state()
    container.write(path, tensors, {"state": {"what": what, "step": step, "seconds": seconds}})


def _restore(
    path: Path,
    what: dict[str, Any],
    names: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: Optimiser,
) -> tuple[int, float]:
    """(step, seconds) of the state in `path`, whose tensors are copied into place; (0, 0) where there is none."""
    if not path.exists():
        return 0, 0.0
    file = container.read(path, 1 << 30)
    state = json.loads(file.metadata["state"])
    differing = sorted(k for k in {**what, **state["what"]} if what.get(k) != state["what"].get(k))
    if differing:
        raise InvalidInput(
            f"{path} belongs to a run with other settings ({', '.join(differing)}): give those, or remove the file"
        )
    tensors = file.tensors()
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(tensors[f"weight.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
    optimiser.restore(tensors, state["step"])
    return state["step"], state["seconds"]
