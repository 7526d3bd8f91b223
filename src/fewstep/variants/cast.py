"""A model in lower precision: its network, and apart from it what decodes."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.models import Model
from fewstep.models.codec import Latents
from fewstep.models.identity import in_dtype
from fewstep.models.loading import DTYPES as EVERY
from fewstep.models.parts import convert, on_device
from fewstep.models.quiet import quiet
from fewstep.variants.network import module_of, with_module

DTYPES = {name: dtype for name, dtype in EVERY.items() if dtype is not torch.float32}


def cast(model: Model, dtype: str) -> Model:
    """A copy of the model whose network runs in `dtype`, "float16" or "bfloat16"; its text encoders and VAE stay.

    Times and states stay in float32, as for every model. Raises `InvalidInput` for a network that is not in float32.
    """
    wanted = dtype_of(dtype)
    if model.dtypes != {torch.float32}:
        now = ", ".join(sorted(str(one).removeprefix("torch.") for one in model.dtypes)) or "of no known dtype"
        raise InvalidInput(f"the network of {model.name} is in {now}: cast one that is in float32")
    return with_module(model, cast_module(module_of(model), wanted, model.device), in_dtype(wanted), dtype=wanted)


def cast_codec(model: Model, dtype: str) -> Model:
    """A copy of the model whose VAE decodes and encodes in `dtype`. Raises `InvalidInput` where states are pixels."""
    wanted, codec = dtype_of(dtype), model.codec
    if not isinstance(codec, Latents):
        raise InvalidInput(f"{model.name} draws pixels, which no VAE decodes: there is nothing to cast")
    vae = cast_module(codec.vae, wanted, model.device)
    digest = f"{codec.digest} in {dtype}" if codec.digest else ""
    identity = replace(model.identity, variant={**model.identity.variant, "codec": dtype})
    return replace(model, codec=replace(codec, vae=vae, digest=digest), identity=identity)


def dtype_of(name: str) -> torch.dtype:
    """Raises `InvalidInput` for a name of none that is lower than float32."""
    if name not in DTYPES:
        raise unknown_name("dtype", str(name), DTYPES)
    return DTYPES[name]


@quiet()
def cast_module(module: torch.nn.Module, dtype: torch.dtype, device: torch.device | str) -> torch.nn.Module:
    """A copy of a module in `dtype`, laid out as its device likes it."""
    own = copy.deepcopy(module).eval().requires_grad_(False)
    convert(own, dtype)
    return on_device(own, device)
