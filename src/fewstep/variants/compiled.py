"""A function of tensors with a module inside, compiled ahead of time for fixed shapes.

Compiled for the shapes that it meets, with the weights packed as the processor likes them, a call has no Python in it
(PyTorch's AOTInductor). What compiles for a minute is loaded in a second by the next process, from a `Store`.

A batch of another size than those compiled for is padded to the next larger one, and cut into several where it is
larger than all. So nothing compiles in the middle of a job but for the first image of another size.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.models.folder import content_digest
from fewstep.variants.store import Store


class Compiled:
    """`call(module, x, *tensors, **named)` for batches of some sizes, compiled when each is first needed.

    Attributes:
        seconds: that compiling took of what it has met, in this process or an earlier one.

    Args:
        call: takes and returns tensors with the batch first, and looks at none of their values.
        digest: of all that decides what the function computes.
        sizes: of batches, each compiled for on its own.
        what: it is, for people.

    Raises:
        InvalidInput: without a compiler, and for sizes that are none.
    """

    def __init__(
        self,
        call: Callable[..., Tensor],
        module: nn.Module,
        digest: str,
        sizes: Sequence[int],
        store: Store,
        what: str = "the network",
    ):
        if not sizes or any(type(size) is not int or size < 1 for size in sizes):
            raise InvalidInput(f"sizes of batches are whole numbers of at least 1, got {sizes!r}")
        self.call, self.module, self.digest, self.store, self.what = call, module, digest, store, what
        self.sizes = tuple(sorted(set(sizes)))
        self.device = next(module.parameters()).device
        check_compiler(self.device)
        self.seconds = 0.0
        self._known: dict[tuple[Any, ...], Callable[..., Tensor]] = {}

    def __call__(self, x: Tensor, *tensors: Tensor, **named: Tensor) -> Tensor:
        """What `call` returns for a batch, (B, ..)."""
        names, values = sorted(named), [x, *tensors]
        values += [named[name] for name in names]
        batch, largest = len(x), self.sizes[-1]
        if any(len(value) != batch for value in values):
            raise InvalidInput(f"{self.what} is compiled for tensors with the batch first, and some have another size")
        parts = zip(*(value.split(largest) for value in values), strict=True)
        return torch.cat([self._run(names, part) for part in parts]) if batch > largest else self._run(names, values)

    def _run(self, names: Sequence[str], values: Sequence[Tensor]) -> Tensor:
        """Of a batch that is no larger than the largest size."""
        batch = len(values[0])
        size = next(size for size in self.sizes if size >= batch)
        full = [padded(value, size) for value in values]
        key = (*names, *((tuple(value.shape), value.dtype) for value in full))
        if key not in self._known:
            self._known[key] = self._program(names, full)
        return self._known[key](*full)[:batch]

    def _program(self, names: Sequence[str], values: Sequence[Tensor]) -> Callable[..., Tensor]:
        shapes = [[list(value.shape), str(value.dtype)] for value in values]
        facts = {
            "function": self.digest,
            "code": code_of(self.call, self.module),
            "names": list(names),
            "shapes": shapes,
        }
        path = self.store.path(facts, self.device)
        inner = _Exported(partial(self.call, self.module), self.module, names)
        size = " x ".join(map(str, values[0].shape))
        words = f"compiling {self.what} for {size}: once on this machine, a minute or more"
        found = self.store.loaded(path, partial(compile_to, inner, values), words)
        self.seconds += self.store.seconds(path)
        return found


class _Exported(nn.Module):
    """A function as a module of positional tensors, the last of which have names."""

    def __init__(self, call: Callable[..., Tensor], module: nn.Module, names: Sequence[str]):
        super().__init__()
        self.call, self.module, self.names = call, module, list(names)

    def forward(self, *values: Tensor) -> Tensor:
        first = len(values) - len(self.names)
        return self.call(*values[:first], **dict(zip(self.names, values[first:], strict=True)))


def code_of(call: Callable[..., Any], module: nn.Module) -> list[str]:
    """What the function is written in: another version, or another text of its file, is another function."""
    found = []
    for one in (inspect.unwrap(call), type(module)):
        name = getattr(one, "__module__", None) or ""
        package = name.partition(".")[0]
        with suppress(importlib.metadata.PackageNotFoundError, ValueError):
            found.append(f"{name} of {package} {importlib.metadata.version(package)}")
        with suppress(OSError, TypeError):
            found.append(content_digest(Path(inspect.getfile(one))))
    return found


def padded(value: Tensor, size: int) -> Tensor:
    """(size, ..): a batch with its last sample again and again, laid out as the compiled code reads it."""
    missing = size - len(value)
    return (torch.cat([value, value[-1:].expand(missing, *value.shape[1:])]) if missing else value).contiguous()


def compile_to(module: nn.Module, values: Sequence[Tensor], path: Path) -> None:
    """Compile a module for tensors of these shapes, and write it to a path.

    Raises `InvalidInput` where the module cannot be exported: it branches on values, or an operation has no form that
    can be compiled.
    """
    on_cpu = values[0].device.type == "cpu"
    inductor: Any = torch._inductor
    try:
        with torch.no_grad(), inductor.config.patch(freezing=on_cpu):
            program = torch.export.export(module, tuple(values))
            inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:
        raise InvalidInput(
            f"this network cannot be compiled ({type(error).__name__}: {str(error).strip()[:300]}): use it without"
        ) from error


def check_compiler(device: torch.device) -> None:
    """Raise `InvalidInput` where nothing can be compiled for a device."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise InvalidInput(
            f"compiling for {device.type} needs a C++ compiler, and no g++ or clang++ is on the PATH: install one "
            "(apt-get install g++)"
        )
