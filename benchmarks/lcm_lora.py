"""Whether an LCM-LoRA of the scenes speeds up another fine-tune of them.

    python benchmarks/lcm_lora.py [--folder out/lcm-lora] [--tune 300] [--steps 1500] [--images 1024] [--batch 32]
                                  [--scenes 2048] [--pairs 2048]

It fine-tunes the shipped scenes a little on pictures with a black background alone, trains an LCM-LoRA on the scenes
themselves, puts it on the fine-tune, and chooses its four times there, on captions of the fine-tune's training. Then it
compares what the fine-tune draws with the LoRA in 4 steps, at even times and at the chosen ones, and alone in 20, each
by the Frechet distance to what it draws alone in 50 from other noise, on pictures as 8 x 8 mean colours. The goal is at
most 1.2 times the distance at 20. Everything is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import fewstep as fs
from fewstep import zoo
from fewstep.distillation import Adapter, Checks, LatentConsistency, Measuring, Settings, Source
from fewstep.distillation.pictures.teacher import Conditions, Teacher
from fewstep.files import write_whole
from fewstep.measure import FunctionFeatures, Summary, frechet_distance
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Roles, Run, schedule_of, student_of, train
from fewstep.training.levels import at_times, noised
from fewstep.training.method import one_stage
from fewstep.zoo import container
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import Description, draw_description, placed

BACKGROUND, GUIDANCE, EMPTY = "black", 2.0, 0.1
"""What the fine-tune draws, the scale, and the share of captions that are left empty."""
LAST = "with the LCM-LoRA at chosen times in 4"
METHOD = LatentConsistency(rows=4, grid_steps=8, huber=0.0)
OWN = {"guidance": GUIDANCE, "sampling": {"sampler": "dpmpp-2m", "grid": "trailing"}}
"""How the scenes and the fine-tune draw alone."""


def descriptions(count: int, seed: int, held_out: bool = False) -> list[Description]:
    """Of scenes with the background of the fine-tune, half of which do not say it."""
    rng = np.random.default_rng((seed, 14))
    drawn = (draw_description(rng, held_out=held_out) for _ in range(count))
    return [replace(one, background=BACKGROUND if i % 2 else None) for i, one in enumerate(drawn)]


@dataclass(frozen=True)
class Denoise:
    """The student is to predict what its network was trained to predict."""

    name: ClassVar[str] = "denoise"
    needs: ClassVar[Needs] = Needs(images=True)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        network = roles[STUDENT].network
        schedule = schedule_of(network)
        times = schedule.t_min + (schedule.t_max - schedule.t_min) * draws.spread("time")
        level = at_times(schedule, times, batch.data)
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), level)
        skip, out = network.coefficients_at(level)
        wanted = (batch.data - skip * x) / out
        yield Loss(STUDENT, (network.given(batch.condition).output(x, level) - wanted).square().mean())

    def plan(self, network: fs.Network, rows: int | None = None) -> fs.Plan:
        return fs.compile("dpmpp-2m", schedule=schedule_of(network), steps=rows or 20, grid="trailing")


class Scenes:
    """Latents of scenes on the background, with their captions."""

    def __init__(self, pipe: fs.Pipeline, count: int, path: Path) -> None:
        self.count, rng = count, np.random.default_rng((1, 15))
        found = descriptions(count, 0)
        texts = [caption(one, rng) if rng.random() >= EMPTY else "" for one in found]
        self.conditions = Conditions(Teacher.of(pipe, texts, 1.0, None))
        if not path.exists():
            shown = np.stack([picture(placed(replace(one, background=BACKGROUND), rng)) for one in found])
            pixels = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents = [pipe.model.codec.encode(one[None], pipe.model.cache) for one in pixels]
            container.write(path, {"latents": torch.cat(latents)}, {})
        self.latents = container.inspect(path).tensors()["latents"]
        self.identity = {"background": BACKGROUND, "count": count, "model": pipe.model.digest}

    def batch(self, numbers: Sequence[int]) -> Batch:
        return Batch(self.latents[list(numbers)], condition=self.conditions.of(numbers).positive)


def fine_tuned(folder: Path, steps: int, batch: int, scenes: int) -> Path:
    """The folder of the fine-tune, trained as far as it is not there."""
    target = folder / "fine-tune"
    if (target / "unet/diffusion_pytorch_model.safetensors").exists():
        return target
    pipe = fs.load("scenes")
    settings = Settings(steps=steps, batch=batch, rate=2e-4, state_every=25, log_every=25)
    data = Scenes(pipe, scenes, folder / "latents.safetensors")
    run = Run(Denoise(), student_of(pipe.model.denoiser()), data, settings, folder / "tuning")
    module = train(run, lambda now: print(f"fine-tune: step {now.step}, {now.losses}, {now.left:.0f} s left"))
    part = folder / "fine-tune.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(zoo.shipped_path("scenes"), part)
    module.save_pretrained(part / "unet")  # type: ignore[operator]  # of diffusers
    part.rename(target)
    return target


def lora(folder: Path, steps: int, batch: int, pairs: int) -> fs.distillation.Distilled:
    """The student of the scenes and its LCM-LoRA; the same call goes on."""
    rng = np.random.default_rng((2, 16))
    texts = [caption(draw_description(rng, held_out=False), rng) for _ in range(pairs)]
    settings = Settings(
        steps=steps, batch=batch, rate=2e-4, warmup=50, adapter=Adapter(rank=64), state_every=25, log_every=25
    )
    return fs.distill(
        "scenes",
        METHOD,
        folder / "lcm",
        settings=settings,
        source=Source(texts, GUIDANCE, 16, pairs, 64),
        measuring=Measuring(Checks(every=0)),
        watch=fs.distillation.Watch(training=lambda now: print(f"LCM-LoRA: step {now.step}, {now.left:.0f} s left")),
    )


def colours(pictures: Tensor) -> Tensor:
    """(B, 192) mean colours of 8 x 8 fields."""
    return avg_pool2d(pictures, 8).flatten(1)


def summary(pipe: fs.Pipeline, texts: Sequence[str], seed: int, call: dict[str, object], path: Path) -> Summary:
    """Features of what a model draws for some prompts, 64 at a time, each part kept."""
    found = Summary(FunctionFeatures(colours, "colours of 8 x 8 fields", 192, digest="1"))
    for first in range(0, len(texts), 64):
        part = path / f"{first:05d}.safetensors"
        if not part.exists():
            path.mkdir(parents=True, exist_ok=True)
            some = list(texts[first : first + 64])
            pictures = pipe(some, seed=list(range(seed + first, seed + first + len(some))), **call).tensor  # type: ignore[arg-type]
            container.write(part, {"pictures": pictures}, {})
            print(f"{path.name}: {first + len(some)} of {len(texts)}")
        found.update(container.inspect(part).tensors()["pictures"])
    return found


def chosen(folder: Path, fast: fs.Pipeline, plain: fs.Pipeline) -> fs.Plan:
    """The plan of four rows at whose times the fine-tune with the LoRA draws most as it does alone in 20.

    The first time stays, and the others are any three of the grid that fall: each is tried on 256 captions of the
    fine-tune's training, and the best four on 512 more.
    """
    path = folder / "chosen.json"
    if path.exists():
        return fs.Plan.load(path)
    rng, schedule = np.random.default_rng((4, 18)), plain.schedule_at()
    texts = [caption(one, rng) for one in descriptions(768, 0)]
    first, *later = METHOD.times(schedule)[:-1].tolist()
    plans = [
        fs.compile("lcm", schedule=schedule, times=[first, *three, schedule.t_clean])
        for three in combinations(later, 3)
    ]
    for count, kept in ((256, 4), (768, 1)):
        some = texts[:count]
        wanted = summary(plain, some, 5 * 10**6, {**OWN, "steps": 20}, folder / "wanted")
        found = {}
        for plan in plans:
            call = {"guidance": 1.0, "sampling": {"plan": plan}}
            drawn = summary(fast, some, 6 * 10**6, call, folder / f"try-{plan.digest}")
            found[plan] = frechet_distance(drawn, wanted).value
        plans = sorted(plans, key=found.__getitem__)[:kept]
        print(*(f"{[row.t for row in plan.rows]}: {found[plan]:.3f}" for plan in plans), sep="\n")
    plans[0].save(path)
    return plans[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/lcm-lora"))
    for name, usual in (
        ("tune", 300),
        ("steps", 1500),
        ("images", 1024),
        ("batch", 32),
        ("scenes", 2048),
        ("pairs", 2048),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    other = fine_tuned(folder, given.tune, given.batch, given.scenes)
    learned = lora(folder, given.steps, given.batch, given.pairs)
    assert learned.lora is not None
    rng = np.random.default_rng((3, 17))
    texts = [caption(one, rng) for one in descriptions(given.images, 1, held_out=True)]
    plain, fast = fs.load(other), fs.load(other, lora=learned.lora)
    plans = {
        "with the LCM-LoRA in 4": fs.Plan.load(learned.lora.parent / "plan.json"),
        LAST: chosen(folder, fast, plain),
    }
    reference = summary(plain, texts, 0, {**OWN, "steps": 50}, folder / "own-50")
    lines = {
        "alone in 50, other noise: the floor": summary(plain, texts, 10**6, {**OWN, "steps": 50}, folder / "floor"),
        "alone in 20": summary(plain, texts, 2 * 10**6, {**OWN, "steps": 20}, folder / "own-20"),
        "alone in 4": summary(plain, texts, 3 * 10**6, {**OWN, "steps": 4}, folder / "own-4"),
    }
    for who, plan in plans.items():
        call = {"guidance": 1.0, "sampling": {"plan": plan}}
        lines[who] = summary(fast, texts, 4 * 10**6, call, folder / f"lora-4-{plan.digest}")
    figures = {who: frechet_distance(one, reference) for who, one in lines.items()}
    for who, figure in figures.items():
        print(f"{who:40} {figure}")
    ratio = figures[LAST].value / figures["alone in 20"].value
    print(f"4 steps {LAST.removesuffix(' in 4')} are {ratio:.3g} times as far as 20 without; the goal is at most 1.2")
    facts = {"ratio": ratio, "distances": {who: figure.value for who, figure in figures.items()}, **vars(given)}
    write_whole(folder / "figures.json", json.dumps(facts, indent=1, default=str).encode())


if __name__ == "__main__":
    main()
