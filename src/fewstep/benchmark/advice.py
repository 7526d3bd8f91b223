"""What the field recommends by budget, for a model of which nothing is measured. It is advice, and not measurement.

Sources: consistency models (Song et al. 2023, arXiv 2303.01469), LCM (Luo et al. 2023, arXiv 2310.04378), TCD (Zheng
et al. 2024, arXiv 2402.19159), DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), UniPC (Zhao et al. 2023, arXiv
2302.04867), EDM (Karras et al. 2022, arXiv 2206.00364).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput


class Advice(NamedTuple):
    """What to take for plans of `least` to `most` rows, None for no end.

    Attributes:
        distilled: what the field takes for models that were distilled to few steps; "" where that does not matter.
        others: samplers for all other models, the first of which `fewstep choose` proposes.
        grid: of the proposal; `options` of its sampler.
        expect: what a model that is not distilled gives, in words.
    """

    least: int
    most: int | None
    distilled: str
    others: tuple[str, ...]
    grid: str
    options: Mapping[str, Any]
    expect: str


BLUR = "a blur, about the mean of all images: one step needs a distilled model"
OUTLINES = "outlines with little detail, often wrong: so few steps need a distilled model, or at least `fewstep tune`"

ADVICE: tuple[Advice, ...] = (
    Advice(1, 1, "consistency, or another distilled model", ("ddim",), "trailing", {}, BLUR),
    Advice(2, 4, "lcm or tcd, with their distilled models", ("ddim",), "trailing", {}, OUTLINES),
    Advice(5, 14, "", ("dpmpp-2m", "unipc-2"), "trailing", {}, "usable images, with errors that can be seen"),
    Advice(15, 29, "", ("dpmpp-2m", "edm"), "karras", {}, "images close to the converged ones"),
    Advice(30, 50, "", ("edm",), "karras", {"s_churn": 10.0}, "converged images, with fresh noise to mend errors"),
    Advice(51, None, "", ("edm",), "karras", {"s_churn": 40.0}, "hardly more than of 50"),
)


def advice_for(rows: int) -> Advice:
    """The advice for a plan of at most so many rows. Raises `InvalidInput` below 1."""
    for one in ADVICE:
        if one.least <= rows and (one.most is None or rows <= one.most):
            return one
    raise InvalidInput(f"a plan has at least 1 row, the budget allows {rows!r}")
