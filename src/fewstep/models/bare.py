"""A model whose network is a configuration alone, `unet/config.json`: its weights are made by a seed, to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.models.assembly import NETWORKS, Parts, Place
from fewstep.models.folder import PICKLES
from fewstep.models.parts import built, checked_config, convert, on_device
from fewstep.zoo.container import Header


def is_bare(path: Path) -> bool:
    """Whether a folder holds a whole model whose network has a configuration and no weights."""
    networks = [path / name for name in NETWORKS if (path / name / "config.json").is_file()]
    return (path / "model_index.json").is_file() and any(not has_weights(folder) for folder in networks)


def has_weights(folder: Path) -> bool:
    """Whether the folder of a part holds a file of weights, of whatever name."""
    return any(file.suffix in (".safetensors", *PICKLES) for file in folder.iterdir())


class Bare(Parts):
    """The parts of such a folder; the weights of the network depend on the seed alone."""

    def __init__(self, path: Path, place: Place, seed: int):
        super().__init__(path, place)
        self.seed = seed

    def module_in(self, folder: Path, kind: str, dtype: torch.dtype | None = None) -> Any:
        if folder.name not in NETWORKS:
            return super().module_in(folder, kind, dtype)
        config = checked_config(folder / "config.json")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                module = built(kind, config)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                f"{folder}/config.json cannot be made a {kind}: {type(error).__name__}: {str(error)[:400]}"
            ) from error
        convert(module, dtype or self.place.dtype)
        self.files[folder.name] = [folder / "config.json"]
        return on_device(module.eval().requires_grad_(False), self.place.device)

    def headers(self) -> list[Header]:
        """None, as there are no weights that could say what they are."""
        return []
