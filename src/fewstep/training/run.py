"""What is trained: a method, its networks, the data, the settings, and where it computes and writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fewstep.training.batch import Batch
from fewstep.training.log import Logger
from fewstep.training.look import Look
from fewstep.training.method import Method
from fewstep.training.place import Place
from fewstep.training.roles import Roles
from fewstep.training.settings import Settings

HOW_OFTEN = ("state_every", "log_every")
"""Settings that do not decide the result."""


class Data(Protocol):
    """Samples by their numbers 0 .. count - 1; without a count there is no end of them.

    Properties:
        identity: plain JSON values that name the data, so that a run goes on with the same.
    """

    @property
    def count(self) -> int | None: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some samples, on the device of the networks."""
        ...


class Ending(NamedTuple):
    """When a run ends before its last step.

    Attributes:
        every: steps between questions; `due`: whether it ends after so many steps, asked in the main process alone.
            The same answer has to come again where the run is taken up after it ended.
    """

    every: int
    due: Callable[[int], bool]


class Run(NamedTuple):
    """What is trained.

    Attributes:
        folder: of states and log.
        identity: more that decides the result, as plain JSON values.
        place: where and how it computes; `data` and `roles` are there already.
        looks: at the averaged weights, every so often; `loggers`: are told what the log is.
        ending: when it ends before its last step, None where it does not.
    """

    method: Method
    roles: Roles
    data: Data
    settings: Settings
    folder: Path
    identity: Mapping[str, Any] = {}
    place: Place = Place()
    looks: Sequence[Look] = ()
    loggers: Sequence[Logger] = ()
    ending: Ending | None = None

    @property
    def known_as(self) -> dict[str, Any]:
        """All that decides the result, as plain JSON values."""
        method: Any = self.method
        settings = {name: value for name, value in asdict(self.settings).items() if name not in HOW_OFTEN}
        own = {"method": {"name": self.method.name, **asdict(method)}, "settings": settings, **self.place.identity}
        return json.loads(json.dumps({**self.identity, **own, "data": dict(self.data.identity)}, default=str))
