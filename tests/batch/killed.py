"""A process that draws a batch and is killed while it writes: MODEL PROMPTS FOLDER SIZE MOVES.

It dies, without a word, just before file number MOVES is moved into its place.
"""

import os
import signal
import sys
from typing import Any

from fewstep.batch import Batch, draw_batch, read_prompts
from fewstep.pipeline import load

model, prompts, folder, size, moves = sys.argv[1:]
left, replace = int(moves), os.replace


def counting(*arguments: Any, **more: Any) -> None:
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments, **more)


os.replace = counting
draw_batch(Batch.of(load(model), read_prompts(prompts), size=int(size)), folder)
