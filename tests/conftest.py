"""Tiny models that the rooms share, made once in a session and never written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # the ground floors are tested without torch's weight
    from fewstep.pipeline import Pipeline
    from models.tiny_diffusers import Twins


@pytest.fixture
def pipe(tmp_path: Path) -> Pipeline:
    """A model of three classes whose states are pixels."""
    from fewstep.pipeline import load
    from models.tiny import write

    return load(write(tmp_path / "tiny.safetensors"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Twins]:
    """The model of a family of `tiny_diffusers`."""
    from models.tiny_diffusers import twins

    made: dict[str, Twins] = {}

    def get(name: str, **options: Any) -> Twins:
        key = "-".join([name, *(f"{k}-{v}" for k, v in options.items())])
        if key not in made:
            made[key] = twins(name, tmp_path_factory.mktemp("models") / key, **options)
        return made[key]

    return get


@pytest.fixture(scope="session")
def weak(models: Callable[..., Twins], tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The model `sd` with another network."""
    from fewstep.pipeline import load
    from models.by_hand import other_unet

    return load(other_unet(models("sd").folder, tmp_path_factory.mktemp("models") / "weak"))
