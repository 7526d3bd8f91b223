"""Flow matching beside epsilon: the same network, data and training, drawn in few steps of plain Euler and of DDIM.

python benchmarks/flow.py out/flow [--seeds 0] [--steps 3000] [--images 12000]

Each training goes on where it stopped. Distances are Frechet's at infinitely many images, on the features of the digits
classifier, to what the shipped digits model draws in 40 steps; the floor is that of the same model, drawn again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep as fs
from fewstep import schedules
from fewstep.measure import Summary, frechet_infinity
from fewstep.training import STUDENT, Batch, Denoising, Role, Run, Settings, train
from fewstep.zoo import UNetConfig, build, classifier, digits

COUNTS = (4, 8, 16)
AT_ONCE = 500
TRAINED = {"epsilon": schedules.linear(), "flow": schedules.flow()}


class Digits:
    """The digits of scikit-learn, by number."""

    def __init__(self) -> None:
        self.set = digits.load()

    @property
    def count(self) -> int:
        return len(self.set)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"data": "digits", "digest": self.set.digest}

    def batch(self, numbers: Sequence[int]) -> Batch:
        labels = self.set.labels[list(numbers)]
        return Batch(self.set.images[list(numbers)], None, {"label": labels}, {"label": torch.full_like(labels, 10)})


def network_of(prediction: str, seed: int) -> fs.Network:
    """An untrained network of the shape of the shipped one; it is told a time from 0 to 1,000 either way."""
    scale = 1000.0 if prediction == "flow" else 1.0
    module = build(UNetConfig(), seed).requires_grad_(True).train()
    return fs.Network(module, TRAINED[prediction], prediction, time_scale=scale)


def trained(prediction: str, seed: int, steps: int, folder: Path) -> fs.Network:
    """The network after its training, in the folder of its states."""
    network = network_of(prediction, seed)
    settings = Settings(steps=steps, batch=128, rate=2e-3, warmup=200, seed=seed, width=0.05)
    run = Run(Denoising(dropout=0.1), {STUDENT: Role(network)}, Digits(), settings, folder)
    module = train(run, lambda now: print(f"{folder.name}: step {now.step}, {now.left:.0f} s left", flush=True))
    module.eval().requires_grad_(False)
    return network


def summary_of(network: fs.Network, plan: fs.Plan, images: int, first: int) -> Summary:
    """The features of so many pictures, of every class in turn, with noise of their own."""
    found = Summary(classifier.load_shipped())
    for begin in range(first, first + images, AT_ONCE):
        seeds = range(begin, min(begin + AT_ONCE, first + images))
        labels = torch.tensor([seed % 10 for seed in seeds])
        drawn: Tensor = fs.sample(plan, network.given({"label": labels}), shape=(len(seeds), 1, 8, 8), seed=list(seeds))
        found.update(drawn.clamp(-1, 1))
    return found


def teacher_of() -> tuple[fs.Network, fs.Plan]:
    """The shipped model and the plan that stands for the end of its trajectories."""
    model = fs.load("digits").model
    return model.denoiser(), fs.compile("dpmpp-2m", schedule=model.schedule, steps=40, grid="quadratic")


def main() -> None:
    """Train, draw, measure and write `results.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--only", choices=list(TRAINED), help="Train this one and stop.")
    given = parser.parse_args()
    if given.only:
        for seed in given.seeds:
            trained(given.only, seed, given.steps, given.out / f"{given.only}-{seed}")
        return
    teacher = teacher_of()
    reference = summary_of(*teacher, given.images, first=10**6)
    floor = frechet_infinity(summary_of(*teacher, given.images, first=2 * 10**6), reference)
    print(f"floor {floor.value:.3f} ({floor.low:.3f} to {floor.high:.3f})", flush=True)
    results: list[dict[str, Any]] = []
    for seed in given.seeds:
        for prediction, sampler in (("epsilon", "ddim"), ("flow", "euler")):
            network = trained(prediction, seed, given.steps, given.out / f"{prediction}-{seed}")
            for steps in COUNTS:
                plan = fs.compile(sampler, schedule=TRAINED[prediction], steps=steps)
                figure = frechet_infinity(summary_of(network, plan, given.images, first=0), reference)
                results.append({"seed": seed, "prediction": prediction, "steps": steps, **figure.to_json()})
                print(f"{prediction} {seed}, {sampler} in {steps}: {figure.value:.3f}", flush=True)
    text = json.dumps({"floor": floor.to_json(), "results": results}, indent=1)
    (given.out / "results.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
