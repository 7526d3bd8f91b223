"""What each of two processes does in the tests of shared training on data: runs, and a file of what came of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.pictures import write_folder
from fewstep.data import Skipped
from fewstep.training import (
    Forecast,
    New,
    Place,
    Processes,
    Settings,
    Trained,
    Watching,
    examples,
    forecast_on,
    parts,
    train_on,
)
from models import tiny_diffusers

SMALL = New(widths=(8,), embedding=8, heads=1)
QUICK = Settings(steps=6, batch=8, state_every=3, log_every=1, seed=3)
SHORT = replace(QUICK, steps=2, batch=4)
SIZE, BROKEN = 4, 5
"""Samples of a part of the latents, and one that is not a picture, in the second part."""


def write_data(folder: Path) -> None:
    """Numbers of two classes, pictures with captions of which one is broken, and a text-to-image model."""
    images = np.random.default_rng(0).random((20, 4, 4)).astype(np.float32)
    np.savez(folder / "numbers.npz", images=images, labels=np.arange(20) % 2)
    write_folder(folder / "words", 7, captions=True)
    (folder / f"words/{BROKEN}.png").write_bytes(b"no picture")
    tiny_diffusers.write("sd", folder / "sd")


def numbers_run(folder: Path, watch: Watching | None = None) -> Trained:
    """A new network on the numbers."""
    return train_on(folder.parent / "numbers.npz", SMALL, folder, settings=QUICK, watch=watch)


def words_run(folder: Path, watch: Watching | None = None) -> Trained:
    """The text-to-image model on the pictures."""
    return train_on(folder.parent / "words", folder.parent / "sd", folder, settings=SHORT, watch=watch)


def facts(found: Trained, lost: bool = False) -> dict[str, Any]:
    """What a process is given."""
    return {
        "path": str(found.path),
        "digest": found.pipe.model.digest,
        **({"lost": sorted(found.lost)} if lost else {}),
    }


def failure(work: Callable[[], Any]) -> list[str]:
    """The kind and the words of the error that some work ends with."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  # of any kind, which the test then asks for
        return [type(error).__name__, str(error)]
    return []


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Skipped)
    processes = Processes.joined(Place())
    processes.on_main(lambda: write_data(folder))
    found: dict[str, Any] = {}
    told: list[Forecast] = []
    done: list[list[int]] = []
    asked: list[list[int]] = []
    watch = Watching(
        encoding=lambda *now: done.append(list(now)),
        training=lambda now: done.append([now.step]),
        forecast=told.append,
        sheets=4,
    )
    found["numbers"] = facts(numbers_run(folder / "run", watch))
    found["again"] = facts(numbers_run(folder / "again"))
    parts.PART = examples.PART = SIZE
    real = examples.encoded

    def encoded(raw: Any, numbers: range) -> Any:
        asked.append(list(numbers))
        return real(raw, numbers)

    def broken(raw: Any, numbers: range) -> Any:
        if processes.rank == 1:
            raise OSError("the second disk")
        return real(raw, numbers)

    examples.encoded = broken
    found["failed"] = failure(lambda: words_run(folder / "latents"))
    examples.encoded = encoded
    found["words"] = facts(words_run(folder / "latents", watch._replace(forecast=None, sheets=0)), lost=True)
    needed = forecast_on(folder / "numbers.npz", SMALL, folder / "none", settings=QUICK)
    found["forecast"] = [needed.processes, needed.batch, needed.memory.gradients]
    found["absent"] = failure(lambda: train_on(folder / "absent", SMALL, folder / "none", settings=QUICK))
    found |= {"asked": asked, "done": done, "told": [one.samples for one in told]}
    (folder / f"found-{processes.rank}.json").write_text(json.dumps(found))
