"""`fewstep` as `torchrun` starts it in the tests; with FEWSTEP_TEST_DIE the second process kills itself in a step."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from fewstep.cli.app import app
from fewstep.training import loop


def main() -> None:
    torch.set_num_threads(1)
    if os.environ.get("FEWSTEP_TEST_DIE") and os.environ["RANK"] == "1":
        inner = loop.take_step

        def take_step(run: Any, learners: Any, phase: Any, processes: Any) -> Any:
            if phase.step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(run, learners, phase, processes)

        loop.take_step = take_step
    app.main(sys.argv[1:])


if __name__ == "__main__":
    main()
