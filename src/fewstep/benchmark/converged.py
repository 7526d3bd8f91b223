"""The converged solution of all images at one guidance scale: solved once, kept as a file, checked when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.measure import stored
from fewstep.tuning import Problem
from fewstep.tuning.teacher import find_teacher

KIND = "converged solution"
PILOT, SHARE = 8, 0.05
"""On how many images the plan that solves is found, and what share of the judged plan's error its last doubling of
steps may have moved them; of a third order, it is then within an eighth of that."""
FINDING, SOLVING = 216, 96
"""Evaluations of one image that finding the plan takes, about, and solving with it."""


@dataclass(frozen=True, eq=False)
class Converged:
    """Where the exact flow takes the noise of some images.

    Attributes:
        solution: (n, ..) states, in the order of the images, on the host.
        teacher: the plan that solved it: sampler, grid, steps; `error`, root mean square, by which its last doubling
            of steps moved the first images; `evaluations` that it took to find.
    """

    solution: Tensor
    teacher: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the solution and how it was found."""
        state = hashlib.sha256(repr(sorted(self.teacher.items())).encode())
        state.update(self.solution.double().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    @property
    def variance(self) -> float:
        """The mean over values of their variance over images."""
        return float(self.solution.double().var(dim=0).mean())


def solve(problem: Problem, numbers: Sequence[int], judged: Plan, watch: Callable[[int, int], None]) -> Converged:
    """Find the plan that solves, and solve. `watch` is told how many batches are done, of how many.

    Raises `InvalidInput` where the model gives no finite images.
    """
    parts = problem.parts(numbers)
    watch(0, len(parts) + 1)
    found = find_teacher(problem, list(numbers[:PILOT]), judged, share=SHARE)
    solved = []
    for done, part in enumerate(parts, 1):
        watch(done, len(parts) + 1)
        solved.append(problem.solve(found.plan, part).cpu())
    recipe = found.plan.recipe
    teacher = {
        "sampler": recipe.sampler,
        "grid": recipe.grid,
        "steps": recipe.steps,
        "error": found.error,
        "evaluations": found.evaluations,
    }
    solution = torch.cat(solved)
    if not bool(solution.isfinite().all()):
        raise InvalidInput(f"the converged images of {problem.name} are not all finite: try `fewstep doctor`")
    return Converged(solution, teacher)


def save(path: Path, converged: Converged, key: str) -> None:
    """Write the file, whole or not at all."""
    document = {"teacher": dict(converged.teacher), "digest": converged.digest, "key": key}
    stored.write(path, KIND, {"solution": converged.solution}, document)


def read(path: Path, key: str) -> Converged:
    """Read a file of `save`. Raises `InvalidInput` where it is none, of another key, or was changed since."""
    try:
        tensors, document = stored.read(path, KIND, ("solution",), ("teacher", "digest", "key"))
    except InvalidInput as error:
        raise InvalidInput(f"{error}. Delete {path}, and it is solved again") from error
    converged = Converged(tensors["solution"], document["teacher"])
    if document["key"] != key or converged.digest != document["digest"]:
        raise InvalidInput(f"{path} was changed since it was written: delete it, it is solved again")
    return converged
