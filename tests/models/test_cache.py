"""The cache: what is counted, what is dropped, what is damaged, and threads that want the same."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.models.cache import TensorCache, key_of


def entry(value: float, numbers: int = 10) -> dict[str, torch.Tensor]:
    """Tensors of 4 `numbers` bytes."""
    return {"x": torch.full((numbers,), value)}


def get(cache: TensorCache, name: str, value: float = 1.0, numbers: int = 10) -> float:
    return float(cache.get_or_make(key_of(name), lambda: entry(value, numbers))["x"][0])


def test_the_second_request_is_not_made_again() -> None:
    cache = TensorCache()
    assert [get(cache, "a", 1.0), get(cache, "a", 2.0), get(cache, "b", 3.0)] == [1.0, 1.0, 3.0]
    counts = cache.counts
    assert (counts.hits, counts.misses, counts.encodes, counts.entries, counts.bytes) == (1, 2, 2, 2, 80)
    assert 0 < counts.seconds_saved < counts.seconds


def test_what_was_used_longest_ago_is_dropped_first() -> None:
    cache = TensorCache(max_bytes=100)
    for name in ("a", "b", "a", "c"):
        get(cache, name)
    assert cache.counts.bytes == 80
    get(cache, "a", 5.0)
    assert cache.counts.misses == 3
    assert get(cache, "b", 7.0) == 7.0


def test_an_entry_above_the_bound_is_returned_and_not_kept() -> None:
    cache = TensorCache(max_bytes=100)
    get(cache, "a")
    assert get(cache, "large", 2.0, numbers=26) == 2.0
    assert (cache.counts.entries, cache.counts.bytes) == (1, 40)
    assert get(TensorCache(max_bytes=0), "a", 4.0) == 4.0


def test_a_failure_is_not_kept() -> None:
    cache = TensorCache()

    def fail() -> dict[str, torch.Tensor]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        cache.get_or_make(key_of("a"), fail)
    assert get(cache, "a", 2.0) == 2.0
    assert (cache.counts.misses, cache.counts.encodes) == (2, 1)


def test_threads_that_want_the_same_make_it_once() -> None:
    cache, makers, everyone = TensorCache(), [], threading.Barrier(4, timeout=20)

    def make() -> dict[str, torch.Tensor]:
        makers.append(threading.get_ident())
        return entry(9.0)

    def want(_: int) -> float:
        everyone.wait()
        return float(cache.get_or_make(key_of("a"), make)["x"][0])

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            cache.clear()
            assert list(pool.map(want, range(4))) == [9.0] * 4
    assert len(makers) == cache.counts.encodes == 20
    assert cache.counts.hits == 60


def test_entries_on_disk_outlive_the_process(tmp_path: Path) -> None:
    get(TensorCache(folder=tmp_path / "new"), "a", 1.0)
    cache = TensorCache(folder=tmp_path / "new")
    assert [get(cache, "a", 2.0), get(cache, "a", 3.0)] == [1.0, 1.0]
    assert (cache.counts.hits, cache.counts.from_disk, cache.counts.misses) == (2, 1, 0)
    assert cache.counts.seconds_saved > 0


def test_the_folder_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = TensorCache(0, tmp_path)
    for age, name in enumerate(("a", "b", "c")):
        get(cache, name)
        os.utime(tmp_path / f"{key_of(name)}.safetensors", (1000 + age, 1000 + age))
    size = (tmp_path / f"{key_of('a')}.safetensors").stat().st_size
    bounded = TensorCache(0, tmp_path, max_disk_bytes=3 * size + size // 2)
    get(bounded, "a", 2.0)  # used now
    get(bounded, "d")
    assert {path.stem for path in tmp_path.iterdir()} == {key_of(name) for name in "acd"}


@pytest.mark.parametrize("damage", ["truncated", "renamed", "foreign"])
def test_a_damaged_file_counts_as_absent_and_is_made_anew(tmp_path: Path, damage: str) -> None:
    cache = TensorCache(0, tmp_path)
    get(cache, "a", 1.0)
    path = tmp_path / f"{key_of('a')}.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "foreign":
        path.write_bytes(b"\x80\x04pickle")
    else:
        get(cache, "b", 2.0)
        os.replace(tmp_path / f"{key_of('b')}.safetensors", path)
    assert get(cache, "a", 5.0) == 5.0
    assert get(TensorCache(folder=tmp_path), "a", 6.0) == 5.0


@pytest.mark.parametrize("bounds", [{"max_bytes": -1}, {"max_bytes": 1.5}, {"max_disk_bytes": True}])
def test_a_bound_is_a_number_of_bytes(bounds: dict) -> None:
    with pytest.raises(fs.InvalidInput, match="whole number of bytes"):
        TensorCache(**bounds)


def test_a_full_disk_is_said_once_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(folder=tmp_path / "kept")
    assert get(cache, "a") == 1.0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match=r"kept keeps nothing more \(No space left on device\): make room") as said:
        assert [get(cache, "b", 2.0), get(cache, "c", 3.0)] == [2.0, 3.0]
    assert len(said) == 1
    assert get(cache, "b", 9.0) == 2.0  # from memory
    monkeypatch.undo()
    again = TensorCache(folder=tmp_path / "kept")
    assert [get(again, "a", 9.0), get(again, "b", 9.0)] == [1.0, 9.0]


def test_a_folder_that_cannot_be_made_is_said_and_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="/proc/none keeps nothing more"):
        assert get(TensorCache(folder="/proc/none"), "a", 2.0) == 2.0
    (tmp_path / "file").write_text("")
    with pytest.raises(fs.InvalidInput, match="file is not a folder: give one"):
        TensorCache(folder=tmp_path / "file")
