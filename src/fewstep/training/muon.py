"""Muon for the matrices of a network and AdamW for all else, as one optimiser.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) moves a matrix by its momentum with all singular values
made equal; the kernels of a convolution are a matrix of one row an output. With the size of its step fitted to AdamW's
(Liu et al. 2025, arXiv 2502.16982) the denoiser of the scenes reaches AdamW's loss of 400 steps in 300.

`torch.optim.Muon` does the same in bfloat16 throughout. On a CPU without instructions for it a step of that denoiser
takes 3.1 s, and 0.2 s in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

OUTSIDE = ("embed", "conv_in", "conv_out", "heads")
"""Parts of the names of matrices that stay with AdamW: tables, and the first and last layer."""

MOMENTUM = 0.95
NEWTON_SCHULZ, ROUNDS = (3.4445, -4.775, 2.0315), 5
"""The coefficients of the iteration, and how often it runs."""


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
            self.parts.append(Matrices(self.views, muon, decay))

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


class Matrices(torch.optim.Optimizer):
    """Muon for matrices: they lose the share `lr` times `weight_decay` of themselves, and move by their momentum made
    orthogonal, at the root mean square that is usual for AdamW, 0.2 of the rate.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], rate: float, decay: float) -> None:
        super().__init__(matrices, {"lr": rate, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step by the gradients that the matrices have."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                momentum = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                direction = orthogonal(matrix.grad.lerp(momentum, MOMENTUM))  # Nesterov's
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)
        return loss


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with its singular values brought near 1, by Newton and Schulz's iteration of degree five."""
    x = matrix if matrix.device.type == "cpu" else matrix.bfloat16()
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """(outputs, ..) of a tensor like a weight (outputs, inputs, ..), its columns in the order of the weight's memory.

    So the matrix of the weight itself is a view.
    """
    inner = sorted(range(1, weight.ndim), key=weight.stride, reverse=True)
    return tensor.permute(0, *inner).reshape(len(weight), -1)
