"""Whether pictures of more pixels are drawn in fewer steps: one mixture of pictures in several sizes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from mixture import Mixture
from torch import Tensor
from torch.nn.functional import avg_pool2d

import fewstep as fs
from fewstep.core.schedule import Schedule
from fewstep.measure import Converged
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import draw_description, placed
from literature import intervals
from literature.claim import Check, Claim, Figures, Found, numbers

SIZES, LARGEST = (8, 16, 32, 64), 64
PICTURES, STD = 64, 0.1
STEPS, TOLERANCE = (4, 8), 1e-4
LEAST, SHARE = 16, 8
"""Noises at least, and one for so many of the images asked for."""
SCHEDULES = ("linear", "flow", "flow, shifted")


@lru_cache
def pictures(size: int) -> Tensor:
    """Scenes, (64, 3, size, size), float64 in [-1, 1]: the large ones averaged."""
    rng = np.random.default_rng(0)
    drawn = [picture(placed(draw_description(rng, held_out=False), rng)) for _ in range(PICTURES)]
    large = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).double() / 127.5 - 1
    return avg_pool2d(large, LARGEST // size)


def noise(size: int, count: int) -> Tensor:
    """Unit noise of the size: that of the largest averaged and scaled, so that all sizes start alike."""
    large = torch.randn(count, 3, LARGEST, LARGEST, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return avg_pool2d(large, LARGEST // size) * (LARGEST // size)


def schedule_of(name: str, size: int) -> Schedule:
    """The schedule of that name; shifted, the flow has at each size the noise that hides as much as at 8 pixels."""
    if name == "linear":
        return fs.schedules.linear()
    return fs.schedules.flow(shift=size / SIZES[0] if name == "flow, shifted" else 1.0)


def wrong(size: int, name: str, count: int) -> dict[tuple[str, int], Tensor]:
    """Mean squared errors (count,) by sampler and steps."""
    schedule = schedule_of(name, size)
    denoiser, start = Mixture(schedule, pictures(size), STD), noise(size, count)
    exact = Converged.solve(denoiser, start, tolerance=TOLERANCE).solution
    found = {}
    for sampler in ("euler", "dpmpp-2m"):
        for steps in STEPS:
            plan = fs.compile(sampler, schedule=schedule, steps=steps, grid="trailing", grid_options={"integer": False})
            found[sampler, steps] = (fs.sample(plan, denoiser, noise=start) - exact).square().flatten(1).mean(dim=1)
    return found


def resolution(_: str, images: int) -> Found:
    """Errors at each size, on each schedule."""
    count = max(LEAST, images // SHARE)
    rows, figures = [], {}
    for name in SCHEDULES:
        found = {size: wrong(size, name, count) for size in SIZES}
        rows += [[name, size, *(intervals.typical(one) for one in found[size].values())] for size in SIZES]
        for steps in STEPS:
            own = [found[size]["dpmpp-2m", steps] for size in SIZES]
            figures[f"{name}, {steps} steps"] = intervals.ratio(own[0], own[-1])
    return Found(rows, figures)


def resolution_checks(figures: Figures) -> list[Check]:
    """Less error at the largest size, on the schedules as they are."""
    names = [f"{name}, 8 steps" for name in ("linear", "flow")]
    return [
        Check(f"{name}: at 8 pixels the error is {figures[name]} times that at 64", figures[name].above(1.0))
        for name in names
    ]


CLAIMS = (
    Claim(
        key="resolution",
        title="Higher resolution tolerates fewer steps",
        says=(
            "The more pixels, the more of them repeat each other, and the fewer steps are needed. Papers say only that "
            "the schedule has to be shifted to more noise, as noise hides less where there are more pixels."
        ),
        sources=("simple diffusion, arXiv 2301.11093", "SD3, arXiv 2403.03206, section 5.3.2"),
        method=(
            f"{PICTURES} scenes as the means of a mixture whose denoiser is exact, averaged to 8, 16 and 32 pixels, "
            f"with noise of {STD:g} around each. All sizes start from the same noise, averaged as the pictures are. "
            "The error is the distance to the converged solution for each pixel, of the typical image, on even steps "
            "in time. Shifted, the flow has the shift size / 8, which makes up for the pixels."
        ),
        rule="`dpmpp-2m` in 8 steps must have surely less error at 64 pixels than at 8, on both schedules as they are.",
        columns=(
            "schedule", "pixels a side", *(f"{s}, {n} steps" for s in ("Euler", "`dpmpp-2m`") for n in STEPS),
        ),
        models=("pictures",),
        measure=resolution,
        checks=resolution_checks,
        here="error at 8 over 64 pixels, linear, flow",
        short=lambda figures: numbers(figures, ("linear, 8 steps", "flow, 8 steps")),
        missing="No network that ships is trained for two sizes, so a network's part in this is not measured.",
    ),
)  # fmt: skip
