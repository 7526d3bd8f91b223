"""Small models that are trained by fewstep itself: the shipped digits, and the code that made them.

    loaded = zoo.load_shipped("digits")  # network(x, t, label), spec, digest

Training, `fewstep.zoo.train`, is a module imported apart, so that sampling does not load it.
"""

from __future__ import annotations

from pathlib import Path

from fewstep.core.errors import unknown_name
from fewstep.zoo.checkpoint import Loaded, Spec, load, save
from fewstep.zoo.dataset import ImageSet
from fewstep.zoo.network import UNet, UNetConfig, build

__all__ = [
    "SHIPPED",
    "ImageSet",
    "Loaded",
    "Spec",
    "UNet",
    "UNetConfig",
    "build",
    "load",
    "load_shipped",
    "save",
    "shipped_path",
]

SHIPPED = ("digits",)
"""Names of the models that come with the package."""


def shipped_path(name: str) -> Path:
    """Where the file of a shipped model lies. Raises `InvalidInput` for a name that is not in `SHIPPED`."""
    if name not in SHIPPED:
        raise unknown_name("shipped model", name, SHIPPED)
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def load_shipped(name: str = "digits") -> Loaded:
    """Load a shipped model by name."""
    return load(shipped_path(name))
