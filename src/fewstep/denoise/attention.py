"""Self-attention with the identity in place of its map, for the last images of a batch.

Attention layers are those of diffusers (`Attention`, with to_q, to_k, to_v and to_out), in a UNet or a transformer.
Each chosen layer gets a forward hook once, and keeps it. The hook asks a context variable whether any images are
perturbed, which each thread and task has for itself. So threads may share a network, with or without perturbation, and
its attention processors are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from fewstep.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("to_q", "to_k", "to_v", "to_out", "heads", "residual_connection", "rescale_output_factor")


class _Active(NamedTuple):
    layers: frozenset[int]  # ids of the modules
    batch: int
    last: int


_active: ContextVar[_Active | None] = ContextVar("perturbed_attention", default=None)


def self_attention(module: Any) -> dict[str, nn.Module]:
    """The self-attention layers of a module by name; joint attention over text and image is not among them."""
    modules = module.named_modules() if hasattr(module, "named_modules") else ()
    return {name: m for name, m in modules if all(hasattr(m, part) for part in PARTS) and _is_plain(m)}


def named(module: Any, layers: Sequence[str]) -> dict[str, nn.Module]:
    """The self-attention layers that `layers` names, whole words such as "mid" or "up_blocks.1".

    Raises:
        InvalidInput: where the module has no such layer.
    """
    known = self_attention(module)
    if not known:
        raise InvalidInput(
            f"perturbed attention needs a torch module with self-attention layers as in diffusers (with "
            f"{', '.join(PARTS[:4])}), {type(module).__name__} has none: give fewstep.Network(.., module=) "
            "where it is wrapped, or use the guidance method 'cfg'"
        )
    chosen = {}
    for word in layers:
        pattern = re.compile(rf"(^|[._]){re.escape(word)}([._]|$)")
        matches = {name: m for name, m in known.items() if pattern.search(name)}
        if not matches:
            raise InvalidInput(f"no self-attention layer is named {word!r}: known are {', '.join(known)}")
        chosen |= matches
    return chosen


def install(module: Any, layers: Sequence[str]) -> frozenset[int]:
    """Prepare the self-attention layers that `layers` names; their ids."""
    chosen = named(module, layers).values()
    for layer in chosen:
        if _identity not in layer._forward_hooks.values():
            layer.register_forward_hook(_identity, with_kwargs=True)
    return frozenset(id(layer) for layer in chosen)


@contextmanager
def perturbed(layers: frozenset[int], batch: int, last: int) -> Iterator[None]:
    """Within, in this thread or task alone, the `last` images of every batch of `batch` have the identity for the
    attention map of the `layers`.
    """
    token = _active.set(_Active(layers, batch, last))
    try:
        yield
    finally:
        _active.reset(token)


def _is_plain(attention: Any) -> bool:
    """Whether the layer attends from an image to itself, with a value for each head."""
    joint = (
        getattr(attention, "added_kv_proj_dim", None) is not None or getattr(attention, "add_v_proj", None) is not None
    )
    cross = getattr(attention, "is_cross_attention", False)
    grouped = getattr(attention, "inner_kv_dim", None) != getattr(attention, "inner_dim", None)
    return not (joint or cross or grouped) and type(attention.to_out).__name__ == "ModuleList"


def _identity(attention: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Tensor) -> Tensor | None:
    """The hook: where images are perturbed, their output is to_out(to_v(x)), as each place attends to itself alone."""
    active = _active.get()
    if active is None or id(attention) not in active.layers:
        return None
    x: Tensor = arguments[0] if arguments else named["hidden_states"]
    context = named.get("encoder_hidden_states", arguments[1] if len(arguments) > 1 else None)
    if context is not None or x.shape[0] != active.batch:
        what = "attends to another sequence" if context is not None else f"saw a batch of {x.shape[0]}"
        raise InvalidInput(
            f"a perturbed self-attention layer {what}, while the network was given {active.batch} images: leave it out "
            "of layers="
        )
    h = residual = x[-active.last :]
    if attention.spatial_norm is not None:
        raise InvalidInput("a self-attention layer with a spatial norm cannot be perturbed: leave it out of layers=")
    if h.ndim == 4:
        h = h.flatten(2).transpose(1, 2)
    if attention.group_norm is not None:
        h = attention.group_norm(h.transpose(1, 2)).transpose(1, 2)
    h = attention.to_out[1](attention.to_out[0](attention.to_v(h)))
    if x.ndim == 4:
        h = h.transpose(1, 2).reshape(residual.shape)
    if attention.residual_connection:
        h = h + residual
    return output.slice_scatter(h / attention.rescale_output_factor, start=active.batch - active.last)
