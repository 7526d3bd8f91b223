"""The file of figures: what was measured of each claim on each model, with the settings it was measured with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fewstep import InvalidInput
from fewstep.files import write_whole
from literature.claim import Claim, Figures, Found, plain, read

FORMAT = 1


class Entry(NamedTuple):
    """One claim on one model, measured: the settings, the processor seconds it took, and what was found."""

    images: int
    model: str
    seconds: float
    found: Found


@dataclass
class Record:
    """All entries, by claim and model; with a `path` they are written after each."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    path: Path | None = None

    @staticmethod
    def load(path: Path) -> Record:
        """The record of a file, empty where there is none. Raises `InvalidInput` where it is not one."""
        if not path.exists():
            return Record(path=path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise InvalidInput(f"{path} has format {document['format']}, this is {FORMAT}: measure anew")
            entries = {
                (claim, model): _entry(one)
                for claim, models in document["claims"].items()
                for model, one in models.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"{path} is not a file of figures ({error!r}): name another, or delete it") from error
        return Record(entries, path)

    def save(self) -> None:
        """Write it whole, where it has a path: one line for each claim on each model, so that changes can be read."""
        if self.path is None:
            return
        claims: dict[str, list[str]] = {}
        for (claim, model), entry in sorted(self.entries.items()):
            claims.setdefault(claim, []).append(f"{json.dumps(model)}: {json.dumps(_document(entry))}")
        parts = [f"{json.dumps(claim)}: {{\n" + ",\n".join(models) + "\n}" for claim, models in claims.items()]
        text = f'{{"format": {FORMAT}, "claims": {{\n' + ",\n".join(parts) + "\n}}\n"
        write_whole(self.path, text.encode())

    def has(self, claim: str, model: str, images: int, digest: str) -> bool:
        """Whether this was measured with these settings."""
        entry = self.entries.get((claim, model))
        return entry is not None and (entry.images, entry.model) == (images, digest)

    def figures(self, claim: Claim, models: Sequence[str]) -> dict[str, Figures]:
        """Those of a claim, by model."""
        return {
            model: self.entries[claim.key, model].found.figures
            for model in claim.models
            if model in models and (claim.key, model) in self.entries
        }


def measure(
    claims: Sequence[Claim],
    models: Mapping[str, str],
    images: int,
    record: Record,
    *,
    clock: Callable[[], float],
    said: Callable[[str], None] = lambda line: None,
) -> None:
    """Measure what the record lacks of some claims on some models, named with their digests; it is saved after each."""
    for claim in claims:
        for model in claim.models:
            if model not in models or record.has(claim.key, model, images, models[model]):
                continue
            began = clock()
            found = claim.measure(model, images)
            seconds = clock() - began
            entry = Entry(images, models[model], round(seconds, 1), found)
            record.entries[claim.key, model] = _entry(_document(entry))  # a page is the same from the file
            record.save()
            said(f"{claim.key} on {model}: {seconds:.0f} s")


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "images": entry.images,
        "model": entry.model,
        "seconds": entry.seconds,
        "figures": {name: plain(figure) for name, figure in entry.found.figures.items()},
        "rows": [[plain(cell) for cell in row] for row in entry.found.rows],
    }


def _entry(document: dict[str, Any]) -> Entry:
    figures = {name: read(figure) for name, figure in document["figures"].items()}
    rows = [[read(cell) for cell in row] for row in document["rows"]]
    return Entry(int(document["images"]), str(document["model"]), float(document["seconds"]), Found(rows, figures))
