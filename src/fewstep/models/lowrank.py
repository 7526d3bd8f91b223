"""Changes of a network's weights that are small to store: low-rank ones of layers, and whole or rounded ones.

    W + B A       linear layers: A (r, in), B (out, r); convolutions: A (r, in, h, w), B (out, r, 1, 1)

That is LoRA (Hu et al. 2021, arXiv 2106.09685) with its scale inside B, so that alpha is the rank. The file is that of
diffusers' `load_lora_weights`, which states rank and alpha for readers that want them. What no LoRA holds lies in a
second file, as differences: biases and norms whole, and weights whose change is of full rank rounded to 8 bits.

The product is a sum of outer products in float64, one after the other, so a changed weight has the same bits whatever
the number of threads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput, shown
from fewstep.models.rounded import Rounded, stored, taken
from fewstep.zoo import container

LORA_FILE, REST_FILE = "pytorch_lora_weights.safetensors", "differences.safetensors"
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps rank and alpha."""
LARGEST_FILE = 4 << 30
_TENSOR = re.compile(r"(?P<part>[a-z_]+)\.(?P<layer>[\w.]+)\.lora_(?P<letter>[AB])\.weight")


class LowRank(NamedTuple):
    """A change of the weight of a layer: `down` is A and `up` is B, in the shapes of the module's docstring."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Its r."""
        return len(self.down)

    def product(self) -> Tensor:
        """B A in the shape of the weight, float64 on the host."""
        down, up = self.down.detach().cpu().double(), self.up.detach().cpu().double().flatten(1)
        rows = down.flatten(1)
        total = torch.zeros(len(up), rows.shape[1], dtype=torch.float64)
        for i, row in enumerate(rows):  # as a matrix product adds in an order that depends on the threads
            total += up[:, i, None] * row
        return total.reshape(len(up), *down.shape[1:])


@dataclass(frozen=True, eq=False)
class Changes:
    """What differs between two networks: low-rank changes by layer, and differences by the name of a tensor, whole or
    rounded.
    """

    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    rounded: Mapping[str, Rounded] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.low_rank or self.whole or self.rounded)

    def differences(self) -> dict[str, Tensor]:
        """Those that are not of low rank, float64 on the host."""
        whole = {name: tensor.cpu().double() for name, tensor in self.whole.items()}
        return whole | {name: one.tensor() for name, one in self.rounded.items()}


