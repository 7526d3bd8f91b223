from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fewstep.pipeline import Pipeline, TextPipeline, load

from . import tiny_diffusers
from .by_hand import other_unet
from .tiny import write


class Model(NamedTuple):
    """A tiny model: the native pipeline, diffusers' own, and the folder that both are from."""

    native: Any
    own: Any
    folder: Path


@pytest.fixture
def pipe(tmp_path: Path) -> Pipeline:
    return load(write(tmp_path / "tiny.safetensors"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """The model of a family of `tiny_diffusers`, made once and never written to."""
    made: dict[str, Model] = {}

    def get(name: str, **options: Any) -> Model:
        key = "-".join([name, *(f"{k}-{v}" for k, v in options.items())])
        if key not in made:
            folder = tmp_path_factory.mktemp("models") / key
            own = tiny_diffusers.write(name, folder, **options)
            made[key] = Model(load(folder), own, folder)
        return made[key]

    return get


@pytest.fixture(scope="session")
def weak(models: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory) -> TextPipeline:
    """The model `sd` with another network."""
    return load(other_unet(models("sd").folder, tmp_path_factory.mktemp("models") / "weak"))  # type: ignore[return-value]
