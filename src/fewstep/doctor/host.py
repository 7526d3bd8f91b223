"""A network on another device or in another dtype, called from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def hosted(network: Callable[..., Any], device: torch.device | str, dtype: torch.dtype | None) -> Callable[..., Any]:
    """`network` for states (B, ..) and times of the host: what it says comes back there, in the dtype of the states.

    Conditions go in as they are given, and have to be on `device`. Times stay in float32, as 750 is 752 in bfloat16.
    """

    def call(x: Tensor, time: Tensor, **condition: Any) -> Tensor:
        result = network(x.to(device, dtype), time.to(device), **condition)
        if not isinstance(result, Tensor):
            result = result[0] if isinstance(result, tuple) else result.sample
        return result.to(x.device, x.dtype)

    return call
