"""A data set of Hugging Face's `datasets`, from the disk: what `save_to_disk` wrote, or parquet and arrow files.

The picture is the column of the type `Image`, or the one that is called `image`; what it shows is the column of classes
(`ClassLabel`), whole numbers called `label`, or text called `text`, `caption` or `prompt`. Where `save_to_disk` wrote
several splits, `train` is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewstep.core.errors import InvalidInput, shown
from fewstep.data.source import Sample, Told, Unreadable
from fewstep.pipeline.pictures import decoded, opened

FILES = (".parquet", ".arrow")
TEXTS = ("text", "caption", "prompt")
SPLITS = "dataset_dict.json"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a data set.

    Attributes:
        rows: a `datasets.Dataset` whose pictures are not decoded.
        image, subject: names of the columns; a subject of None has none.
    """

    path: Path
    rows: Any
    image: str
    subject: str | None
    told: Told
    classes: int
    digest: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Table:
        """The data set of a folder or a file. Raises `InvalidInput` where it cannot be read, or lacks a column."""
        path = Path(path)
        rows = _loaded(path)
        image, subject, told = columns_of(rows.features, str(path))
        classes = _classes(rows, subject) if told == "labels" else 0
        return Table(path, _undecoded(rows, image), image, subject, told, classes, _digest(path, rows))

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows)

    @property
    def identity(self) -> Mapping[str, Any]:
        """By the names and sizes of the files, and the columns."""
        return {"kind": "table", "count": self.count, "digest": self.digest, "columns": [self.image, self.subject]}

    def name(self, number: int) -> str:
        """The number of the row."""
        return f"row {number} of {self.path}"

    def read(self, number: int) -> Sample:
        """The picture and the subject of a row."""
        name = self.name(number)
        try:
            row = self.rows[number]
            return Sample(_picture(row[self.image], name), self._subject(row, name))
        except Unreadable:
            raise
        except (InvalidInput, OSError) as error:
            raise Unreadable(f"{error}") from error

    def _subject(self, row: Mapping[str, Any], name: str) -> int | str | None:
        value = None if self.subject is None else row[self.subject]
        if self.told == "prompts" and not (isinstance(value, str) and value.strip()):
            raise Unreadable(f"{name} has no caption in {self.subject}: got {shown(value)}")
        if self.told == "labels" and not (isinstance(value, int) and 0 <= value < self.classes):
            raise Unreadable(f"{name} has no label from 0 to {self.classes - 1} in {self.subject}: got {shown(value)}")
        return value


def is_table(path: Path) -> bool:
    """Whether a path holds such a data set."""
    if path.is_dir():
        saved = any((path / name).is_file() for name in (SPLITS, "state.json"))
        return saved or any(one.suffix in FILES for one in path.iterdir())
    return path.suffix in FILES


def columns_of(features: Mapping[str, Any], where: str) -> tuple[str, str | None, Told]:
    """The columns of the picture and of what it shows, and how that is said."""
    kinds = {name: type(kind).__name__ for name, kind in features.items()}
    image = next((name for name, kind in kinds.items() if kind == "Image"), "image" if "image" in kinds else None)
    if image is None:
        raise InvalidInput(f"{where} has the columns {sorted(kinds)}, none of them of pictures: name one image")
    for name, kind in kinds.items():
        if kind == "ClassLabel":
            return image, name, "labels"
    text = next((name for name in TEXTS if name in kinds), None)
    if text is not None and "label" in kinds:
        raise InvalidInput(f"{where} has both {text} and label: remove the column that is not to be learned")
    if text is not None:
        return image, text, "prompts"
    return (image, "label", "labels") if "label" in kinds else (image, None, "nothing")


def _loaded(path: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InvalidInput(
            f"{path} is read by Hugging Face's datasets, which is not installed: pip install 'fewstep[datasets]'"
        ) from error
    files = files_of(path)
    try:
        if (path / SPLITS).is_file():
            splits = json.loads((path / SPLITS).read_text())["splits"]
            if "train" not in splits:
                raise InvalidInput(f"{path} has the splits {splits}, and none is train: give the folder of one")
            return datasets.load_from_disk(str(path / "train"))
        if path.is_dir() and (path / "state.json").is_file():
            return datasets.load_from_disk(str(path))
        parts = [_of_file(datasets, file) for file in files]
        return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    except InvalidInput:
        raise
    except Exception as error:  # of many libraries, on files from anywhere
        raise InvalidInput(
            f"{path} cannot be read by datasets ({type(error).__name__}: {str(error)[:200]}): save it again"
        ) from error


def _of_file(datasets: Any, file: Path) -> Any:
    """An arrow file is mapped into memory, a parquet file is read into it."""
    if file.suffix == ".arrow":
        return datasets.Dataset.from_file(str(file))
    from pyarrow import parquet

    table = parquet.read_table(str(file))
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def files_of(path: Path) -> list[Path]:
    """The files that a data set lies in, sorted."""
    if path.is_file():
        return [path]
    return sorted(one for one in path.rglob("*") if one.suffix in FILES and one.is_file())


def _undecoded(rows: Any, image: str) -> Any:
    import datasets

    kind = rows.features[image]
    return rows.cast_column(image, datasets.Image(decode=False)) if isinstance(kind, datasets.Image) else rows


def _picture(value: Any, name: str) -> Image.Image:
    """From the bytes or the path that a row holds, or numbers of pixels (H, W) or (H, W, C)."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if content is None:
            if path is None:
                raise Unreadable(f"{name} has no picture")
            found = opened(path)
            assert isinstance(found, Image.Image)  # as a path is
            return found
        return decoded(io.BytesIO(content), len(content), name)
    if isinstance(value, bytes):
        return decoded(io.BytesIO(value), len(value), name)
    try:
        pixels = np.asarray(value)
        return Image.fromarray(pixels.astype(np.uint8, casting="unsafe" if _is_bytes(pixels) else "no"))
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{name} holds no picture ({error})") from error


def _is_bytes(pixels: np.ndarray) -> bool:
    return np.issubdtype(pixels.dtype, np.integer) and pixels.size > 0 and pixels.min() >= 0 and pixels.max() <= 255


def _classes(rows: Any, subject: str | None) -> int:
    names = getattr(rows.features[subject], "names", None)
    if names:
        return len(names)
    try:
        return 1 + max(int(value) for value in rows[subject])
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the column {subject} has to hold whole numbers from 0 ({error})") from error


def _digest(path: Path, rows: Any) -> str:
    root = path if path.is_dir() else path.parent
    files = [[file.relative_to(root).as_posix(), file.stat().st_size] for file in files_of(path)]
    return hashlib.sha256(json.dumps([files, len(rows), str(rows.features)]).encode()).hexdigest()[:16]
