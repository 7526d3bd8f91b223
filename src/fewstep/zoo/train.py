"""Training of a small class-conditional diffusion model: seeded, resumable, and the same bits every time.

A step draws images, noise and one time from each of `batch` equal shares of the distribution of times (Kingma
et al. 2021, arXiv:2107.00630, appendix I.1), and takes AdamW one step down the velocity loss of `objective`.
The labels of some images are dropped, so that one network also learns the unconditional model that guidance
needs (Ho & Salimans 2022, arXiv:2207.12598). What is kept is an exponential moving average of the weights.

Every draw comes from a generator of its own, keyed by (seed, purpose, step). So torch's global generator is
never touched, no random state has to be kept, and a run that was interrupted anywhere continues to the same
weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.core.errors import InvalidInput
from fewstep.zoo import checkpoint, container, digits
from fewstep.zoo.dataset import ImageSet
from fewstep.zoo.network import UNet
from fewstep.zoo.objective import logistic_times, measured_loss, velocity_loss
from fewstep.zoo.trainconfig import TrainConfig
from fewstep.zoo.trainstate import TrainState

__all__ = ["DivergedError", "TrainConfig", "Trained", "TrainingProgress", "split", "train"]

LOG_EVERY = 50
"""Steps between lines of the log and calls of the progress callback."""


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class TrainingProgress:
    """What the progress callback is told, every 50 steps.

    Attributes:
        step: steps done, of `steps`.
        steps: steps in all.
        loss: mean of the training loss since the last call.
        held_out_loss: as last measured in this sitting, or None.
        seconds: time that the steps took so far, in all sittings.
        seconds_left: what the rest will take at this pace.
    """

    step: int
    steps: int
    loss: float
    held_out_loss: float | None
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        path: the checkpoint.
        digest: its digest.
        held_out_loss: loss of the averaged weights on images that were never trained on.
        train_loss: the same measurement on as many images that were.
        seconds: time that the steps took in all sittings; 0 when the finished file was there already.
        resumed_from: the step at which this sitting began.
    """

    path: Path
    digest: str
    held_out_loss: float
    train_loss: float
    seconds: float
    resumed_from: int


def train(
    config: TrainConfig,
    out: str | os.PathLike[str],
    *,
    data: ImageSet | None = None,
    resume: bool = True,
    progress: Callable[[TrainingProgress], None] | None = None,
    command: str | None = None,
) -> Trained:
    """Train a network and write it to `out`.

    Beside `out` there are, while it runs, `<name>.state.safetensors` (from which an interrupted run
    continues; it is removed at the end) and `<name>.log.jsonl` (one line every 50 steps and for each
    measurement; it stays). Interrupt it in any way: at most `config.state_every` steps are done again, to the
    same bits.

    Args:
        config: every setting; the defaults make the shipped digits model.
        out: path of the checkpoint, ending in .safetensors, in a folder that exists.
        data: the images; the digits of scikit-learn when None.
        resume: continue where the same run stopped, and do nothing when it is finished. False starts anew and
            replaces what is there.
        progress: called every 50 steps; an exception that it raises ends the run, which can be resumed.
        command: what the user typed, for the checkpoint's training facts.

    Raises:
        InvalidInput: the data do not fit the network, or `out` belongs to another run.
        DivergedError: the loss became NaN or infinite.
    """
    out = Path(out)
    data = digits.load() if data is None else data
    _check(config, data, out)
    state_path, log_path = out.with_suffix(".state.safetensors"), out.with_suffix(".log.jsonl")
    identity = {"config": config.identity(), "data": {"name": data.name, "digest": data.digest}}
    if not resume:
        state_path.unlink(missing_ok=True)
    elif out.exists():
        finished = _finished(out, identity)
        if finished is not None:
            state_path.unlink(missing_ok=True)
            return finished
        if not state_path.exists():
            raise InvalidInput(
                f"{out} exists already, made by another run; give another path, "
                "or start anew with resume=False, which replaces it"
            )
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        state = TrainState.fresh(config.network, _key(config.seed, "network", 0), config.weight_decay)
        if state_path.exists():
            state.restore(state_path, identity)
        _cut_log(log_path, state.step)
        return _run(
            config,
            data,
            out,
            state,
            identity,
            progress,
            command or f"fewstep train {data.name} --seed {config.seed}",
        )
    finally:
        torch.set_num_threads(threads)


def split(config: TrainConfig, data: ImageSet) -> tuple[ImageSet, ImageSet]:
    """(training, held out): the images that a run with this config trains on, and those that it never sees."""
    return data.split(config.held_out, _key(config.seed, "split", 0))


