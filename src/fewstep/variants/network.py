"""The module behind a model's network, and the model with another one in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.models import Model


def module_of(model: Model) -> nn.Module:
    """The module that is called. Raises `InvalidInput` for a callable, which shows no weights."""
    module = model.module
    if module is None:
        raise InvalidInput(
            f"{model.name} is a callable, which shows no weights that could be changed: give the torch.nn.Module that "
            "it calls"
        )
    return module


def call_of(model: Model) -> Callable[..., Tensor]:
    """How the module is called: `call(module, x, t, **condition)`."""
    network = model.network
    if isinstance(network, partial):
        func, rest, more = network.func, network.args[1:], network.keywords

        @wraps(func)  # so that its text is known
        def call(module: nn.Module, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
            return func(module, *rest, x, t, **more, **condition)

        return call
    return lambda module, x, t, **condition: module(x, t, **condition)


def with_module(model: Model, module: nn.Module, variant: Mapping[str, str], **facts: Any) -> Model:
    """The model with another module; `variant` says what was made of its weights."""
    network = model.network
    if isinstance(network, partial):
        changed: Any = partial(network.func, module, *network.args[1:], **network.keywords)
    else:
        changed = module
    return with_network(model, changed, variant, **facts)


def with_network(model: Model, network: Any, variant: Mapping[str, str], **facts: Any) -> Model:
    """The model with another network, which is called in the same way."""
    identity = replace(model.identity, variant={**model.identity.variant, **variant})
    return replace(model, network=network, identity=identity, **facts)
