"""What a training says that it needs of the host's memory, beside the most that it then holds.

    python benchmarks/training_memory.py [NAME ..]

Each case is forecast in a process of its own and trained for three steps in another, in which the most that the
process ever held is read at the end. Pictures are noise, so that nothing has to be drawn first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 3
BAR = 0.25
"""The share that a peak may be off."""
MATCHING: dict[str, Any] = {"method": "dmd", "ratio": 2}
CASES: dict[str, dict[str, Any]] = {
    "digits, 1 row": {"rows": 1, "batch": 128},
    "digits, 4 rows": {"rows": 4, "batch": 128},
    "digits, 4 rows, checkpointing": {"rows": 4, "batch": 512, "checkpointing": True},
    "digits, 1 row, 512": {"rows": 1, "batch": 512},
    "digits, 4 rows, 512": {"rows": 4, "batch": 512},
    "digits, consistency": {"method": "consistency", "batch": 512},
    "scenes, 1 row": {"rows": 1, "batch": 32, "teacher": "scenes"},
    "scenes, 2 rows": {"rows": 2, "batch": 32, "teacher": "scenes"},
    "digits, dmd": {**MATCHING, "batch": 512},
    "digits, dmd, adversary": {**MATCHING, "adversary": 0.01, "batch": 512},
    "digits, dmd, LoRA": {**MATCHING, "batch": 512, "rank": 16},
    "scenes, dmd": {**MATCHING, "batch": 32, "teacher": "scenes"},
    "scenes, dmd, adversary": {**MATCHING, "adversary": 0.01, "batch": 32, "teacher": "scenes"},
    "scenes, dmd, LoRA": {**MATCHING, "batch": 32, "teacher": "scenes", "rank": 16},
}
OF_THE_RUN = ("teacher", "batch", "checkpointing", "rank", "method")
"""What a case says beside the settings of its method."""


def work_of(case: dict[str, Any], folder: Path) -> Any:
    """What is to be distilled."""
    from fewstep.distillation import Adapter, Consistency, DistributionMatching, Regression, Settings, Source
    from fewstep.distillation.distill import Work
    from fewstep.training import Place

    teacher = case.get("teacher", "digits")
    methods: Any = {"regression": Regression, "consistency": Consistency, "dmd": DistributionMatching}
    own = {name: value for name, value in case.items() if name not in OF_THE_RUN}
    method = methods[case.get("method", "regression")](**own)
    settings = Settings(steps=STEPS, batch=case["batch"], adapter=Adapter(case["rank"]) if "rank" in case else None)
    source = Source(subjects=("a red circle", "two blue stars") if teacher == "scenes" else None, count=1024)
    place = Place(checkpointing=case.get("checkpointing", False))
    return Work.of(teacher, method, folder, settings, source, None, place)


def forecast(case: dict[str, Any], folder: Path) -> int:
    """The peak that is forecast, in bytes."""
    return work_of(case, folder).forecast().memory.peak


def measured(case: dict[str, Any], folder: Path) -> int:
    """The most that a process held that trained, in bytes."""
    from fewstep.distillation.pictures.pairs import blank
    from fewstep.run.memory import most_held_bytes
    from fewstep.training import train

    work = work_of(case, folder)
    pairs = blank(work.teacher, work.source.count)
    train(work.run(work.roles(pairs), pairs))
    return most_held_bytes()


def alone(what: str, name: str) -> int:
    """One of the two, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, f"--{what}", name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    words = sys.argv[1:]
    if words and words[0] in ("--forecast", "--measured"):
        import torch

        torch.set_num_threads(1)
        find = forecast if words[0] == "--forecast" else measured
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(find(CASES[words[1]], Path(folder))))
        return
    print(f"{'case':32} {'forecast':>10} {'peak':>10} {'ratio':>6}")
    off = []
    for name in words or CASES:
        said, peak = alone("forecast", name), alone("measured", name)
        print(f"{name:32} {said / 1e6:7.0f} MB {peak / 1e6:7.0f} MB {said / peak:6.2f}", flush=True)
        off += [name] if abs(peak / said - 1) > BAR else []
    if off:
        raise SystemExit(f"more than {BAR:.0%} off: {', '.join(off)}")


if __name__ == "__main__":
    main()
