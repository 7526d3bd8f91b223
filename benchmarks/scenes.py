"""What the shipped text-to-image model does, against its bars.

    python benchmarks/scenes.py [--model scenes] [--prompts 1000] [--json]

Adherence is the share of pictures that are right in every attribute that their prompt names, on prompts that no
training saw. For the negative prompt, pictures of prompts that leave the colour (or the shape) open are drawn from the
same noise without and with one colour (or shape) as negative prompt, and counted where it appears. Inversions are those
of `fewstep invert`, of pictures as they were drawn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep.zoo.scenes.check import read_picture
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.prompts import adherence, held_out_prompts
from fewstep.zoo.scenes.scene import BACKGROUNDS, COLOURS, SHAPES, placed

GUIDANCE, BATCH = 5.0, 128
SETTINGS: dict[str, dict[str, Any]] = {
    "20 steps, guidance 5": {"steps": 20, "guidance": GUIDANCE},
    "recommended: unipc-2, 8 steps": {"sampler": "unipc-2", "steps": 8, "batch": BATCH},
    "DDIM, 50 steps, guidance 5": {"sampler": "ddim", "steps": 50, "guidance": GUIDANCE},
    "DDIM, 50 steps, recommended guidance": {"sampler": "ddim", "steps": 50},
}


def adherences(pipe: fs.Pipeline, count: int) -> dict[str, float]:
    """Adherence with each of `SETTINGS`, the same prompts and noise."""
    prompts = held_out_prompts(count)
    texts = [prompt.text for prompt in prompts]
    found = {}
    for name, how in SETTINGS.items():
        images = pipe(texts, **{"batch": BATCH} | how)
        found[name] = adherence(list(images.pixels), prompts)
    return found


def appearances(pipe: fs.Pipeline, of: str, each: int) -> tuple[float, float]:
    """Shares of pictures in which a colour (or shape) appears without and with it as negative prompt."""
    named, open_ = (SHAPES, tuple(COLOURS)) if of == "colour" else (tuple(COLOURS), SHAPES)
    noun = "a {} on a {} background" if of == "colour" else "a {} shape on a {} background"
    asked = [(noun.format(name, behind), value) for name in named for behind in BACKGROUNDS for value in open_]
    asked = asked * each
    shares = []
    for negative in (None, [value for _, value in asked]):
        images = pipe([text for text, _ in asked], negative=negative, guidance=GUIDANCE, batch=BATCH)
        seen = [
            any(getattr(thing, of) == value for thing in read_picture(pixels).things)
            for pixels, (_, value) in zip(images.pixels, asked, strict=True)
        ]
        shares.append(float(np.mean(seen)))
    return shares[0], shares[1]


def inversions(pipe: fs.Pipeline, count: int) -> tuple[list[float], list[float]]:
    """PSNR in latents of DDIM, and the largest error of BELM, 50 steps, for `count` drawn pictures."""
    rng = np.random.default_rng(0)
    psnr, error = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, prompt in enumerate(held_out_prompts(count, seed=1)):
            path = Path(folder) / f"{i}.png"
            Image.fromarray(picture(placed(prompt.description, rng))).save(path)
            psnr.append(pipe.invert(path, prompt.text, guidance=1.0).psnr_latents)
            error.append(pipe.invert(path, prompt.text, guidance=1.0, sampler="belm").error)
    return psnr, error


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    pipe = fs.load(given.model)
    if pipe.model.conditioner.field != "prompts":
        raise SystemExit(f"{given.model} takes no prompts")
    right = adherences(pipe, given.prompts)
    rows = [(f"adherence, {name}, {given.prompts} prompts", f"{v:.1%}") for name, v in right.items()]
    report: dict[str, Any] = {"adherence": right}
    for of in ("colour", "shape"):
        without, with_ = appearances(pipe, of, 5)
        report[f"negative {of}"] = {"without": without, "with": with_}
        rows.append((f"an open {of} appears: without, with it as negative prompt", f"{without:.1%}, {with_:.1%}"))
    psnr, error = inversions(pipe, 20)
    report["inversion"] = {"psnr": psnr, "belm": error}
    rows.append(
        ("DDIM inversion, 50 steps, PSNR in latents: least, median", f"{min(psnr):.1f}, {np.median(psnr):.1f} dB")
    )
    rows.append(("BELM inversion, 50 steps, largest error", f"{max(error):.1e}"))
    if given.json:
        print(json.dumps(report, indent=2))
        return
    table = Table("what", "figure")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
