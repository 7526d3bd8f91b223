"""A folder of pictures: with captions in `metadata.jsonl`, a sub-folder for each class, or pictures alone.

`metadata.jsonl` is that of Hugging Face's image folders: a line of JSON for each picture, with its path from the folder
as `file_name` and its caption as `text`. Classes are numbered by the sorted names of their sub-folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fewstep.core.errors import InvalidInput, shown
from fewstep.data.source import OTHERS, SUFFIXES, Sample, Told, Unreadable, some
from fewstep.files import read_bounded
from fewstep.pipeline.pictures import opened

METADATA = "metadata.jsonl"
MOST_METADATA = 1 << 30


@dataclass(frozen=True, eq=False)
class Folder:
    """Pictures in files.

    Attributes:
        files: their paths from the folder, with `/`.
        subjects: the label or the caption of each, None where there are neither.
        names: of the classes.
        digest: over paths, sizes and subjects.
    """

    path: Path
    files: tuple[str, ...]
    subjects: tuple[int | str | None, ...]
    told: Told
    names: tuple[str, ...]
    digest: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Folder:
        """The folder at a path.

        Raises:
            OSError: it, or its metadata, cannot be read.
            InvalidInput: it holds no pictures or pictures of kinds that are not read, a picture has no caption, a line
                of the metadata is not as it has to be, or pictures lie beside the sub-folders of classes.
        """
        root = Path(path)
        files = pictures_in(root)
        if (root / METADATA).is_file():
            captions = captions_of(root, files)
            return _folder(root, sorted(captions), [captions[name] for name in sorted(captions)], "prompts", ())
        tops = {name: PurePosixPath(name).parts[0] for name in files if "/" in name}
        if not tops:
            return _folder(root, files, [None] * len(files), "nothing", ())
        if len(tops) < len(files):
            beside = [name for name in files if name not in tops]
            raise InvalidInput(
                f"{root} holds {len(beside)} pictures beside the sub-folders of its classes ({some(beside)}): put each "
                f"into the folder of its class, or give every picture a caption in {METADATA}"
            )
        names = sorted(set(tops.values()))
        return _folder(root, files, [names.index(tops[name]) for name in files], "labels", tuple(names))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.files)

    @property
    def classes(self) -> int:
        """How many sub-folders."""
        return len(self.names)

    @property
    def identity(self) -> Mapping[str, Any]:
        """By names, sizes and subjects."""
        return {"kind": "folder", "count": self.count, "digest": self.digest}

    def name(self, number: int) -> str:
        """The path of a picture."""
        return str(self.path / self.files[number])

    def read(self, number: int) -> Sample:
        """A picture and its subject."""
        try:
            image = opened(self.path / self.files[number])
        except (InvalidInput, OSError) as error:
            raise Unreadable(str(error)) from error
        return Sample(image, self.subjects[number])


def pictures_in(root: Path) -> list[str]:
    """The sorted paths of the pictures below a folder, whose hidden parts are left out."""
    if not root.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(root))
    found, others = [], []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(place).relative_to(root)
        for name in names:
            suffix = Path(name).suffix.lower()
            if not name.startswith(".") and suffix in (*SUFFIXES, *OTHERS):
                (found if suffix in SUFFIXES else others).append((inner / name).as_posix())
    if others:
        raise InvalidInput(
            f"{root} holds {len(others)} pictures of kinds that are not read ({some(sorted(others))}): convert them to "
            f"one of {', '.join(SUFFIXES)}, or move them away"
        )
    if not found:
        raise InvalidInput(f"{root} holds no pictures, which end in one of {', '.join(SUFFIXES)}")
    return sorted(found)


def captions_of(root: Path, files: list[str]) -> dict[str, str]:
    """The captions by path. Raises `InvalidInput` unless each picture has one line, and each line a picture."""
    captions: dict[str, str] = {}
    path = root / METADATA
    lines = read_bounded(path, MOST_METADATA).split(b"\n")
    known = set(files)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, text = _line(line, f"line {number} of {path}")
        if name not in known:
            raise InvalidInput(f"line {number} of {path} is of {name}, and no such picture lies in {root}")
        if name in captions:
            raise InvalidInput(f"line {number} of {path} is of {name}, which has a line already: leave one of them out")
        captions[name] = text
    missing = [name for name in files if name not in captions]
    if missing:
        raise InvalidInput(
            f"{len(missing)} of {len(files)} pictures in {root} have no caption ({some(missing)}): add their lines to "
            f"{METADATA}, or move them away"
        )
    return captions


def _line(line: bytes, where: str) -> tuple[str, str]:
    """The path and the caption of a line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON in UTF-8 ({error})") from error
    name = value.get("file_name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise InvalidInput(
            f"{where} has to be an object with file_name and text, got {line[:60].decode('utf-8', 'replace')}"
        )
    text = value.get("text")
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidInput(f"{where}: {name} has no caption: give one as text, got {shown(text)}")
    return PurePosixPath(name).as_posix(), text.strip()


def _folder(root: Path, files: list[str], subjects: list[Any], told: Told, names: tuple[str, ...]) -> Folder:
    state = hashlib.sha256(json.dumps([told, names]).encode())
    for name, subject in zip(files, subjects, strict=True):
        state.update(json.dumps([name, (root / name).stat().st_size, subject]).encode())
    return Folder(root, tuple(files), tuple(subjects), told, names, state.hexdigest()[:16])
