"""Shards of webdataset: `.tar` files, in which the files of a sample stand together under one name.

    000017.jpg  000017.txt       a picture and its caption, or `.cls` and its label

The headers of a shard are read once, to a table of where each file begins; after that a sample is read by its number,
in any order. Shards that are compressed as a whole cannot be read so. The table is kept in a folder, where one is
given.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput, shown
from fewstep.data.source import SUFFIXES, Sample, Told, Unreadable, some
from fewstep.files import open_regular, read_bounded, write_whole
from fewstep.pipeline.pictures import decoded

TOLD: dict[str, Told] = {".txt": "prompts", ".cls": "labels"}
"""What a sample shows, by the end of the name of the file that says it."""
MOST_TABLE, MOST_TEXT = 1 << 30, 1 << 16


class Member(NamedTuple):
    """A sample: its shard and name, and the places and sizes of its picture and of what it shows, 0 where nothing is
    said.
    """

    shard: int
    name: str
    place: int
    size: int
    said: int
    length: int


@dataclass(frozen=True, eq=False)
class Shards:
    """Samples in tar files."""

    paths: tuple[Path, ...]
    members: tuple[Member, ...]
    told: Told
    classes: int
    digest: str

    @staticmethod
    def of(path: str | os.PathLike[str], kept: Path | None = None) -> Shards:
        """The shards of a folder, or one file; their table is kept in the folder `kept`.

        Raises:
            OSError: a file cannot be read.
            InvalidInput: there are none, one is damaged or compressed, or a sample has no picture or nothing that says
                what it shows, where others have.
        """
        path = Path(path)
        paths = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not paths:
            raise InvalidInput(f"{path} holds no .tar files")
        digest = hashlib.sha256(json.dumps([[one.name, one.stat().st_size] for one in paths]).encode()).hexdigest()[:16]
        table = None if kept is None else kept / f"shards-{digest}.json"
        if table is not None and table.is_file():
            told, rows = _kept(table)
        else:
            told, rows = _indexed(paths)
            if table is not None:
                table.parent.mkdir(parents=True, exist_ok=True)
                write_whole(table, json.dumps([told, rows]).encode())
        found = Shards(tuple(paths), tuple(rows), told, 0, digest)
        return found if told != "labels" else Shards(found.paths, found.members, told, found.most_label() + 1, digest)

    @property
    def count(self) -> int:
        """How many samples."""
        return len(self.members)

    @property
    def identity(self) -> Mapping[str, Any]:
        """By the names and sizes of the shards."""
        return {"kind": "shards", "count": self.count, "digest": self.digest}

    def name(self, number: int) -> str:
        """The shard and the name in it."""
        member = self.members[number]
        return f"{member.name} in {self.paths[member.shard]}"

    def read(self, number: int) -> Sample:
        """A picture and its subject."""
        member, name = self.members[number], self.name(number)
        try:
            with open_regular(self.paths[member.shard]) as file:
                content = _part(file, member.place, member.size, name)
                subject = self._subject(_part(file, member.said, member.length, name), name)
            return Sample(decoded(io.BytesIO(content), len(content), name), subject)
        except Unreadable:
            raise
        except (InvalidInput, OSError) as error:
            raise Unreadable(str(error)) from error

    def most_label(self) -> int:
        """The largest label."""
        most = 0
        for number, member in enumerate(self.members):
            with open_regular(self.paths[member.shard]) as file:
                label = self._subject(_part(file, member.said, member.length, ""), self.name(number))
            most = max(most, int(label or 0))
        return most

    def _subject(self, said: bytes, name: str) -> int | str | None:
        if self.told == "nothing":
            return None
        text = said.decode("utf-8", "replace").strip()
        if self.told == "prompts":
            if not text:
                raise Unreadable(f"{name} has an empty caption")
            return text
        if not text.isdecimal() or int(text) >= 100_000:
            raise Unreadable(f"{name} has the label {shown(text)}; it has to be a whole number from 0 to 99,999")
        return int(text)


def _part(file: Any, place: int, size: int, name: str) -> bytes:
    """Some bytes of a file."""
    file.seek(place)
    content = file.read(size)
    if len(content) < size:
        raise Unreadable(f"{name} is cut short: fetch the shard again")
    return content


def _indexed(paths: list[Path]) -> tuple[Told, list[Member]]:
    """The members of all shards, in order, and how they say what they show."""
    kinds: dict[str, str] = {}
    rows: list[Member] = []
    for shard, path in enumerate(paths):
        for name, files in _samples(path).items():
            pictures = [suffix for suffix in files if suffix in SUFFIXES]
            sayings = [suffix for suffix in files if suffix in TOLD]
            if len(pictures) != 1 or len(sayings) > 1:
                raise InvalidInput(
                    f"{name} in {path} has the files {some(sorted(files))}; a sample has one picture "
                    f"({', '.join(SUFFIXES)}) and one of {', '.join(TOLD)}, or none"
                )
            place, size = files[pictures[0]]
            said, length = files[sayings[0]] if sayings else (0, 0)
            if length > MOST_TEXT:
                raise InvalidInput(f"{name} in {path} says {length:,} bytes of text; at most {MOST_TEXT:,} are read")
            kinds.setdefault(sayings[0] if sayings else "", f"{name} in {path}")
            rows.append(Member(shard, name, place, size, said, length))
    if len(kinds) > 1:
        have = ", ".join(f"{name} has {kind or 'neither caption nor label'}" for kind, name in sorted(kinds.items()))
        raise InvalidInput(f"all samples need captions, or all labels: {have}")
    if not rows:
        raise InvalidInput(f"{some([str(path) for path in paths])}: no samples are in it")
    return TOLD.get(next(iter(kinds)), "nothing"), rows


def _samples(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Where the files of each sample begin in a shard and how long they are, by the sample's name and their ends."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for one in shard:
                folder, _, last = one.name.rpartition("/")
                if not one.isreg() or one.sparse or last.startswith("."):
                    continue
                first, dot, rest = last.partition(".")
                name = f"{folder}/{first}".lstrip("/")
                if f"{dot}{rest}".lower() in found.setdefault(name, {}):
                    raise InvalidInput(f"{path} holds {one.name} twice")
                found[name][f"{dot}{rest}".lower()] = (one.offset_data, one.size)
    except tarfile.TarError as error:
        raise InvalidInput(
            f"{path} is not a plain tar file, or is damaged ({error}): shards that are compressed as a whole cannot be "
            "read by number, so unpack it to .tar"
        ) from error
    return found


def _kept(table: Path) -> tuple[Told, list[Member]]:
    """The table of an earlier run. Raises `InvalidInput` where it is damaged."""
    try:
        told, rows = json.loads(read_bounded(table, MOST_TABLE))
        return told, [Member(*row) for row in rows]
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{table} is damaged ({error}): remove it, and the shards are read again") from error
