"""A model whose network, or VAE, is compiled ahead of time for fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.models import Identity, Model
from fewstep.models.codec import Latents
from fewstep.variants.compiled import Compiled
from fewstep.variants.network import call_of, module_of, with_network
from fewstep.variants.store import Store

COMPILED = "compiled"


def compile_model(model: Model, batches: Sequence[int] = (1,), *, store: Store | None = None) -> Model:
    """The model with its network compiled, for drawings of so many images at once.

    Under guidance the network sees each image twice, so it is compiled for twice as many too. Compiling takes a minute
    or more for each size and is done when it is first needed; the next process finds it in `store`.

    Raises `InvalidInput` for a callable, for a model that is compiled already, and without a compiler.
    """
    if isinstance(model.network, Compiled):
        raise InvalidInput(f"{model.name} is compiled already")
    module, twice = module_of(model), 1 if model.teacher is not None else 2
    sizes = [size for batch in batches for size in {batch, twice * batch}]
    digest = without_codec(model.identity).digest
    network = Compiled(call_of(model), module, digest, sizes, store or Store())
    dtype = model.dtype or next(iter(model.dtypes), None)
    return with_network(model, network, {COMPILED: "yes"}, dtype=dtype)


def compile_codec(model: Model, batches: Sequence[int] = (1,), *, store: Store | None = None) -> Model:
    """The model with its VAE's decoder compiled, for so many images at once. Raises as `compile_model`."""
    codec = model.codec
    if not isinstance(codec, Latents):
        raise InvalidInput(f"{model.name} draws pixels, which no VAE decodes: there is nothing to compile")
    if codec.decoder is not None:
        raise InvalidInput(f"the VAE of {model.name} is compiled already")
    decoder = Compiled(
        decode, codec.vae, f"{codec.digest or model.digest} decoder", batches, store or Store(), "the VAE"
    )
    identity = replace(model.identity, variant={**model.identity.variant, "codec compiled": "yes"})
    return replace(model, codec=replace(codec, decoder=decoder), identity=identity)


def compile_seconds(model: Model) -> float:
    """That compiling took of what a model has met so far."""
    decoder = model.codec.decoder if isinstance(model.codec, Latents) else None
    return sum(one.seconds for one in (model.network, decoder) if isinstance(one, Compiled))


def without_codec(identity: Identity) -> Identity:
    """Of the network alone, whatever was made of the VAE."""
    kept = {name: value for name, value in identity.variant.items() if not name.startswith("codec")}
    return replace(identity, variant=kept)


def decode(vae: Any, z: Tensor) -> Tensor:
    """What a VAE of diffusers makes of its latents."""
    return vae.decode(z, return_dict=False)[0]
