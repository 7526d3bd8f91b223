"""Prompts from a file: text, one a line, or JSON lines that say more of each.

In a text file empty lines and lines that begin with `#` are left out, and space around a prompt is cut. In a .jsonl
file each line is an object:

    {"prompt": "a red circle", "negative": "blue", "seed": [1, 2], "guidance": 5}

`label` takes the place of `prompt` for a model of classes; all else may be left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.pipeline.guidance import GivenScale
from fewstep.pipeline.job import MAX_ITEMS, Item
from fewstep.pipeline.recipe import SEED_LIMIT

FILE_LIMIT = 64 << 20
"""Most bytes of a file of prompts."""
LARGEST = 1e300
"""Of a guidance scale."""
KEYS = ("prompt", "label", "negative", "seed", "guidance")


class Line(NamedTuple):
    """What a line says; None, and no seeds, where it says nothing."""

    subject: str | int | None
    negative: str | int | None = None
    seeds: tuple[int, ...] = ()
    guidance: float | list[float] | None = None

    def items(self, seeds: Sequence[int], negative: str | int | None, guidance: GivenScale) -> list[Item]:
        """One for each seed; what the line does not say is as given."""
        negative = negative if self.negative is None else self.negative
        guidance = guidance if self.guidance is None else self.guidance
        return [Item(self.subject, seed, negative, guidance) for seed in self.seeds or seeds]


def read_prompts(path: str | os.PathLike[str]) -> list[Line]:
    """The lines of a file in UTF-8.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is too large, no UTF-8, empty, or a line of JSON is not as it has to be.
    """
    path = Path(path)
    with path.open("rb") as file:
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise InvalidInput(f"{path} has more than {FILE_LIMIT >> 20} MiB: cut it into several files of prompts")
    try:
        texts = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from error
    as_json = path.suffix.lower() in (".jsonl", ".ndjson")
    lines = []
    for number, text in enumerate(texts, 1):
        text = text.strip()
        if text and as_json:
            lines.append(_parsed(text, f"line {number} of {path}"))
        elif text and not text.startswith("#"):
            lines.append(Line(text))
    if not lines:
        raise InvalidInput(f"{path} holds no prompts: write one a line")
    if len(lines) > MAX_ITEMS:
        raise InvalidInput(f"{path} has {len(lines):,} prompts, at most {MAX_ITEMS:,} are drawn: cut it into several")
    return lines


def _parsed(text: str, where: str) -> Line:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise InvalidInput(f'{where} has to be an object such as {{"prompt": "a red circle"}}, got {text[:60]}')
    for name in value:
        if name not in KEYS:
            raise unknown_name(f"key in {where}", name, KEYS)
    if ("prompt" in value) == ("label" in value):
        raise InvalidInput(f"{where} needs a prompt, or a label for a model of classes, and not both")
    kind = str if "prompt" in value else int
    subject = value.get("prompt", value.get("label"))
    named = "a text" if kind is str else "a whole number or null"
    for name, got in (("prompt" if kind is str else "label", subject), ("negative", value.get("negative"))):
        if type(got) is not kind and not (got is None and name != "prompt"):
            raise InvalidInput(f"{where}: {name} has to be {named}, got {got!r:.60}")
    return Line(subject, value.get("negative"), _seeds(value.get("seed", []), where), _guidance(value, where))


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not all(type(seed) is int and 0 <= seed <= SEED_LIMIT for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InvalidInput(
            f"{where}: seed has to be a whole number from 0, or a list of different ones, got {value!r:.60}"
        )
    return tuple(seeds)


def _guidance(value: dict[str, Any], where: str) -> float | list[float] | None:
    scale: Any = value.get("guidance")
    if scale is None:
        return None
    by_row = isinstance(scale, list) and len(scale) > 0
    weights: list[Any] = scale if by_row else [scale]
    if not all(isinstance(w, int | float) and not isinstance(w, bool) and abs(w) <= LARGEST for w in weights):
        raise InvalidInput(
            f"{where}: guidance has to be a finite number, or a list with one for each row of the plan, got "
            f"{scale!r:.60}"
        )
    numbers = [float(w) for w in weights]
    return numbers if by_row else numbers[0]
