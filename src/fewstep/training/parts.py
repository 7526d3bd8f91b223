"""What is worked out once and kept: tensors of many samples, in files of 512 that appear whole or not at all.

So work that was interrupted goes on, and what is kept need not fit into memory: the system maps the files into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.training.processes import Processes
from fewstep.zoo import container

PART = 512
TENSOR, FACTS = "states", "of"
ALONE = Processes()


class Part(NamedTuple):
    """Tensors (n, ..) of some samples, and facts of each as plain JSON values."""

    states: Tensor
    facts: list[Any]


def kept(
    folder: Path,
    numbers: range,
    identity: Mapping[str, Any],
    make: Callable[[range], Part],
    watch: Callable[[int, int], None] = lambda done, of: None,
    processes: Processes = ALONE,
) -> list[Part]:
    """The parts of some samples, from the files in `folder` as far as these are there.

    `make` makes those that are not, which the processes do in turn; the main one is watched.

    Raises `InvalidInput` where a file is damaged or of something else.
    """
    identity = json.loads(json.dumps(dict(identity)))
    ranges = [range(begin, min(begin + PART, numbers.stop)) for begin in range(numbers.start, numbers.stop, PART)]

    def make_own() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for own in ranges:
            if path_of(folder, own).exists():
                _inspected(path_of(folder, own), len(own), identity)  # refused now, not once the others are made
        for own in ranges[processes.rank :: processes.count]:
            if not path_of(folder, own).exists():
                made = make(own)
                container.write(path_of(folder, own), {TENSOR: made.states}, {FACTS: identity, "facts": made.facts})
            if processes.main:
                watch(min(len(numbers), own.start - numbers.start + len(own) * processes.count), len(numbers))

    processes.together(make_own)
    return [_read(path_of(folder, own), len(own), identity) for own in ranges]


def path_of(folder: Path, numbers: range) -> Path:
    """The file of a part."""
    return folder / f"{numbers.start:09d}-{len(numbers)}.safetensors"


def _read(path: Path, count: int, identity: Mapping[str, Any]) -> Part:
    file, facts = _inspected(path, count, identity)
    return Part(file.tensors()[TENSOR], facts)


def _inspected(path: Path, count: int, identity: Mapping[str, Any]) -> tuple[container.Header, list[Any]]:
    try:
        file = container.inspect(path)
        of, facts = json.loads(file.metadata[FACTS]), json.loads(file.metadata["facts"])
        if list(file.shapes) != [TENSOR] or file.shapes[TENSOR][0] != count or len(facts) != count:
            raise ValueError(f"{file.shapes} for {count} samples")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged ({error}): remove it, and it is made again") from error
    if of != identity:
        raise InvalidInput(f"{path} was made from other data or by another model: give another folder, or remove it")
    return file, facts