def is_layer(module: nn.Module) -> bool:
    """Whether the weight of a module takes a low-rank change: it is a linear layer, or a convolution of one group."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


@torch.no_grad()
def add(module: nn.Module, changes: Changes) -> None:
    """Change the weights of a network in place; each sum is rounded once to the weight's dtype.

    Raises `InvalidInput` for a layer or tensor that the network does not have, or that has another shape.
    """
    layers = {name: layer for name, layer in module.named_modules() if is_layer(layer)}
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    found: list[tuple[str, Tensor | None, Tensor]] = []
    for name, change in changes.low_rank.items():
        layer: Any = layers.get(name)
        found.append((name, None if layer is None else layer.weight, change.product()))
    found += [(name, tensors.get(name), tensor) for name, tensor in changes.differences().items()]
    for name, weight, difference in found:
        if weight is None or weight.shape != difference.shape:
            there = "none of that name" if weight is None else f"one of shape {tuple(weight.shape)}"
            raise InvalidInput(
                f"the change of {shown(name)} has shape {tuple(difference.shape)}, and the network has {there}: the "
                "change belongs to another network"
            )
        if not bool(difference.isfinite().all()):
            raise InvalidInput(f"the change of {shown(name)} has numbers that are not finite: make it again")
    for _, weight, difference in found:
        assert weight is not None
        weight.data = (weight.data.double() + difference.to(weight.device)).to(weight.dtype)


def write(folder: Path, part: str, changes: Changes) -> None:
    """Write the changes of a part, "unet" or "transformer", as the two files in a folder; no file where it is empty."""
    tensors: dict[str, Tensor] = {}
    for name, change in changes.low_rank.items():
        tensors |= {f"{part}.{name}.lora_A.weight": change.down, f"{part}.{name}.lora_B.weight": change.up}
    if tensors:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        told = {"format": "pt", METADATA: json.dumps(_configuration(part, changes.low_rank), sort_keys=True)}
        container.write_bytes(folder / LORA_FILE, safetensors.torch.save(plain, metadata=told))
    rest = {**changes.whole, **stored(changes.rounded)}
    if rest:
        container.write(folder / REST_FILE, {f"{part}.{name}": t for name, t in rest.items()}, {})


def read(folder: Path, part: str) -> Changes:
    """The changes of a part in the two files of a folder, either of which may be missing.

    Raises `InvalidInput` where there is none, and for one that is damaged or holds anything else.
    """
    low_rank: dict[str, dict[str, Tensor]] = {}
    lora, rest = folder / LORA_FILE, folder / REST_FILE
    if not lora.exists() and not rest.exists():
        raise InvalidInput(f"{folder} has neither {LORA_FILE} nor {REST_FILE}: fetch it again")
    if lora.exists():
        header = container.read(lora, LARGEST_FILE)
        for name, tensor in header.tensors().items():
            match = _TENSOR.fullmatch(name)
            if match is None or match["part"] != part:
                raise InvalidInput(f"{lora} has {shown(name)}, which is not a change of a layer of the {part}")
            low_rank.setdefault(match["layer"], {})[match["letter"]] = tensor
        _check_alpha(header, part, low_rank)
    whole = container.read(rest, LARGEST_FILE).tensors() if rest.exists() else {}
    strange = [name for name in whole if not name.startswith(f"{part}.")]
    if strange:
        raise InvalidInput(f"{rest} has {shown(strange[0])}, which is not of the {part}")
    differences = {name.removeprefix(f"{part}."): tensor for name, tensor in whole.items()}
    try:
        rounded = taken(differences)
    except InvalidInput as error:
        raise InvalidInput(f"{rest}: {error}") from error
    pairs = {name: _pair(lora, name, pair) for name, pair in low_rank.items()}
    return Changes(pairs, differences, rounded)


def _pair(path: Path, name: str, tensors: Mapping[str, Tensor]) -> LowRank:
    shapes = {letter: tuple(tensor.shape) for letter, tensor in tensors.items()}
    down, up = shapes.get("A", ()), shapes.get("B", ())
    if len(down) < 2 or len(up) != len(down) or up[1:] != (down[0], *[1] * (len(down) - 2)):
        raise InvalidInput(f"{path}: lora_A and lora_B of {shown(name)} do not fit together: {shapes}")
    return LowRank(tensors["A"], tensors["B"])


def _configuration(part: str, changes: Mapping[str, LowRank]) -> dict[str, Any]:
    """Rank and alpha as peft states them: the usual one, and by name those that differ from it."""
    ranks = {name: change.rank for name, change in changes.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    facts = {"r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": others}
    return {f"{part}.{key}": value for key, value in {**facts, "target_modules": sorted(ranks)}.items()}


def _check_alpha(header: container.Header, part: str, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise `InvalidInput` where a file says that its change is to be scaled."""
    if METADATA not in header.metadata:
        return
    told = header.document(METADATA, "a LoRA of fewstep")
    patterns = told.get(f"{part}.alpha_pattern")
    for name, pair in tensors.items():
        alpha = (patterns if isinstance(patterns, Mapping) else {}).get(name, told.get(f"{part}.lora_alpha"))
        if "A" in pair and alpha != len(pair["A"]):
            raise InvalidInput(
                f"{header.path}: alpha of {shown(name)} is {shown(alpha)} at rank {len(pair['A'])}: here alpha is the "
                "rank, and the scale lies in lora_B"
            )
