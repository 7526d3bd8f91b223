"""How far a host is with a plan, for each of its threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.adapters.coordinates import alpha_before, factor
from fewstep.adapters.rows import Call, Registers, calls_from
from fewstep.core import Float, InvalidInput, Plan, Row, Schedule


@dataclass
class HostRun:
    """What one thread is doing: a plan, what the network is told in each row, and how far the host is.

    `begin` is the row that the host begins with and `calls` what its calls are from there; None before the first one.
    `shown` says that the host is shown x / alpha.
    """

    plan: Plan
    schedule: Schedule
    steps: int
    told: Float
    timesteps: Tensor
    shown: bool = False
    begin: int | None = None
    done: int = 0
    calls: list[Call] | None = None
    registers: Registers = field(default_factory=Registers)
    others: dict[str, list[Call]] = field(default_factory=dict)

    def begun(self, timestep: Any) -> HostRun:
        """This run, compiled from where the host begins, at `timestep` unless it said so by an index."""
        if self.calls is None:
            begin = self._found(timestep) if self.begin is None else self.begin
            self.calls = calls_from(self.plan, self.schedule, begin)
            self.begin, self.registers, self.done, self.others = begin, Registers(), 0, {}
        return self

    def instead(self, plan: Plan) -> Call:
        """The coming call of another plan with one register on the same grid."""
        if plan.digest not in self.others:
            self.others[plan.digest] = calls_from(plan, self.schedule, self.begin or 0)
        return self.others[plan.digest][self.done]

    @property
    def call(self) -> Call:
        """The coming call of the host; `InvalidInput` where there is none."""
        calls = self.calls or []
        if self.done >= len(calls):
            raise InvalidInput(
                f"all {len(calls)} evaluations of this run are done: call set_timesteps before the next one"
            )
        return calls[self.done]

    def factor(self, ahead: int = 0) -> float:
        """What the state before the coming call, or `ahead` calls later, is shown divided by."""
        return factor(alpha_before(self.plan, self.calls or [], self.done + ahead)) if self.shown else 1.0

    @property
    def position(self) -> int:
        """Index of the coming call among the plan's rows."""
        return (self.begin or 0) + self.done

    @property
    def row(self) -> Row:
        """The plan's row at `position`, the last one at the end."""
        return self.plan.rows[min(self.position, len(self.plan.rows) - 1)]

    def rows_at(self, told: float) -> list[int]:
        """The rows in which the network is told the time `told`."""
        return np.flatnonzero(np.abs(self.told - told) <= 1e-6 * max(1.0, abs(told))).tolist()

    def _found(self, timestep: Any) -> int:
        """The row of the host's first call: one that begins a step where several are told the same time."""
        if timestep is None:
            return 0
        told = float(torch.as_tensor(timestep).detach().double().reshape(-1)[0])
        near = self.rows_at(told)
        if not near:
            known = np.round(self.told, 3).tolist()[:20]
            raise InvalidInput(f"this run has no evaluation at time {told:g}: its timesteps are {known}")
        begins = [i for i in near if i == 0 or self.plan.rows[i - 1].ends_step]
        return (begins or near)[0]


class Runs:
    """The run of each thread. A copy or pickle holds that of the thread that makes it."""

    def __init__(self) -> None:
        self._threads = threading.local()

    @property
    def last(self) -> HostRun | None:
        """The run of this thread, or None."""
        return getattr(self._threads, "run", None)

    @last.setter
    def last(self, run: HostRun | None) -> None:
        self._threads.run = run

    @property
    def own(self) -> HostRun:
        """The run of this thread; `InvalidInput` where it has none."""
        if self.last is None:
            raise InvalidInput("call set_timesteps first, in the thread that runs the pipeline")
        return self.last

    def __reduce__(self) -> Any:
        return _runs_of, (self.last,)


def _runs_of(run: HostRun | None) -> Runs:
    runs = Runs()
    runs.last = run
    return runs
