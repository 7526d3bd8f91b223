"""Where a training run stands, as a safetensors file from which it continues bitwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from fewstep.core.errors import InvalidInput
from fewstep.zoo import container
from fewstep.zoo.network import UNet, UNetConfig, build

VERSION = 1


@dataclass
class TrainState:
    """Everything that a step changes. There is no random state: every draw is keyed by the seed and the step.

    Attributes:
        step: steps done.
        network: the weights that are trained.
        average: their exponential moving average, by name.
        optimiser: AdamW with its two moments.
        seconds: time that the steps took so far, in all sittings.
        recent: losses since the last line of the log.
    """

    step: int
    network: UNet
    average: dict[str, Tensor]
    optimiser: AdamW
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)

    @classmethod
    def fresh(cls, config: UNetConfig, seed: int, weight_decay: float) -> TrainState:
        """Step 0, with weights that depend on `seed` alone."""
        network = build(config, seed)
        optimiser = AdamW(network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay)
        average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        return cls(0, network, average, optimiser)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write the state in one move. `identity` says which run it belongs to, as JSON values."""
        tensors = {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.network.named_parameters():
            tensors[f"weight.{name}"] = parameter
            moments = self.optimiser.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": moments[moment] for moment in ("exp_avg", "exp_avg_sq") if moments}
        document = {
            "version": VERSION,
            "step": self.step,
            "identity": identity,
            "seconds": self.seconds,
            "recent": self.recent,
        }
        container.write(path, tensors, {"fewstep-train": document})

    def restore(self, path: Path, identity: dict[str, Any]) -> None:
        """Continue from a file of `save`, in place.

        Raises:
            InvalidInput: the file is damaged, or belongs to a run with another `identity`.
        """
        file = container.read(path, max_bytes=1 << 30)
        document = file.document("fewstep-train", "the state of a training run")
        advice = f"delete {path} (or do not resume) to start anew"
        try:
            step, seconds = int(document["step"]), float(document["seconds"])
            recent = [float(loss) for loss in document["recent"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{path}: its description is damaged ({error!r}); {advice}") from error
        if document.get("version") != VERSION or step < 1:
            raise InvalidInput(
                f"{path}: version {document.get('version')!r} and step {step} cannot be continued; "
                f"this fewstep continues version {VERSION}. To go on, {advice}"
            )
        differing = _differences(document.get("identity"), identity)
        if differing:
            raise InvalidInput(
                f"{path} belongs to another run: {'; '.join(differing)}. Give those settings, or {advice}"
            )
        wanted = {
            f"{kind}.{name}": tuple(parameter.shape)
            for kind in ("weight", "average", "exp_avg", "exp_avg_sq")
            for name, parameter in self.network.named_parameters()
        }
        if file.shapes != wanted or set(file.dtypes.values()) != {"F32"}:
            raise InvalidInput(f"{path}: its tensors are not those of this network; {advice}")
        tensors = file.tensors()
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(tensors[f"weight.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": tensors[f"exp_avg.{name}"],
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
                }
        self.step, self.seconds, self.recent = step, seconds, recent


def _differences(theirs: Any, ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`setting: theirs there, ours now` for each setting that differs, nested ones by dotted name."""
    if not isinstance(theirs, dict):
        return [f"{prefix or 'identity'}: {theirs!r} there, {ours!r} now"]
    found = []
    for key in sorted(set(theirs) | set(ours)):
        old, new = theirs.get(key), ours.get(key)
        if isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r} there, {new!r} now")
    return found
