"""Where and how a network is computed while it is trained; of the numbers of a training it decides the precision alone.

Weights, averages, moments and all of a method's own arithmetic stay as they are. With "bfloat16" the network itself
runs lower where torch's autocast says so, from weights in float32: no scaling of the loss is needed, as bfloat16 has
the range of float32.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.training.roles import Role, Roles

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
FOREIGN = {"USE_DEEPSPEED": "DeepSpeed", "USE_FSDP": "FSDP", "USE_MEGATRON_LM": "Megatron-LM"}
"""What `accelerate launch` can be told that is not done here, by the variable ACCELERATE_.. that says so."""
LAUNCHED = {"no": "float32", "bf16": "bfloat16"}
"""Its names of precisions."""


@dataclass(frozen=True)
class Place:
    """Where and how a run computes.

    Attributes:
        device: of the networks. Of several processes on one machine each takes its own card of "cuda".
        precision: of the networks, "float32" or "bfloat16".
        compile: by `torch.compile`, which takes minutes at first and rounds a little otherwise. A call whose layers a
            discriminator looks at is not compiled.
        checkpointing: activations of the networks that are trained are computed again when they are needed, for less
            memory, to the same bits: in parts where the network does that by itself, as those of diffusers do, and
            else a call of the network at a time, which helps where a method makes several.
    """

    device: torch.device | str = "cpu"
    precision: str = "float32"
    compile: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", str(self.precision), PRECISIONS)

    @property
    def identity(self) -> dict[str, str]:
        """What decides the result, where it is not as usual."""
        return {} if self.precision == "float32" else {"precision": self.precision}

    @property
    def here(self) -> torch.device:
        """The device of this process. Raises `InvalidInput` where several processes would share a card."""
        device = torch.device(self.device)
        if device.type != "cuda" or launched() == 1:
            return device
        if device.index is not None:
            raise InvalidInput(
                f"{launched()} processes cannot share the device {device}: give cuda, and each takes its own"
            )
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def launched() -> int:
    """How many processes a launcher, such as torchrun, started for this run; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_launcher(place: Place) -> None:
    """Raise `InvalidInput` where `accelerate launch` was told what would not be done."""
    for name, words in FOREIGN.items():
        if os.environ.get(f"ACCELERATE_{name}", "false").lower() in ("true", "1"):
            raise InvalidInput(f"each process holds the whole network here, and not {words}: launch without it")
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if told != "no" and LAUNCHED.get(told) != place.precision:
        raise InvalidInput(
            f"the launcher says the precision {told}, and the run {place.precision}: give the run the precision that "
            f"you want, {' or '.join(PRECISIONS)}, and the launcher none"
        )


@contextmanager
def prepared(roles: Roles, place: Place) -> Iterator[Roles]:
    """The roles with networks that are called as a place says; the modules are those of before, and so at the end."""
    with ExitStack() as undone:
        yield {name: _called(role, place, undone) for name, role in roles.items()}


def _called(role: Role, place: Place, undone: ExitStack) -> Role:
    dtype, module = PRECISIONS[place.precision], role.network.module
    if module is None or module is not role.module or place == Place(place.device):
        return role
    call = role.network.network
    if place.compile:
        module.compile()
        undone.callback(setattr, module, "_compiled_call_impl", None)
    if place.checkpointing and role.trained and not _checkpointed(module, undone):
        call = _again(call)
    if dtype is not None:
        call = _lowered(call, dtype, place.here.type)
    network = copy.copy(role.network)
    network.network, network.module = call, module
    return replace(role, network=network)


def _checkpointed(module: nn.Module, undone: ExitStack) -> bool:
    """Whether a network computes its activations again by itself, as it is told to then."""
    if not getattr(module, "_supports_gradient_checkpointing", False):
        return False
    own: Any = module
    own.enable_gradient_checkpointing()
    undone.callback(own.disable_gradient_checkpointing)
    return True


def _again(network: Callable[..., Any]) -> Callable[..., Any]:
    """A network whose activations are not kept, but computed again, with the same dropout."""

    def call(*args: Any, **condition: Any) -> Any:
        if not torch.is_grad_enabled():
            return network(*args, **condition)
        return checkpoint(network, *args, use_reentrant=False, **condition)

    return call


def _lowered(network: Callable[..., Any], dtype: torch.dtype, kind: str) -> Callable[..., Any]:
    """A network that runs lower by autocast."""

    def call(*args: Any, **condition: Mapping[str, Any]) -> Any:
        with torch.autocast(kind, dtype):
            return network(*args, **condition)

    return call
