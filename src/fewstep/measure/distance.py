"""How far images are from those that they should be: of each image, and of all of them by an objective."""

from __future__ import annotations

import torch
from torch import Tensor

OBJECTIVES = ("rmse", "psnr")
"""What a plan is judged by, see `overall`."""
LEAST_ERROR = 1e-24
"""Of an image, mean squared: as if exact."""


def squares(results: Tensor, targets: Tensor) -> Tensor:
    """Mean squared distance of each image, (B,), float64; infinite where a result is not finite."""
    each = (results.detach().double() - targets.detach().double()).square().flatten(1).mean(dim=1)
    return each.nan_to_num(nan=torch.inf)


def over_images(errors: Tensor, objective: str) -> Tensor:
    """The error of a plan from the mean squared errors of images, over the last dimension.

    By "rmse" it is the root mean square over all of them; where the paths of a few images fork, these decide it. By
    "psnr" it is the geometric mean of the images' root mean squares, the one that goes with their mean PSNR: each image
    counts by its own factor.
    """
    if objective == "psnr":
        return errors.clamp(min=LEAST_ERROR).log().mean(dim=-1).div(2).exp()
    return errors.mean(dim=-1).sqrt()


def overall(errors: Tensor, objective: str = "rmse") -> float:
    """`over_images` of the errors (B,) of one plan."""
    return float(over_images(errors, objective))
