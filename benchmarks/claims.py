"""What papers and textbooks say of samplers, each claim measured on the models that ship and on exact mixtures.

    python benchmarks/claims.py [--models digits,scenes,mixture,flow,pictures,couplings] [--claims heun,rk4]
                                [--images 800] [--json FILE] [--page docs/claims.md] [--threads 1]

Without `--page` it prints the sections. A page is written whole at the end, or not at all. With `--json` the figures of
each claim are kept, and those that are there with the same number of images and the same model are not measured again:
so an interrupted run is continued. `docs/claims.md` is

    python benchmarks/claims.py --json benchmarks/claims.json --page docs/claims.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from literature.catalogue import CLAIMS
from literature.page import render, section
from literature.record import Record, measure
from literature.subject import MODELS, facts

from fewstep import InvalidInput
from fewstep.files import check_writable, write_whole

LEAST, IMAGES = 16, 800


def names(given: str, known: Sequence[str], what: str) -> list[str]:
    """The names of a list with commas, in the order of those known."""
    asked = [name.strip() for name in given.split(",")]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise SystemExit(f"unknown {what} {unknown[0]!r}: choose from {', '.join(known)}")
    return [name for name in known if name in asked]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--claims", help="measure these alone and print their sections")
    parser.add_argument("--images", type=int, default=IMAGES, help="of distances on the digits; others follow from it")
    parser.add_argument("--json", type=Path, help="keeps the figures, so that a run is continued")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.page and given.claims:
        raise SystemExit("a page is written whole: leave out --claims, or --page")
    if given.images < LEAST:
        raise SystemExit(f"--images must be at least {LEAST}, got {given.images}")
    models = names(given.models, MODELS, "model")
    keys = names(given.claims, [claim.key for claim in CLAIMS], "claim") if given.claims else None
    claims = [claim for claim in CLAIMS if keys is None or claim.key in keys]
    if not any(set(claim.models) & set(models) for claim in claims):
        needed = sorted({model for claim in claims for model in claim.models}, key=MODELS.index)
        raise SystemExit(f"{given.claims} is not measured on {given.models}: choose from {', '.join(needed)}")
    torch.set_num_threads(given.threads)
    try:
        record = Record.load(given.json) if given.json else Record()
        for path in filter(None, (given.json, given.page)):
            check_writable(path)
        measure(
            claims, facts(models), given.images, record, clock=time.process_time,
            said=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    except (InvalidInput, OSError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        again = (
            f"the figures so far are in {given.json}: the same command continues" if given.json else "nothing is kept"
        )
        raise SystemExit(f"interrupted; {again}") from None
    if given.page:
        write_whole(given.page, render(claims, record, models).encode())
        print(f"wrote {given.page}")
        return
    for claim in claims:
        if record.figures(claim, models):
            print(section(claim, record, models), end="\n\n")


if __name__ == "__main__":
    main()
