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
from fewstep.zoo import container

PART = 512
TENSOR, FACTS = "states", "of"


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
) -> list[Part]:
    """The parts of some samples, from the files in `folder` as far as these are there; `make` makes the others.

    Raises `InvalidInput` where a file is damaged or of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = json.loads(json.dumps(dict(identity)))
    found = []
    for begin in range(numbers.start, numbers.stop, PART):
        own = range(begin, min(begin + PART, numbers.stop))
        path = folder / f"{begin:09d}-{len(own)}.safetensors"
        if not path.exists():
            made = make(own)
            container.write(path, {TENSOR: made.states}, {FACTS: identity, "facts": made.facts})
        found.append(_read(path, len(own), identity))
        watch(own.stop - numbers.start, len(numbers))
    return found


def _read(path: Path, count: int, identity: Mapping[str, Any]) -> Part:
    try:
        file = container.inspect(path)
        of, facts = json.loads(file.metadata[FACTS]), json.loads(file.metadata["facts"])
        if list(file.shapes) != [TENSOR] or file.shapes[TENSOR][0] != count or len(facts) != count:
            raise ValueError(f"{file.shapes} for {count} samples")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged ({error}): remove it, and it is made again") from error
    if of != identity:
        raise InvalidInput(f"{path} was made from other data or by another model: give another folder, or remove it")
    return Part(file.tensors()[TENSOR], facts)
