"""Where a network runs."""

from __future__ import annotations

import torch

from fewstep.core.errors import InvalidInput, shown


def checked_device(device: torch.device | str) -> torch.device | str:
    """`device`, where a tensor can be kept and read there.

    Raises `InvalidInput` for a name that torch does not know, and for a device that this machine does not have.
    """
    try:
        torch.zeros(1, device=device).tolist()
    except (AssertionError, ImportError, NotImplementedError, RuntimeError, TypeError) as error:
        cards = torch.cuda.device_count()
        known = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{i}" for i in range(cards))]
        known += ["mps"] if torch.backends.mps.is_available() else []
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInput(
            f"the device {shown(str(device))} cannot be used here ({why:.160}): this machine has {', '.join(known)}"
        ) from error
    return device
