"""Prompts from a file: one a line, or JSON lines that say more of each image.

In a text file empty lines and lines that begin with `#` are left out, and space around a prompt is cut. In a .jsonl
file each line is an object with arguments of a call:

    {"prompt": "a red circle", "negative": "blue", "seed": [1, 2], "guidance": 5, "sampler": "ddim", "steps": 8}

`label` takes the place of `prompt` for a model of classes; all else may be left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.drawing.drawing import LONGEST_PROMPT, SEED_LIMIT
from fewstep.pipeline.order import FIELDS, PARTS, SAMPLING

FILE_LIMIT, MAX_ITEMS = 64 << 20, 1_000_000
"""Most bytes of a file of prompts, and most images of a batch."""
CALL = sorted({*SAMPLING, *FIELDS, *PARTS, "preset"} - {"seed", "count"})
"""The arguments that a line may have beside its subject and seeds."""


@dataclass(frozen=True)
class PromptLine:
    """A line: a prompt or label, its seeds, and arguments of a call, as far as it names them.

    `where` is how errors name the line.
    """

    subject: str | int | None
    seeds: tuple[int, ...] = ()
    call: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)


def read_prompts(path: str | os.PathLike[str]) -> list[PromptLine]:
    """The lines of a file in UTF-8.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is too large, not UTF-8, empty, or a line of JSON is not as it has to be.
    """
    path = Path(path)
    with path.open("rb") as file:
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise InvalidInput(f"{path} has more than {FILE_LIMIT >> 20} MiB: cut it into several files of prompts")
    try:
        texts = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error
    as_json = path.suffix.lower() in (".jsonl", ".ndjson")
    lines = []
    for number, text in enumerate(map(str.strip, texts), 1):
        if text and as_json:
            lines.append(_parsed(text, f"line {number} of {path}"))
        elif text and not text.startswith("#"):
            lines.append(PromptLine(_short(text, f"line {number} of {path}")))
    if not lines:
        raise InvalidInput(f"{path} holds no prompts: write one a line")
    if len(lines) > MAX_ITEMS:
        raise InvalidInput(f"{path} has {len(lines):,} prompts, at most {MAX_ITEMS:,} are drawn: cut it into several")
    return lines


def _short(text: str, where: str) -> str:
    if len(text) > LONGEST_PROMPT:
        raise InvalidInput(f"{where} has {len(text):,} characters; at most {LONGEST_PROMPT:,} of a prompt are read")
    return text


def _parsed(text: str, where: str) -> PromptLine:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InvalidInput(f'{where} has to be an object such as {{"prompt": "a red circle"}}, got {text[:60]}')
    known = ["prompt", "label", "seed", *CALL]
    for name in value:
        if name not in known:
            raise unknown_name(f"key in {where}", name, known)
    if ("prompt" in value) == ("label" in value):
        raise InvalidInput(f"{where} needs a prompt, or a label for a model of classes, and not both")
    kind, name = (str, "prompt") if "prompt" in value else (int, "label")
    for each, other in ((name, kind is int), ("negative", True)):
        said = value.get(each)
        if type(said) is not kind and not (said is None and other):
            named = "a text" if kind is str else "a whole number"
            raise InvalidInput(f"{where}: {each} has to be {named}{' or null' * other}, got {said!r:.60}")
        if isinstance(said, str):
            _short(said, where)
    call = {key: inner for key, inner in value.items() if key in CALL and inner is not None}
    return PromptLine(value[name], _seeds(value.get("seed", []), where), call, where)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not all(type(seed) is int and 0 <= seed <= SEED_LIMIT for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InvalidInput(
            f"{where}: seed has to be a whole number from 0, or a list of different ones, got {value!r:.60}"
        )
    return tuple(seeds)
