"""How a model is identified: by its weights and what they mean, and by what was made of them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.drawing.lora import LoRA

MOST_TEXT = 1000


@dataclass(frozen=True)
class Identity:
    """The name of a model for people, and its digests for programs.

    Attributes:
        weights: 16 hexadecimal digits over the weights and what they mean, whatever was made of them since; the model
            of a tuned plan.
        variant: what was made of the weights, by name, such as {"dtype": "float16"}.
        anonymous: `weights` is a random digest, which no other load gets.
    """

    name: str
    weights: str
    variant: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the weights and the variant."""
        if not self.variant:
            return self.weights
        text = json.dumps([self.weights, dict(self.variant)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def merged(self) -> str:
        """As `digest`, in whatever dtype: over the weights and the LoRAs that are merged into them."""
        kept = {name: value for name, value in self.variant.items() if name != "dtype"}
        return replace(self, variant=kept).digest

    @property
    def hint(self) -> str:
        """What to add to an error about another digest; empty unless the model is anonymous."""
        if not self.anonymous:
            return ""
        return (
            ". A function is another model each time it is loaded, unless fewstep.NetworkSpec(digest=..) names what "
            "decides its output"
        )


def in_dtype(dtype: torch.dtype | None) -> dict[str, str]:
    """The variant of a model in a dtype: nothing to say of float32, which is the usual one."""
    return {} if dtype in (None, torch.float32) else {"dtype": str(dtype).removeprefix("torch.")}


def with_loras(loras: Sequence[LoRA]) -> dict[str, str]:
    """The variant of a model into which LoRAs are merged, in their order."""
    return {"lora": " ".join(map(str, loras))} if loras else {}


def of_callable(name: str, network: Callable[..., Any], given: str | None, *facts: Any) -> Identity:
    """The identity of a callable.

    Nobody can see what a function computes: two of one name may close over different things. So it is anonymous unless
    it is a module with weights, or the caller has `given` a text that names what decides its output.

    Raises:
        InvalidInput: `given` is not a text of 1 to 1000 characters.
    """
    if given is not None and not (isinstance(given, str) and 0 < len(given) <= MOST_TEXT):
        raise InvalidInput(
            f"digest must be a text of 1 to {MOST_TEXT} characters that changes whenever the network does, got "
            f"{given!r:.60}"
        )
    weights = network.state_dict() if isinstance(network, torch.nn.Module) else {}
    if not weights and given is None:
        return Identity(name, secrets.token_hex(8), anonymous=True)
    kind = [type(network).__module__, type(network).__qualname__] if weights else []
    return Identity(name, _tensors_digest(weights, *kind, given, *facts))


def _tensors_digest(weights: Mapping[str, torch.Tensor], *facts: Any) -> str:
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        state.update(f"\0{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
