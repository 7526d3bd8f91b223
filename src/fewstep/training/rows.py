"""Networks that know of their rows, made from ones that do not: told a second time, or with several estimates a call.

The second time r is an input of t - r (the choice of Geng et al. 2025, arXiv 2505.13447, table 1c), through a layer
whose weights are zero at first. Of several estimates each begins as the one that there was, as the last layer is
repeated. So the network begins as what it was made from, wherever its row leads.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.denoise.convert import Network
from fewstep.denoise.row import RowFacts
from fewstep.training.scale import SIZE, takes_scale
from fewstep.zoo.network import UNet, skeleton


def with_rows(network: Network, rows: RowFacts, shared: bool = False) -> Network:
    """The same denoiser, which knows so much of its rows, with weights of its own unless those that stay are `shared`.

    Raises `InvalidInput` for a network of another class than the project's own and diffusers' UNet2DConditionModel, one
    that knows something of its rows already, and a UNet2DConditionModel that would be told a scale too.
    """
    module: Any = network.module
    if network.rows:
        raise InvalidInput(f"a network that {network.rows} was distilled already: give the model that it was made from")
    if isinstance(module, UNet):
        empty: Any = skeleton(replace(module.config, second_time=rows.second_time, guesses=rows.guesses))
    elif type(module).__name__ == "UNet2DConditionModel":
        empty = conditional(network, rows)
    else:
        raise InvalidInput(
            f"a network that {rows} is a UNet2DConditionModel or fewstep's own, and this is a {type(module).__name__}: "
            "use regression or phased, which take any network"
        )
    inner = network.network
    other = with_repeated_weights(empty, module, rows.guesses, shared)
    found = network.given(network.condition)
    found.network = (
        partial(inner.func, other, *inner.args[1:], **inner.keywords) if isinstance(inner, partial) else other
    )
    found.module, found.rows, found.needs_run = other, rows, bool(rows)
    return found


def conditional(network: Network, rows: RowFacts) -> Any:
    """The UNet2DConditionModel without weights that knows of its rows as another one does not.

    Its configuration says what its further input and its further channels mean.
    """
    module: Any = network.module
    if rows.second_time and takes_scale(network):
        raise InvalidInput(
            "a UNet2DConditionModel has room for one further input, and this one is told its guidance scale there: "
            "give the model that it was made from"
        )
    stated = {name: value for name, value in module.config.items() if not name.startswith("_")}
    stated |= {"out_channels": rows.guesses * module.config.out_channels}
    stated |= {"time_cond_proj_dim": SIZE} if rows.second_time else {}
    with torch.device("meta"):
        empty = type(module)(**stated)
    empty.register_to_config(second_time=rows.second_time, guesses=rows.guesses)
    return empty


def with_repeated_weights(empty: Any, module: nn.Module, guesses: int, shared: bool) -> nn.Module:
    """A network without weights filled with those of another or copies of them: so many where it has so many times as
    many outputs, and zeros where that has none.
    """
    given = {name: tensor if shared else tensor.clone() for name, tensor in module.state_dict().items()}
    like = next(tensor for tensor in given.values() if tensor.is_floating_point())
    found: dict[str, Tensor] = {}
    for name, wanted in empty.state_dict().items():
        own = given[name] if name in given else like.new_zeros(wanted.shape)
        found[name] = own if own.shape == wanted.shape else own.repeat(guesses, *[1] * (own.ndim - 1))
    empty.load_state_dict(found, assign=True)
    return empty


def new_weights(student: nn.Module, teacher: nn.Module) -> tuple[str, ...]:
    """The names of the weights of a student that are of no shape that its teacher's have."""
    given = {name: weight.shape for name, weight in teacher.named_parameters()}
    return tuple(name for name, weight in student.named_parameters() if given.get(name) != weight.shape)
