"""The shipped few-step student of the scenes: made from a trained student, and measured beside its teacher.

    fewstep distill endpoint scenes --prompts .. --output runs/turbo     # see docs/scenes.md for the whole command
    python benchmarks/scenes_student.py make runs/turbo/student            # writes the folder that ships
    python benchmarks/scenes_student.py measure --prompts 4000             # adherence of both, paired

`make` keeps what differs from the scenes as low-rank changes in 6 MB. `measure` draws the same held-out prompts with
the same seeds and compares picture by picture; it can be stopped, as runs/adherence.json keeps the rest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import fewstep as fs
from fewstep import zoo
from fewstep.distillation import Endpoint, lora_of, write_adapted
from fewstep.files import write_whole
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.prompts import Prompt, held_out_prompts

NAME, MOST_BYTES = "scenes-turbo", 6_000_000
ROWS = (1, 2, 4)
BATCH = 100
KEPT = Path("runs/adherence.json")
BARS = {4: 1.0, 2: 3.0, 1: 9.0}
"""Points that the student may be below the teacher at 16 evaluations, by its own."""


def make(student: Path) -> None:
    base, tuned = fs.load("scenes"), fs.load(student)
    networks = [pipe.model.denoiser().module for pipe in (base, tuned)]
    changes = lora_of(networks[0], networks[1], MOST_BYTES)  # type: ignore[arg-type]
    target = zoo.shipped_path("scenes").with_name(NAME)
    method = Endpoint(rows=max(ROWS))
    plans = [method.plan(base.model.denoiser(), rows) for rows in sorted(ROWS, reverse=True)]
    facts = json.loads((student / "distillation.json").read_text())
    write_adapted(target, "scenes", changes, plans, facts)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size:,} bytes, ranks up to {max(one.rank for one in changes.low_rank.values())}")


def right_of(who: str, prompts: list[Prompt], known: dict[str, list[bool]]) -> list[bool]:
    """Which of the prompts, each at the seed of its number, are drawn right; continues what is known."""
    name, rows = who.split(":")
    pipe = fs.load(name)
    how = {"steps": int(rows)} if name == NAME else {"sampler": "unipc-2", "steps": int(rows), "guidance": 2.0}
    found = known.setdefault(who, [])
    while len(found) < len(prompts):
        part = range(len(found), min(len(found) + BATCH, len(prompts)))
        drawn = pipe([prompts[i].text for i in part], seed=list(part), batch=BATCH, **how)
        found += [
            bool(adheres(read_picture(pixels), prompts[i].description))
            for pixels, i in zip(drawn.pixels, part, strict=True)
        ]
        write_whole(KEPT, json.dumps(known).encode())
    return found[: len(prompts)]


def measure(count: int) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    prompts = held_out_prompts(count)
    teacher = np.array(right_of("scenes:8", prompts, known))
    print(f"scenes, 16 evaluations: {teacher.mean():.2%} of {count}")
    for rows in ROWS:
        student = np.array(right_of(f"{NAME}:{rows}", prompts, known))
        below = 100 * (teacher.astype(float) - student)
        margin = 1.96 * below.std(ddof=1) / count**0.5
        met = "met" if below.mean() + margin <= BARS[rows] else "missed"
        print(
            f"{NAME}, {rows} evaluation{'s' * (rows > 1)}: {student.mean():.2%}, {below.mean():.2f} points below, "
            f"{below.mean() - margin:.2f} to {below.mean() + margin:.2f} with 95%: at most {BARS[rows]:g}, {met}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("make").add_argument("student", type=Path)
    parts.add_parser("measure").add_argument("--prompts", type=int, default=4000)
    given = parser.parse_args()
    if given.part == "make":
        make(given.student)
    else:
        measure(given.prompts)


if __name__ == "__main__":
    main()
