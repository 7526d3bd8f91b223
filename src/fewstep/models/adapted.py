"""A model in a folder that holds only what differs from a shipped one, by whose name it says what it is made of.

    fewstep.json                         {"base": "scenes", "sampling": .., "guidance": ..}
    pytorch_lora_weights.safetensors     low-rank changes of the network; diffusers' load_lora_weights takes it
    differences.safetensors              changes of what no LoRA holds; either of the two may be missing
    distillation.json                    of a student, how it was trained; may be missing

It is a model of its own: with a name, a digest of both, and what it recommends. The changes are added in float32,
whatever the model then runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fewstep import zoo
from fewstep.core.errors import InvalidInput, shown
from fewstep.models import folder as folders
from fewstep.models import lowrank
from fewstep.models.assembly import NETWORKS, Parts, Place
from fewstep.models.parts import convert, load_part, on_device

FACTS, BASE = "fewstep.json", "base"


def is_adapted(path: Path) -> bool:
    """Whether a folder holds changes of a shipped model, and no model of its own."""
    facts = path / FACTS
    return facts.is_file() and not (path / "model_index.json").exists() and BASE in folders.read_json(facts)


def bases() -> list[str]:
    """The shipped models that changes may be of: those in the format of diffusers."""
    return [name for name in zoo.SHIPPED if (zoo.shipped_path(name) / "model_index.json").is_file()]


class Adapted(Parts):
    """The parts of a shipped model, with the changes in a folder.

    Raises `InvalidInput` where the folder names no such model.
    """

    def __init__(self, path: Path, place: Place):
        base = folders.read_json(path / FACTS)[BASE]
        if base not in bases():
            raise InvalidInput(
                f"{path / FACTS} says that it is made of {shown(base)}; it may name a shipped model in the format of "
                f"diffusers, which are {', '.join(bases())}, and no path"
            )
        super().__init__(zoo.shipped_path(base), place)
        self.path = self.told = path

    def module(self, name: str, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module of a part, on the device, the network with the changes."""
        if name not in NETWORKS:
            return super().module(name, kind, dtype)
        folder, place = self.part(name), self.place
        module, weights = load_part(folder, kind, torch.float32, variant=self.variant(folder))
        try:
            lowrank.add(module, lowrank.read(self.path, name))
        except InvalidInput as error:
            raise InvalidInput(f"{self.path}: {error}") from error
        changes = [self.path / each for each in (lowrank.LORA_FILE, lowrank.REST_FILE)]
        self.files[name] = [folder / "config.json", *weights.files, *(file for file in changes if file.is_file())]
        convert(module, dtype or place.dtype)
        return on_device(module, place.device)

    def stated(self) -> Mapping[str, Any]:
        """What the folder recommends, beside the name of its base."""
        return {key: value for key, value in super().stated().items() if key != BASE}
