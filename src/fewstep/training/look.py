"""Looks at what a run has learnt so far, by the averaged weights: figures and pictures, which change no bit of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fewstep.training.roles import Roles
from fewstep.training.settings import Settings
from fewstep.training.state import Learner


@dataclass(frozen=True, eq=False)
class Seen:
    """What a look found.

    Attributes:
        figures: by names, for the log.
        pictures: (n, c, h, w) in [0, 1] on the host, by names.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


class Look(Protocol):
    """A look at the roles every so many steps, and after the last. What is trained has its averaged weights."""

    @property
    def every(self) -> int: ...

    def __call__(self, step: int, roles: Roles) -> Seen:
        """Look after so many steps."""
        ...


@contextmanager
def averaged(roles: Roles, learners: Mapping[str, Learner], settings: Settings) -> Iterator[None]:
    """Within it, what is trained has the averaged weights, is in evaluation mode and takes no gradients.

    At its end all is to the same bits what it was.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with unchanged(roles), torch.no_grad(), torch.random.fork_rng(devices=devices):
        for name, learner in learners.items():
            put_average(learner, settings)
            roles[name].module.eval()
        yield


@contextmanager
def unchanged(roles: Roles) -> Iterator[None]:
    """What moves has at the end the weights, buffers and mode that it has now, to the same bits."""
    moving = [role for role in roles.values() if role.moves]
    modes = [role.module.training for role in moving]
    tensors = [tensor for role in moving for tensor in (*role.weights.values(), *role.module.buffers())]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, kept in zip(tensors, before, strict=True):
                tensor.copy_(kept)
        for role, mode in zip(moving, modes, strict=True):
            role.module.train(mode)


@torch.no_grad()
def put_average(learner: Learner, settings: Settings) -> None:
    """The weights become the average that is the result, where there is one."""
    if settings.width:
        average = learner.averages.by_width[settings.width]
        for name, weight in learner.weights.items():
            weight.copy_(average[name])
