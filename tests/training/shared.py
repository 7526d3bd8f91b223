"""What each of two processes does in the tests of shared training, of both files: starting them takes the longest."""

from __future__ import annotations

import sys
from pathlib import Path

from . import shared_course, shared_run

RUNS, COURSES = "runs", "courses"


def main(folder: Path) -> None:
    for name, module in ((RUNS, shared_run), (COURSES, shared_course)):
        (folder / name).mkdir(exist_ok=True)
        module.main(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
