"""What the figures of a bench mean, in words for people."""

from __future__ import annotations

from collections.abc import Iterable

MEANS = {
    "error": "root mean square distance to the converged solution from the same noise, in the states of the network",
    "typical": "the error of the typical image: the geometric mean over images",
    "quality": "share of the converged images' variance that is reached, at most 1",
    "psnr": "PSNR of the pictures against the converged ones, in decibels",
    "diversity": "mean distance of two images on features, or on pictures of 8 x 8 where there are none",
    "saturation": "share of pixels at the ends of the range",
    "adherence": "share of pictures that show all that the prompt names, and nothing else",
    "distance": "Frechet distance of the pictures to real ones; nothing is compared with the converged solution here",
    "clip": "CLIP's score of a picture under its prompt",
}
"""Each figure by its name."""


def meaning(names: Iterable[str]) -> dict[str, str]:
    """What some of the figures mean, in the order of `MEANS`; names without a meaning are left out."""
    wanted = set(names)
    return {name: words for name, words in MEANS.items() if name in wanted}


def lacking(name: str, why: str) -> str:
    """A sentence on a figure that could not be had."""
    means = f" It would be the {MEANS[name]}." if name in MEANS else ""
    return f"No column {name}: {why}.{means}"