def _run(
    config: TrainConfig,
    data: ImageSet,
    out: Path,
    state: TrainState,
    identity: dict[str, Any],
    progress: Callable[[TrainingProgress], None] | None,
    command: str,
) -> Trained:
    state_path, log_path = out.with_suffix(".state.safetensors"), out.with_suffix(".log.jsonl")
    kept, held = split(config, data)
    resumed_from, losses = state.step, None
    while state.step < config.steps:
        began = time.perf_counter()
        state.recent.append(_step(config, kept, state))
        state.seconds += time.perf_counter() - began
        step, last = state.step, state.step == config.steps
        if last or step % config.validate_every == 0:
            losses = _measure(config, state, kept, held)
            _log(log_path, {"step": step, "held_out_loss": losses[0], "train_loss": losses[1]})
        mean = sum(state.recent) / len(state.recent)
        report = last or step % LOG_EVERY == 0
        if report:
            state.recent = []
            seconds = round(state.seconds, 2)
            _log(log_path, {"step": step, "loss": mean, "rate": config.rate(step - 1), "seconds": seconds})
        if not last and step % config.state_every == 0:
            state.save(state_path, identity)
        if report and progress is not None:
            left = state.seconds / step * (config.steps - step)
            progress(TrainingProgress(step, config.steps, mean, losses and losses[0], state.seconds, left))
    held_out_loss, train_loss = losses or _measure(config, state, kept, held)
    facts = {
        **identity,
        "command": command,
        "seed": config.seed,
        "steps": config.steps,
        "trained_on": len(kept),
        "held_out": len(held),
        "held_out_loss": held_out_loss,
        "train_loss": train_loss,
        "torch": torch.__version__,
    }
    spec = checkpoint.Spec(config.network, "v_prediction", config.schedule, data.value_range, facts)
    digest = checkpoint.save(out, _averaged(state), spec)
    state_path.unlink(missing_ok=True)
    return Trained(out, digest, held_out_loss, train_loss, state.seconds, resumed_from)


def _step(config: TrainConfig, data: ImageSet, state: TrainState) -> float:
    """One step of the optimiser and of the moving average. Returns the loss."""
    step, network, optimiser = state.step, state.network, state.optimiser
    draw = torch.Generator().manual_seed(_key(config.seed, "step", step))
    members = _members(config, len(data), step)
    images, labels = data.images[members], data.labels[members]
    dropped = torch.rand(config.batch, generator=draw) < config.class_dropout
    labels = torch.where(dropped, config.network.null_class, labels)
    share = (torch.arange(config.batch) + torch.rand((), generator=draw, dtype=torch.float64)) / config.batch
    t = logistic_times(config.schedule, share.numpy(), config.lambda_spread)
    noise = torch.randn(images.shape, generator=draw)
    loss = velocity_loss(network, config.schedule, images, labels, t, noise)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergedError(
            f"the loss is {value} at step {step + 1}; lower learning_rate ({config.learning_rate:g}) and start anew"
        )
    for group in optimiser.param_groups:
        group["lr"] = config.rate(step)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    optimiser.step()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            state.average[name].lerp_(parameter, 1 - config.decay(step))
    state.step = step + 1
    return value


def _measure(config: TrainConfig, state: TrainState, kept: ImageSet, held: ImageSet) -> tuple[float, float]:
    """Loss of the averaged weights on the held-out images, and on as many training images, evenly picked."""
    picked = torch.linspace(0, len(kept) - 1, min(len(held), len(kept))).round().long()
    seed = _key(config.seed, "measure", 0)

    def averaged(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return functional_call(state.network, state.average, (x, t, label))

    return (
        measured_loss(averaged, config.schedule, held.images, held.labels, seed),
        measured_loss(averaged, config.schedule, kept.images[picked], kept.labels[picked], seed),
    )


def _averaged(state: TrainState) -> UNet:
    """The network with the averaged weights (the state is spent)."""
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            parameter.copy_(state.average[name])
    return state.network


def _members(config: TrainConfig, count: int, step: int) -> Tensor:
    """Indices of the images of a step: every image once in each epoch, in an order keyed by the epoch."""
    places = torch.arange(step * config.batch, (step + 1) * config.batch)
    epochs, members = places // count, torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        order = torch.randperm(count, generator=torch.Generator().manual_seed(_key(config.seed, "epoch", epoch)))
        here = epochs == epoch
        members[here] = order[places[here] % count]
    return members


def _key(seed: int, purpose: str, index: int) -> int:
    """A 63-bit seed for one purpose, unrelated to that of any other seed, purpose or index."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {index}".encode()).digest()[:8], "big") >> 1


def _check(config: TrainConfig, data: ImageSet, out: Path) -> None:
    network = config.network
    if tuple(data.images.shape[1:]) != network.sample_shape or data.classes != network.classes:
        raise InvalidInput(
            f"the data {data.name!r} are images of {tuple(data.images.shape[1:])} in {data.classes} classes, "
            f"but the network takes {network.sample_shape} in {network.classes}; "
            "set its channels, size and classes to those of the data"
        )
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise InvalidInput(f"cannot write {out}; give a path that ends in .safetensors, in a folder that exists")


def _finished(out: Path, identity: dict[str, Any]) -> Trained | None:
    """What `out` already holds, when it is the result of this very run."""
    loaded = checkpoint.load(out, max_bytes=1 << 30)
    facts = loaded.spec.training
    if any(facts.get(key) != value for key, value in identity.items()):
        return None
    return Trained(out, loaded.digest, facts["held_out_loss"], facts["train_loss"], 0.0, facts["steps"])


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines after `step`, and one that a crash left unfinished: the steps will be done, and logged,
    again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = []
    for line in lines:
        try:
            whole = line.endswith("\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            break
        kept.append(line)
    container.write_bytes(path, "".join(kept).encode())
