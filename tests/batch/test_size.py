"""The largest batch that fits."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewstep.batch import Batch, PromptLine, draw_batch
from fewstep.batch import size as batch_size
from fewstep.batch.size import LiveBytes, first_size, free_bytes, halved
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline


def test_the_peak_of_living_tensors_is_counted() -> None:
    with LiveBytes() as counted:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]  # no memory of its own
        b.add_(1)
        del a
        c = torch.zeros(500)
    assert counted.peak == 8000
    assert counted.now == 6000
    del b, view, c
    assert counted.now == 0


@pytest.mark.parametrize(
    ("free", "images", "size"), [(80_000, 1000, 8), (80_000, 5, 4), (7999, 9, 1), (10**9, 999, 64)]
)
def test_the_host_gives_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, images: int, size: int
) -> None:
    monkeypatch.setattr(batch_size, "free_bytes", lambda: free)
    assert first_size(images, "cpu", lambda: torch.zeros(1000)) == size


def test_free_memory_is_some_of_what_is_there() -> None:
    assert 1 << 20 < free_bytes() < 1 << 50


def test_a_batch_that_does_not_fit_is_halved() -> None:
    tried = []

    def draw(size: int) -> str:
        tried.append(size)
        if size > 3:
            raise torch.cuda.OutOfMemoryError("full")
        return f"{size} images"

    assert halved(16, draw) == (2, "2 images")
    assert tried == [16, 8, 4, 2]


def test_where_not_even_one_fits_the_remedies_are_named() -> None:
    def draw(size: int) -> None:
        raise torch.cuda.OutOfMemoryError("full")

    with pytest.raises(InvalidInput, match=r"not even one image fits.*--tiled"):
        halved(4, draw)


def test_the_size_that_was_found_is_kept_for_the_job(
    pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch.of(pipe, [PromptLine(0)], range(7), {"steps": 1})
    free: Any = SimpleNamespace(bytes=1 << 30)
    monkeypatch.setattr(batch_size, "free_bytes", lambda: free.bytes)
    assert draw_batch(batch, tmp_path / "a").batch == 4
    free.bytes = 1
    assert draw_batch(batch, tmp_path / "a").batch == 4
    assert draw_batch(batch, tmp_path / "other").batch == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_that_runs_out_on_a_device_halves_the_batch() -> None:
    limit = 64 << 20
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + limit) / total)
    try:
        size, found = halved(64, lambda n: torch.zeros(n, 10 << 20, dtype=torch.uint8, device="cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (size, len(found)) == (4, 4)
