"""By what a callable is known: a module by its weights, anything else by what its caller says, or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from fewstep.core.errors import InvalidInput

MOST_TEXT = 1000


class Identity(NamedTuple):
    """`digest`, 16 hexadecimal digits; `anonymous` where it is a random one, which no other load gets."""

    digest: str
    anonymous: bool


def identity_of(network: Callable[..., Any], given: str | None, *facts: Any) -> Identity:
    """The identity of a callable.

    What a function computes is not to be seen: two of one name differ in what they close over. So it is anonymous
    unless it is a module with weights, or the caller has `given` a text that names what decides its output.

    Raises:
        InvalidInput: `given` is no text of 1 to 1000 characters.
    """
    if given is not None and not (isinstance(given, str) and 0 < len(given) <= MOST_TEXT):
        raise InvalidInput(
            f"digest must be a text of 1 to {MOST_TEXT} characters that changes whenever the network does, got "
            f"{given!r:.60}"
        )
    weights = network.state_dict() if isinstance(network, torch.nn.Module) else {}
    if not weights and given is None:
        return Identity(secrets.token_hex(8), True)
    kind = [type(network).__module__, type(network).__qualname__] if weights else []
    return Identity(_tensors_digest(weights, *kind, given, *facts), False)


def hint(pipe: Any) -> str:
    """What to add to an error about a digest that is not the one of `pipe`; empty unless that is anonymous."""
    if not getattr(pipe, "anonymous", False):
        return ""
    return (
        ". A function is another model each time it is loaded, unless fewstep.load(.., digest=..) names what decides "
        "its output"
    )


def _tensors_digest(weights: Mapping[str, torch.Tensor], *facts: Any) -> str:
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        state.update(f"\0{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
