"""Muon for the matrices of a network and AdamW for all else, as one optimiser.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) moves a matrix by its momentum with all singular values
made equal; the kernels of a convolution are a matrix of one row an output. With the size of its step fitted to AdamW's
(Liu et al. 2025, arXiv 2502.16982) the denoiser of the scenes reaches AdamW's loss of 400 steps in 300.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

OUTSIDE = ("embed", "conv_in", "conv_out", "heads")
"""Parts of the names of matrices that stay with AdamW: tables, and the first and last layer."""


class Muon(torch.optim.Optimizer):
    """Steps named weights: the matrices inside by Muon at the rate `muon`, the others by AdamW at the rate `rate`.

    The group of the matrices has `"ratio"`, muon / rate: who sets a group's `"lr"` to that of AdamW gets Muon's by it.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], rate: float, muon: float, betas: tuple[float, float], decay: float
    ) -> None:
        inside = {name for name, p in weights.items() if p.ndim > 1 and not any(part in name for part in OUTSIDE)}
        self.matrices = [weights[name] for name in sorted(inside)]
        others = [p for name, p in weights.items() if name not in inside]
        groups = [{"params": others, "ratio": 1.0}, {"params": self.matrices, "ratio": muon / rate}]
        super().__init__([group for group in groups if group["params"]], {"lr": rate})
        self.parts: list[torch.optim.Optimizer] = []
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=rate, betas=betas, weight_decay=decay))
        if self.matrices:
            # views of the same memory, one row an output
            self.views = [nn.Parameter(as_matrix(p.detach(), p)) for p in self.matrices]
            how: dict[str, Any] = {"weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
            self.parts.append(torch.optim.Muon(self.views, lr=muon, **how))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step by the gradients that the weights have."""
        loss = None if closure is None else closure()
        for matrix, view in zip(self.matrices, self.views if self.matrices else [], strict=True):
            view.grad = None if matrix.grad is None else as_matrix(matrix.grad, matrix)
        for group, part in zip(self.param_groups, self.parts, strict=True):
            part.param_groups[0]["lr"] = group["lr"] * group["ratio"]
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The moments of both, by the places of the weights, AdamW's first."""
        state: dict[int, Any] = {}
        places = 0
        for part in self.parts:
            own = part.state_dict()
            state |= {places + index: moments for index, moments in own["state"].items()}
            places += len(own["param_groups"][0]["params"])
        return {"state": state, "param_groups": super().state_dict()["param_groups"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        places = 0
        for part in self.parts:
            own = part.state_dict()
            count = len(own["param_groups"][0]["params"])
            state = {i: state_dict["state"][places + i] for i in range(count) if places + i in state_dict["state"]}
            part.load_state_dict({"state": state, "param_groups": own["param_groups"]})
            places += count


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """(outputs, ..) of a tensor like a weight (outputs, inputs, ..), its columns in the order of the weight's memory.

    So the matrix of the weight itself is a view.
    """
    inner = sorted(range(1, weight.ndim), key=weight.stride, reverse=True)
    return tensor.permute(0, *inner).reshape(len(weight), -1)
