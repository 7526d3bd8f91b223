"""The figures of `distill_table.py`: a file each as they are measured, and one file of all that the project keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fewstep import InvalidInput
from fewstep.files import write_whole

Figures = dict[str, Any]
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Kept:
    """Figures by name.

    Attributes:
        folder: has a file for each that was measured here, so that several processes may measure side by side.
        facts: what all were measured with: figures of other facts are refused.
        record: the one file, read where `folder` lacks a figure; None is without.
    """

    folder: Path
    facts: Mapping[str, Any]
    record: Path | None = None

    @cached_property
    def recorded(self) -> Mapping[str, Figures]:
        """Those of the one file, none where it is not there. Raises `InvalidInput` where it is not such a file, or its
        figures were measured with something else.
        """
        if self.record is None or not self.record.exists():
            return {}
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            form, facts, figures = found["format"], found["facts"], dict(found["figures"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{self.record} is not a file of figures ({error!r}): name another, or delete it"
            ) from error
        if form != FORMAT or facts != dict(self.facts):
            raise InvalidInput(
                f"{self.record} has figures of format {form} measured with {facts}; these are {FORMAT} and "
                f"{dict(self.facts)}: name another file, or delete it to measure all anew"
            )
        return figures

    def get(self, name: str) -> Figures | None:
        """Those of a name, None where nothing is known of it."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else self.recorded.get(name)

    def of(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """Those of a name, measured where nothing is known of it."""
        found = self.get(name)
        if found is None:
            found = measure()
            write_whole(self.folder / f"{name}.json", json.dumps(found, indent=1).encode())
            print(f"{name}: {found['teacher']['value']:.3f}", flush=True)
        return found

    def write(self) -> None:
        """The one file, with what the folder has more: one line for each name, so that changes can be read."""
        if self.record is None:
            return
        own = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*.json")}
        lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in sorted({**self.recorded, **own}.items())]
        head = f'{{"format": {FORMAT}, "facts": {json.dumps(dict(self.facts))}, "figures": {{\n'
        write_whole(self.record, (head + ",\n".join(lines) + "\n}}\n").encode())
