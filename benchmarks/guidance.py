"""Whether `fewstep choose --guidance auto` chooses well: its scale on some noise, judged on much other noise.

    python benchmarks/guidance.py [--model digits] [--rows 6] [--images 320] [--times 10] [--judged 3200]
                                  [--folder DIR] [--json]

The scales are measured `--times` times, each time on other noise, and once on `--judged` images of a seed that none of
them has. The truth is what these say: the best scale, and which are as good within their much smaller noise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from fewstep.benchmark import Budget, Pictures, ScaleSearch, Verdict
from fewstep.benchmark.search import find_scale
from fewstep.benchmark.settings import SILENT
from fewstep.benchmark.subject import Subject

JUDGED_SEED = 1000


def verdict_of(given: argparse.Namespace, images: int, seed: int, folder: Path) -> Verdict:
    subject = Subject(given.model, Pictures(images, None, seed))
    search = ScaleSearch(negative=("none",) if subject.words else ())
    found = find_scale(subject, Budget(rows=given.rows), search, folder, 1e9, SILENT)
    assert found.verdict is not None
    return found.verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--judged", type=int, default=3200)
    parser.add_argument("--folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(given.folder or place)
        truth = verdict_of(given, given.judged, JUDGED_SEED, folder)
        chosen = [verdict_of(given, given.images, seed, folder) for seed in range(given.times)]
    figures = {rung.scale: None if rung.figure is None else rung.figure.value for rung in truth.rungs}
    report: dict[str, Any] = {
        "truth": {"best": truth.best, "as_good": truth.as_good, "figures": figures},
        "chosen": [one.scale for one in chosen],
        "right": sum(one.scale in truth.as_good for one in chosen),
        "best_is_among_them": sum(truth.best in one.as_good for one in chosen),
    }
    if given.json:
        print(json.dumps(report))
        return
    shown = ", ".join(
        f"{scale:g}: {'dropped' if value is None else f'{value:.3g}'}" for scale, value in figures.items()
    )
    print(f"{truth.name} of {given.judged} images by scale: {shown}")
    print(f"best {truth.best:g}, as good {', '.join(f'{scale:g}' for scale in truth.as_good)}")
    print(f"chosen {given.times} times with {given.images} images: {', '.join(f'{s:g}' for s in report['chosen'])}")
    print(f"{report['right']} of {given.times} are as good as the best; ", end="")
    print(f"the best was among those that are as good {report['best_is_among_them']} times")


if __name__ == "__main__":
    main()
