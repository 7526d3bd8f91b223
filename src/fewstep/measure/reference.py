"""The converged solution: where the exact flow takes given noise, and how well that is known.

A tight adaptive solve is compared with one at ten times its tolerance. What the two differ by is the error of the
looser one, up to a factor near 1, so it bounds the error of the tighter one, which is the solution. The flow is
followed to the schedule's `t_min`, and the network's estimate there is the image: below `t_min` it was not trained.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.adaptive import sample_adaptive
from fewstep.core.errors import InvalidInput, positive
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, as_denoiser
from fewstep.measure import stored
from fewstep.measure.counting import counted
from fewstep.run.noise import START, seeds_of, unit_noise

KIND = "trajectory reference"
LOOSER = 10.0
"""How much looser the second solve is."""

Model = Denoiser | Callable[[Tensor, Tensor], Tensor]
"""What is sampled from: a denoiser, or a callable `(x, t) -> x0`."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Converged solutions of one model from given noise, to measure many plans against.

    Attributes:
        noise: unit noise (B, ..); `solution` (B, ..) is where it ends.
        error: (B,) root mean square difference of the two solves, float64: a bound of the solution's own error.
        rtol, atol: of the tighter solve.
        nfe: network evaluations per image that both solves spent, counted.
        schedule: fingerprint of the noise schedule.
        model: what the caller names the model by, a digest above all; may be empty.
    """

    noise: Tensor
    solution: Tensor
    error: Tensor
    rtol: float
    atol: float
    nfe: float
    schedule: str
    model: str

    @staticmethod
    def solve(
        denoiser: Model,
        *,
        schedule: Schedule | None = None,
        shape: Sequence[int] | None = None,
        noise: Tensor | None = None,
        seed: int | Sequence[int] = 0,
        device: torch.device | str | None = None,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        model: str = "",
        max_evaluations: int = 10_000,
    ) -> Reference:
        """Solve twice, at ten times the tolerances and at the tolerances.

        Args:
            denoiser: any that `sample_adaptive` takes.
            schedule: the denoiser's own where it has one.
            shape, seed, device: of unit noise, the same as `fewstep.sample` draws from these; or give `noise` (B, ..).
                In float64 the solve goes below float32's rounding.
            rtol, atol: as in `sample_adaptive`.
            model: names the model, such as its digest; `trajectory_error` compares it where both sides are named.
            max_evaluations: give up beyond this many in one solve.

        Raises:
            InvalidInput: for a denoiser that follows the rows of a plan, tolerances that are not above zero, or a solve
                that takes too many evaluations.
        """
        denoiser = as_denoiser(denoiser)
        schedule = schedule or denoiser.schedule
        if schedule is None:
            raise InvalidInput("this denoiser does not know its noise schedule: give schedule=")
        rtol, atol = positive("rtol", rtol), positive("atol", atol)
        z = starting_noise(shape, noise, seed, device)
        own, count = counted(denoiser)
        loose, tight = (
            sample_adaptive(
                own,
                schedule=schedule,
                noise=z,
                seed=seed,
                rtol=factor * rtol,
                atol=factor * atol,
                max_evaluations=max_evaluations,
            ).sample
            for factor in (LOOSER, 1.0)
        )
        error = rms(tight, loose)
        return Reference(z, tight, error, rtol, atol, count.images / len(z), schedule.fingerprint, model)

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the model's name, the noise schedule, the noise and the solution."""
        state = hashlib.sha256(f"{self.model}\0{self.schedule}\0{tuple(self.noise.shape)}".encode())
        for tensor in (self.noise, self.solution):
            state.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a safetensors file, so that a bench of many plans solves once."""
        facts = {name: getattr(self, name) for name in ("rtol", "atol", "nfe", "schedule", "model")}
        tensors = {name: getattr(self, name) for name in ("noise", "solution", "error")}
        stored.write(path, KIND, tensors, {**facts, "digest": self.digest})

    @staticmethod
    def load(path: str | os.PathLike[str], device: torch.device | str | None = None) -> Reference:
        """Read a file of `save`. Raises `InvalidInput` where it is none, or was changed since."""
        names, facts = ("noise", "solution", "error"), ("rtol", "atol", "nfe", "schedule", "model")
        tensors, document = stored.read(path, KIND, names, (*facts, "digest"))
        noise, solution, error = (tensors[name].to(device) for name in names)
        if noise.shape != solution.shape or noise.ndim < 2 or error.shape != noise.shape[:1]:
            raise InvalidInput(f"{path}: the shapes of noise, solution and error do not fit: make it again")
        reference = Reference(noise, solution, error, *(document[name] for name in facts))
        if reference.digest != document["digest"]:
            raise InvalidInput(f"{path} was changed since it was written: its digest does not fit. Make it again")
        return reference


def starting_noise(
    shape: Sequence[int] | None, noise: Tensor | None, seed: int | Sequence[int], device: torch.device | str | None
) -> Tensor:
    """Unit noise (B, ..), from exactly one of `shape` and `noise`."""
    if (shape is None) == (noise is None):
        raise InvalidInput(f"give exactly one of shape and noise, got {'none' if shape is None else 'both'}")
    if noise is not None:
        if noise.ndim < 2 or not len(noise) or not noise.is_floating_point():
            raise InvalidInput(f"noise is a floating point tensor (batch, ..), got {noise.dtype} {tuple(noise.shape)}")
        return noise
    sizes = tuple(shape or ())
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise InvalidInput(f"shape must be (batch, ..) of positive sizes, got {shape!r}")
    return unit_noise(seeds_of(seed, sizes[0]), START, torch.empty(sizes, device=device))


def rms(x: Tensor, y: Tensor) -> Tensor:
    """Root mean square difference of each image, (B,), float64 on the host."""
    return (x.detach().double() - y.detach().double()).square().flatten(1).mean(dim=1).sqrt().cpu()
