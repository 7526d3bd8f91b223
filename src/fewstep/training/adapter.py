"""Training a low-rank change in the place of a network's weights (LoRA, Hu et al. 2021, arXiv 2106.09685), by peft.

    W + alpha / rank B A,      B = 0 at first

The network that is changed shares its own weights with the one it was made from, so a teacher and its student are one
copy in memory, and the teacher is the student without its change.
"""

from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.models.lowrank import Changes, LowRank, add, is_layer

NAME = "student"
"""What the change is called within peft's layers."""
TARGETS = ("all", "linear", "attention")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
OWN_ATTENTION = ("attention.query_key_value", "attention.out")
"""Of the project's own U-Net, in which they are convolutions of one pixel."""
MOST_RANK = 1024


@dataclass(frozen=True)
class Adapter:
    """What is trained in the place of all weights.

    Attributes:
        rank: of the change of each layer.
        alpha: the change counts alpha / rank; None is the rank.
        targets: the layers: "all" are linear ones and convolutions, those of the embedding of the time and of
            projections included; "linear" leaves the convolutions out; "attention" are queries, keys, values and the
            output of attention alone.
    """

    rank: int = 16
    alpha: float | None = None
    targets: str = "all"

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= MOST_RANK:
            raise InvalidInput(f"the rank of a LoRA must be a whole number from 1 to {MOST_RANK}, got {self.rank!r}")
        alpha = self.scale
        if isinstance(self.alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
            raise InvalidInput(f"the alpha of a LoRA must be a number above 0, got {self.alpha!r}")
        if self.targets not in TARGETS:
            raise unknown_name("targets of a LoRA", str(self.targets), TARGETS)

    @property
    def scale(self) -> float:
        """alpha."""
        return self.rank if self.alpha is None else self.alpha

    def layers(self, module: nn.Module) -> list[str]:
        """The names of the layers that are changed. Raises `InvalidInput` where there are none."""
        found = [name for name, layer in module.named_modules() if is_layer(layer) and self.takes(name, layer)]
        if not found:
            raise InvalidInput(
                f"a {type(module).__name__} has no layers for a LoRA with targets {self.targets!r}: use 'all', or "
                "train all of its weights"
            )
        return found

    def takes(self, name: str, layer: nn.Module) -> bool:
        """Whether a layer is among the targets."""
        if self.targets == "attention":
            return name.endswith(tuple(f".{end}" for end in ATTENTION)) or name in OWN_ATTENTION
        return self.targets == "all" or isinstance(layer, nn.Linear)

    def put_on(self, module: nn.Module, seed: int, whole: Sequence[str] = ()) -> None:
        """Put peft's layers in the place of the targets, A drawn by the seed; all else is frozen.

        Layers with weights that are trained `whole`, by name, stay as they are.
        """
        try:
            peft: Any = importlib.import_module("peft")
        except ImportError as error:
            raise InvalidInput("training a LoRA needs peft: pip install 'fewstep[lora]'") from error
        layers = [name for name in self.layers(module) if f"{name}.weight" not in whole]
        names = "|".join(map(re.escape, layers))  # as a list of names it takes their endings too
        settings = peft.LoraConfig(r=self.rank, lora_alpha=self.scale, target_modules=names)
        module.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(settings, module, adapter_name=NAME)


def is_change(name: str) -> bool:
    """Whether a weight is one of a change, by its name."""
    return name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"))


def changes_of(module: nn.Module) -> Changes:
    """What was trained on a module, with alpha / rank in B."""
    found: dict[str, LowRank] = {}
    for name, layer in _changed(module):
        down, up = (getattr(layer, f"lora_{letter}")[NAME].weight.detach() for letter in "AB")
        found[name] = LowRank(down.clone(), up * layer.scaling[NAME])
    return Changes(found)


def taken_off(module: nn.Module) -> nn.Module:
    """The module with its own layers in the place of peft's."""
    for name, layer in _changed(module):
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())
    return module


def merged(module: nn.Module) -> tuple[nn.Module, Changes]:
    """A plain network of its own with what was trained on a module, and that as changes. The module loses them."""
    changes = changes_of(module)
    plain = copy.deepcopy(taken_off(module))
    add(plain, changes)
    return plain.eval().requires_grad_(False), changes


def _changed(module: nn.Module) -> list[tuple[str, Any]]:
    kind = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kind)]
