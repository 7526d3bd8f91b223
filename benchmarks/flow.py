"""Flow matching beside epsilon: the same network, data and training, drawn in few steps of plain Euler and of DDIM; and
the flow after reflow.

python benchmarks/flow.py out/flow [--seeds 0] [--steps 3000] [--images 12000] [--pairs 16384]

Reflow begins from the flow and learns from as many pictures of its own as said, for as many steps. Each training goes
on where it stopped. Distances are Frechet's at infinitely many images, on the features of the digits
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
from fewstep.distillation import Reflow
from fewstep.measure import Summary, frechet_infinity
from fewstep.run.noise import START, unit_noise
from fewstep.training import STUDENT, Batch, Denoising, Role, Run, Settings, schedule_of, student_of, train
from fewstep.zoo import UNetConfig, build, classifier, digits

COUNTS = {"epsilon": (4, 8, 16), "flow": (4, 8, 16), "reflow": (1, 2, 4, 8)}
AT_ONCE, OWN = 500, 3 * 10**6
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


class Ways:
    """Noise, and what a flow makes of it in many steps, by number."""

    def __init__(self, network: fs.Network, count: int) -> None:
        plan = fs.compile("dpmpp-2m", schedule=TRAINED["flow"], steps=20)
        noise, ends = [], []
        for numbers in (range(i, min(i + AT_ONCE, count)) for i in range(0, count, AT_ONCE)):
            noise.append(unit_noise([OWN + number for number in numbers], START, torch.empty(len(numbers), 1, 8, 8)))
            told = network.given({"label": torch.tensor([number % 10 for number in numbers])})
            ends.append(fs.sample(plan, told, start=noise[-1] * plan.entry[1]))
        self.noise, self.ends = torch.cat(noise), torch.cat(ends)

    @property
    def count(self) -> int:
        return len(self.ends)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"data": "the flow's own", "sum": float(self.ends.double().sum())}

    def batch(self, numbers: Sequence[int]) -> Batch:
        chosen = list(numbers)
        return Batch(self.ends[chosen], self.noise[chosen], {"label": torch.tensor(chosen) % 10})


def straightened(flow: fs.Network, seed: int, steps: int, pairs: int, folder: Path) -> fs.Network:
    """The flow after reflow."""
    roles = student_of(flow)
    settings = Settings(steps=steps, batch=128, rate=1e-3, seed=seed, width=0.05)
    run = Run(Reflow(), roles, Ways(flow, pairs), settings, folder)
    module = train(run, lambda now: print(f"{folder.name}: step {now.step}, {now.left:.0f} s left", flush=True))
    module.eval().requires_grad_(False)
    return roles[STUDENT].network


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
    parser.add_argument("--pairs", type=int, default=16_384)
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
        networks = {name: trained(name, seed, given.steps, given.out / f"{name}-{seed}") for name in TRAINED}
        place = given.out / f"reflow-{seed}"
        networks["reflow"] = straightened(networks["flow"], seed, given.steps, given.pairs, place)
        for prediction, network in networks.items():
            sampler = "ddim" if prediction == "epsilon" else "euler"
            for steps in COUNTS[prediction]:
                plan = fs.compile(sampler, schedule=schedule_of(network), steps=steps)
                figure = frechet_infinity(summary_of(network, plan, given.images, first=0), reference)
                results.append({"seed": seed, "prediction": prediction, "steps": steps, **figure.to_json()})
                print(f"{prediction} {seed}, {sampler} in {steps}: {figure.value:.3f}", flush=True)
    text = json.dumps({"floor": floor.to_json(), "results": results}, indent=1)
    (given.out / "results.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
