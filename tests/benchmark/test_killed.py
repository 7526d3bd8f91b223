"""A bench that is killed at random, again and again, ends with the rows of one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.benchmark.measured import Measured
from fewstep.benchmark.results import read_results
from models.tiny import write

from .tiny import PLANS, measure, measure_alone

KILLS = 10


@pytest.fixture(scope="module")
def starter() -> ForkServerContext:
    """Starts processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fewstep.benchmark", "fewstep.zoo", "fewstep.solvers.exponential"])
    return context


def decided(one: Measured) -> dict[str, Any]:
    """A row without what a clock and the system say."""
    document = one.to_json()
    del document["seconds"], document["memory"]
    return document


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes have it: more round otherwise, and rows say how many there were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_ten_kills_at_random_end_with_the_same_rows_bit_for_bit(tmp_path: Path, starter: ForkServerContext) -> None:
    model = write(tmp_path / "tiny.safetensors")
    whole = measure(model, tmp_path / "whole")
    file, length = tmp_path / "killed" / "runs.jsonl", (tmp_path / "whole" / "runs.jsonl").stat().st_size
    rng, killed = random.Random(7), 0
    goals = sorted(rng.randrange(9 * length // 10) for _ in range(KILLS - 2))
    for goal in [-1, 0, *goals]:  # -1: at once, wherever it is then; 0: when the file is there
        process = starter.Process(target=measure_alone, args=(model, file.parent))
        process.start()
        while process.exitcode is None and (file.stat().st_size if file.exists() else -1) < goal:
            process.join(0.001)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if goal in goals[::3]:  # a line that was torn while it was written
            with file.open("ab") as torn:
                torn.write(b'{"version": 1, "key": "0123')
    assert killed >= KILLS - 2
    again = measure(model, file.parent)
    assert again.left == 0
    assert len(again.results) == len(whole.results) == PLANS
    undisturbed = read_results(tmp_path / "whole" / "runs.jsonl")
    assert [decided(one) for one in read_results(file)] == [decided(one) for one in undisturbed]
    assert again.page.stat().st_size > 10_000
