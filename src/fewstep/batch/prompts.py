"""Prompts from a file: one a line, or JSON lines that say more of each image.

A newline ends a line, and nothing else does: a prompt may hold other separators, such as U+2028. In a text file empty
lines and lines that begin with `#` are left out, and space around a prompt is cut. In a .jsonl file each line is an
object with arguments of a call:

    {"prompt": "a red circle", "negative": "blue", "seed": [1, 2], "guidance": 5, "sampler": "ddim", "steps": 8}

`label` takes the place of `prompt` for a model of classes; all else may be left out.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.drawing.drawing import LONGEST_PROMPT, SEED_LIMIT
from fewstep.files import read_bounded
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
        OSError: the file cannot be read, or is not a regular one.
        InvalidInput: it is too large, not UTF-8, empty, or a line of JSON is not as it has to be.
    """
    path = Path(path)
    try:
        content = read_bounded(path, FILE_LIMIT)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise InvalidInput(
            f"{path} has more than {FILE_LIMIT >> 20} MiB: cut it into several files of prompts"
        ) from error
    texts = _text(content, path).split("\n")
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


def subjects(path: str | os.PathLike[str]) -> list[str]:
    """The different prompts of a file, in its order, for a command that draws each of them in ways of its own.

    Raises as `read_prompts`, and `InvalidInput` for labels, and for a line that says more than its prompt: it would be
    left out.
    """
    lines = read_prompts(path)
    for line in lines:
        more = [*line.call, *(["seed"] if line.seeds else [])]
        if more or not isinstance(line.subject, str):
            what = f"says {', '.join(more)} too" if more else "has a label"
            raise InvalidInput(f"{line.where} {what}: only prompts are read here, as samplers and seeds are compared")
    return list(dict.fromkeys(str(line.subject) for line in lines))


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error
    if "\0" in text:
        raise InvalidInput(f"{path} holds the character NUL, as text in UTF-16 or UTF-32 does: save it as UTF-8")
    return text


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
    if "\0" in str(value.get("prompt")) or "\0" in str(value.get("negative")):
        raise InvalidInput(f"{where} holds the character NUL: leave it out")
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
            raise InvalidInput(f"{where}: {each} has to be {named}{' or null' * other}, got {shown(said)}")
        if isinstance(said, str):
            _short(said, where)
    call = {key: inner for key, inner in value.items() if key in CALL and inner is not None}
    return PromptLine(value[name], _seeds(value.get("seed", []), where), call, where)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not all(type(seed) is int and 0 <= seed <= SEED_LIMIT for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InvalidInput(
            f"{where}: seed has to be a whole number from 0, or a list of different ones, got {shown(value)}"
        )
    return tuple(seeds)
