"""Arrays, tables of Hugging Face's datasets, shards of webdataset and scenes, each by number and in any order."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.pictures import colour, encoded, picture, write_tar
from fewstep import InvalidInput
from fewstep.data import Arrays, Scenes, Shards, Unreadable, open_data


def bytes_of(count: int = 4) -> np.ndarray:
    return np.stack([np.asarray(picture(number)) for number in range(count)])


def test_an_npz_holds_bytes_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=bytes_of(), labels=np.array([0, 2, 1, 2]))
    found = open_data(tmp_path / "a.npz")
    assert (found.count, found.told, found.classes) == (4, "labels", 3)
    assert [(colour(found.read(i).picture), found.read(i).subject) for i in (3, 1)] == [(3, 2), (1, 2)]


def test_numbers_of_an_npz_are_exact(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).random((3, 5, 5))
    np.savez(tmp_path / "a.npz", images=numbers)
    read = open_data(tmp_path / "a.npz").read(2)
    assert read.subject is None
    assert torch.allclose(read.picture, torch.from_numpy(2 * numbers[2:3] - 1).float())


def test_the_digest_of_arrays_is_that_of_their_content(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=bytes_of())
    np.savez_compressed(tmp_path / "b.npz", images=bytes_of())
    other = bytes_of()
    other[0, 0, 0, 0] += 1
    np.savez(tmp_path / "c.npz", images=other)
    digests = [open_data(tmp_path / f"{name}.npz").identity["digest"] for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": bytes_of()}, "name the array of the pictures images"),
        ({"images": bytes_of(), "names": np.arange(4)}, r"holds \['names'\] too"),
        ({"images": bytes_of()[0, 0]}, r"have shape \(8, 3\)"),
        ({"images": bytes_of().astype(np.int64)}, "give bytes"),
        ({"images": np.full((2, 4, 4), 1.5)}, "lie in 1.5 .. 1.5"),
        ({"images": np.full((2, 4, 4), np.nan)}, "numbers have to lie in"),
        ({"images": bytes_of(), "labels": np.arange(3)}, r"have to be whole numbers \(4,\)"),
        ({"images": bytes_of(), "labels": np.array([0, 1, -1, 0])}, "go from -1 to 1"),
        ({"images": np.array([picture(0), None], object)}, "not an .npz file of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput, match=message):
        Arrays.of(tmp_path / "a.npz")


def test_an_npz_that_unfolds_too_far_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100, 64, 64), np.uint8))
    monkeypatch.setattr("fewstep.data.arrays.MOST_BYTES", 100_000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(InvalidInput, match="unfolds to 409,"):
        Arrays.of(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InvalidInput, match=r"b.npz is not an .npz file"):
        Arrays.of(tmp_path / "b.npz")


def test_the_digits_are_data_too() -> None:
    found = open_data("digits")
    assert (found.count, found.classes) == (1797, 10)
    assert found.read(0).picture.shape == (1, 8, 8)


datasets = pytest.importorskip("datasets")


def rows(count: int = 4, **more: Any) -> Any:
    features = datasets.Features({"image": datasets.Image(), **{name: kind for name, (kind, _) in more.items()}})
    images = [{"bytes": encoded(number), "path": None} for number in range(count)]
    return datasets.Dataset.from_dict(
        {"image": images, **{name: values for name, (_, values) in more.items()}}, features=features
    )


CLASSES = {"kind": (datasets.ClassLabel(names=["cat", "dog", "fox"]), [0, 2, 1, 2])}
CAPTIONS = {"text": (datasets.Value("string"), ["zero", "one", "two", "three"])}


@pytest.mark.parametrize("form", ["disk", "parquet", "arrow", "splits", "shards"])
def test_a_data_set_of_hugging_face_is_read_from_the_disk(form: str, tmp_path: Path) -> None:
    path = tmp_path / "set"
    match form:
        case "disk":
            rows(**CAPTIONS).save_to_disk(path)
        case "splits":
            datasets.DatasetDict({"train": rows(**CAPTIONS), "test": rows(2)}).save_to_disk(path)
        case "parquet":
            path = tmp_path / "set.parquet"
            rows(**CAPTIONS).to_parquet(path)
        case "shards":
            path.mkdir()
            rows(**CAPTIONS).select([0, 1]).to_parquet(path / "0.parquet")
            rows(**CAPTIONS).select([2, 3]).to_parquet(path / "1.parquet")
        case _:
            rows(**CAPTIONS).save_to_disk(tmp_path / "saved")
            path = next((tmp_path / "saved").glob("*.arrow"))
    found = open_data(path)
    assert (found.count, found.told) == (4, "prompts")
    assert [(colour(found.read(i).picture), found.read(i).subject) for i in (3, 0)] == [(3, "three"), (0, "zero")]


def test_classes_of_a_data_set_are_those_that_it_names(tmp_path: Path) -> None:
    rows(**CLASSES).save_to_disk(tmp_path / "set")
    found = open_data(tmp_path / "set")
    assert (found.told, found.classes, found.read(1).subject) == ("labels", 3, 2)


def test_rows_and_columns_that_lack_something_are_named(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "a")
    with pytest.raises(InvalidInput, match=r"has the columns \['a'\], none of them of pictures"):
        open_data(tmp_path / "a")
    rows(text=(datasets.Value("string"), ["zero", None, "", "three"])).save_to_disk(tmp_path / "b")
    found = open_data(tmp_path / "b")
    for number in (1, 2):
        with pytest.raises(Unreadable, match=rf"row {number} of .* has no caption in text"):
            found.read(number)
    rows(**CAPTIONS, label=(datasets.Value("int64"), [0, 1, 0, 1])).save_to_disk(tmp_path / "c")
    with pytest.raises(InvalidInput, match="both text and label"):
        open_data(tmp_path / "c")
    datasets.DatasetDict({"test": rows(2)}).save_to_disk(tmp_path / "d")
    with pytest.raises(InvalidInput, match="none is train"):
        open_data(tmp_path / "d")
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match=r"e.parquet cannot be read by datasets"):
        open_data(tmp_path / "e.parquet")


def shards(root: Path) -> Path:
    """Two shards of two samples."""
    for shard in range(2):
        files = {}
        for number in (2 * shard, 2 * shard + 1):
            files[f"./a.b/{number:03d}.jpg"] = encoded(number, "JPEG")
            files[f"./a.b/{number:03d}.txt"] = f"colour {number}".encode()
        write_tar(root / f"{shard}.tar", files)
    return root


def test_shards_are_read_in_any_order_by_a_table_that_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_data(shards(tmp_path), tmp_path / "kept")
    assert (found.count, found.told) == (4, "prompts")
    assert [(colour(found.read(i).picture), found.read(i).subject) for i in (3, 0, 2)] == [
        (3, "colour 3"),
        (0, "colour 0"),
        (2, "colour 2"),
    ]
    monkeypatch.setattr("fewstep.data.shards._indexed", None)
    again = open_data(tmp_path, tmp_path / "kept")
    assert again.read(1).subject == "colour 1"
    assert again.identity == found.identity
    (table,) = (tmp_path / "kept").iterdir()
    table.write_text("[")
    with pytest.raises(InvalidInput, match=r"is damaged .*: remove it"):
        open_data(tmp_path, tmp_path / "kept")


def test_labels_of_shards_are_whole_numbers(tmp_path: Path) -> None:
    files = {"a.png": encoded(1), "a.cls": b"4", "b.png": encoded(2), "b.cls": b"0"}
    found = Shards.of(write_tar(tmp_path / "a.tar", files))
    assert (found.told, found.classes, found.read(0).subject, found.read(1).subject) == ("labels", 5, 4, 0)
    with pytest.raises(InvalidInput, match=r"b in .* has the label 'x'"):
        Shards.of(write_tar(tmp_path / "b.tar", {**files, "b.cls": b"x"}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": encoded(1), "a.txt": b"a", "b.png": encoded(2)}, r"b in .* has neither caption nor label"),
        ({"a.png": encoded(1), "a.txt": b"a", "b.txt": b"b"}, r"b in .* has the files .txt; a sample has one picture"),
        ({"a.png": encoded(1), "a.jpg": encoded(1)}, "has the files .jpg, .png"),
        ({}, "no samples"),
    ],
)
def test_shards_with_parts_missing_are_named(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        open_data(write_tar(tmp_path / "a.tar", files))


def test_a_compressed_shard_is_refused_and_a_cut_one_unreadable(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": encoded(1), "a.txt": b"a"})
    found = Shards.of(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    with pytest.raises(Unreadable, match=r"a in .*a.tar is cut short"):
        found.read(0)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(InvalidInput, match="is not a plain tar file"):
        Shards.of(path)


def test_scenes_have_captions_and_are_the_same_whenever_they_are_asked_for() -> None:
    found = Scenes(count=10)
    first = found.read(7)
    found.read(3)
    again = Scenes(count=10).read(7)
    assert first.subject == again.subject
    assert np.array_equal(np.asarray(first.picture), np.asarray(again.picture))
    assert isinstance(first.subject, str)
    assert first.picture.size == (64, 64)
    assert found.read(8).subject != first.subject
    assert Scenes(seed=1).identity != Scenes().identity
