"""Small models that are trained by fewstep itself: the shipped digits and scenes, their data and their networks.

    loaded = zoo.load_shipped("digits")  # network(x, t, label), spec, digest
    folder = zoo.shipped_path("scenes")  # a text-to-image model in the format of diffusers

`fewstep.recipes` trains them.
"""

from __future__ import annotations

from pathlib import Path

from fewstep.core.errors import InvalidInput, unknown_name
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

SHIPPED = ("digits", "scenes", "scenes-turbo")
"""Names of the models that come with the package."""


def shipped_path(name: str) -> Path:
    """Where a shipped model lies: a file for the digits, a folder for the scenes and for their student.

    Raises `InvalidInput` for a name that is not in `SHIPPED`."""
    if name not in SHIPPED:
        raise unknown_name("shipped model", name, SHIPPED)
    folder = Path(__file__).parent / "weights" / name
    return folder if folder.is_dir() else folder.with_suffix(".safetensors")


def load_shipped(name: str = "digits") -> Loaded:
    """Load the network of a shipped model by name. Raises `InvalidInput` where it is not a single network."""
    path = shipped_path(name)
    if path.is_dir():
        raise InvalidInput(f"{name} is a pipeline of several networks: fewstep.load({name!r}) loads it")
    return load(path)
