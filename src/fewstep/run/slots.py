"""Images that run different plans in one batch: each slot has its own plan, row, seed, condition and guidance scale.

A tick evaluates the network once for all slots and advances each by one row of its own table. Coefficients of the
slots are read from a tensor (slots, K, K + 2), so a tick's kernels do not depend on who is in the batch. A slot's
registers are zeroed when it is taken: what a finished or broken image left behind, NaN included, reaches nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser, Level, as_denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guidance import Guided
from fewstep.denoise.scale import GuidanceSchedule, Scale
from fewstep.run.eager import check_plan, initial_registers, starting_states
from fewstep.run.noise import draw, key_of


class Finished(NamedTuple):
    """An image that left its slot: the ticket of `admit`, the state (..) without batch, and whether all of it is
    finite.
    """

    ticket: int
    sample: Tensor
    finite: bool


@dataclass
class _Slot:
    ticket: int
    plan: Plan
    seed: int
    guidance: float | GuidanceSchedule
    table: np.ndarray  # (n, K, K + 2): registers, network output, noise
    row: int = 0


class Slots:
    """A batch of `capacity` places for images of `sample_shape`, (..) without batch.

    Args:
        denoiser: a denoiser or a callable `(x, t) -> x0`; a `Network` where images have conditions or guidance.
        registers: K, the largest plan that fits; plans say theirs as `plan.registers`.
        pad: evaluate the network on all places every time, so that its batch has one shape and an image is bitwise the
            same whoever shares the batch; False evaluates the taken places only.
        interval, rescale: of guidance, as in `Guided`.
    """

    def __init__(
        self,
        denoiser: Any,
        sample_shape: Sequence[int],
        capacity: int,
        *,
        registers: int = 4,
        pad: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        interval: tuple[float, float] = (0.0, float("inf")),
        rescale: float = 0.0,
    ):
        if capacity < 1 or registers < 1 or not sample_shape or min(sample_shape) < 1:
            raise InvalidInput(
                f"slots need capacity, registers and sizes of at least 1, got {capacity}, {registers}, {sample_shape}"
            )
        self.denoiser: Denoiser = as_denoiser(denoiser)
        if self.denoiser.begin() is not self.denoiser:
            raise InvalidInput(
                f"{type(self.denoiser).__name__} remembers earlier rows of a run, which the images of slots do not "
                "share: sample them with fewstep.sample, or set its momentum to 0"
            )
        self.shape, self.capacity, self.registers, self.pad = tuple(sample_shape), capacity, registers, pad
        self.interval, self.rescale = interval, rescale
        size = (capacity, *self.shape)
        # Two banks, read and written in turn; the noise of a tick; all of one shape and place for the life of the
        # object.
        self._bank, self._next = (
            [torch.zeros(size, dtype=dtype, device=device) for _ in range(registers)] for _ in "ab"
        )
        self._noise = torch.zeros(size, dtype=dtype, device=device)
        self._slots: list[_Slot | None] = [None] * capacity
        self._conditions: dict[str, tuple[Tensor, Tensor]] = {}
        self._tickets = 0

    @property
    def free(self) -> int:
        """How many more images fit."""
        return sum(slot is None for slot in self._slots)

    @property
    def tickets(self) -> list[int]:
        """The tickets of the images in the batch."""
        return [slot.ticket for slot in self._slots if slot is not None]

    def admit(
        self,
        plan: Plan,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
        start: Tensor | None = None,
        condition: Mapping[str, Tensor] | None = None,
        negative: Mapping[str, Tensor] | None = None,
        guidance: float | GuidanceSchedule = 1.0,
    ) -> int:
        """Put an image in a free slot and return its ticket. `noise`, `start` and conditions are without batch
        dimension. `guidance` is taken by row where the plan was tuned so.

        Raises:
            InvalidInput: if no slot is free, or the plan needs more registers, a pair, or another noise schedule.
        """
        if not self.free:
            raise InvalidInput(f"all {self.capacity} slots are taken: call step() until one is free")
        if plan.registers > self.registers or plan.inputs != 1:
            raise InvalidInput(
                f"{plan.recipe.sampler} needs {plan.registers} registers and {plan.inputs} starting states; these "
                f"slots have {self.registers} registers for single states: make them with registers={plan.registers}"
            )
        check_plan(plan, self.denoiser)
        if (condition or negative or guidance != 1) and not isinstance(self.denoiser, Network):
            raise InvalidInput("conditions and guidance need a fewstep.Network as the denoiser")
        number = isinstance(guidance, int | float) and math.isfinite(guidance)
        if not (number or isinstance(guidance, GuidanceSchedule)) or (guidance != 1 and not negative):
            raise InvalidInput(
                "guidance is a finite number or a GuidanceSchedule and, other than 1, needs a negative condition: got "
                f"guidance={guidance!r} and negative={sorted(negative or {})}"
            )
        guidance = GuidanceSchedule.following(guidance, plan)
        Scale(guidance, self.interval).check(plan)
        table = self._table(plan)
        place = self._slots.index(None)
        given = {"noise": noise, "start": start}
        batch = {name: value[None] for name, value in given.items() if value is not None} or {"shape": (1, *self.shape)}
        states, _ = starting_states(plan, self.denoiser, seed=[seed], **batch)  # type: ignore[arg-type]
        if states[0].shape[1:] != self.shape:
            raise InvalidInput(f"these slots hold states of shape {self.shape}, got {tuple(states[0].shape[1:])}")
        self._set_condition(place, condition or {}, negative or condition or {})
        for bank in (*self._bank, self._noise):
            bank[place].zero_()
        for register, state in initial_registers(plan, states, [seed]).items():
            self._bank[register][place].copy_(state[0])
        self._tickets += 1
        self._slots[place] = _Slot(self._tickets, plan, seed, guidance, table)
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Free the slot of an image."""
        for place, slot in enumerate(self._slots):
            if slot is not None and slot.ticket == ticket:
                self._slots[place] = None
                return
        raise InvalidInput(f"no image with ticket {ticket} is in the batch, which has {self.tickets}")

    def step(self) -> list[Finished]:
        """One network call for all slots, one row of each image's plan; the images that this finished."""
        places = [i for i, slot in enumerate(self._slots) if slot is not None]
        if not places:
            return []
        batch = list(range(self.capacity)) if self.pad else places
        index = None if len(batch) == self.capacity else torch.tensor(batch, device=self._noise.device)
        level = self._level(batch, places[0])
        u = self._bank[0] if index is None else self._bank[0][index]
        with torch.no_grad():
            denoiser = self._denoiser(batch, index)
            outputs = [denoiser.output(u, level)] if self.denoiser.affine else list(denoiser.estimate(u, level))
            if index is not None:
                outputs = [torch.zeros_like(self._noise).index_copy(0, index, output) for output in outputs]
            self._advance(places, outputs)
        finished = []
        for place in places:
            slot = self._slots[place]
            assert slot is not None
            slot.row += 1
            if slot.row == slot.plan.nfe:
                sample = self._bank[0][place].clone()
                finished.append(Finished(slot.ticket, sample, bool(torch.isfinite(sample).all())))
                for bank in self._bank:  # an empty place shows the network zeros, not what is left of a broken image
                    bank[place].zero_()
                self._slots[place] = None
        return finished

    def _table(self, plan: Plan) -> np.ndarray:
        """The plan's rows with the denoiser's coefficients folded in, padded to K registers."""
        n, k, width = plan.nfe, plan.registers, self.registers
        projected = not self.denoiser.affine
        table = np.zeros((n, width, width + 2 + projected))
        table[:, :k, :k] = plan.A
        table[:, :k, -1] = plan.s
        if projected:
            table[:, :k, width : width + 2] = plan.B
            return table
        folds = np.array([self.denoiser.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows], np.float64)
        total = plan.B.sum(axis=2)
        table[:, :k, 0] += total * folds[:, :1]
        table[:, :k, width] = total * folds[:, 1:]
        return table

    def _level(self, batch: Sequence[int], stand_in: int) -> Level:
        """The levels of the batch; an empty place shows the network the time of an image that is there."""

        slots = [self._slots[place] or self._slots[stand_in] for place in batch]
        rows = [slot.row for slot in slots if slot is not None]
        host = [slot.plan.rows[slot.row][:3] for slot in slots if slot is not None]
        values = torch.tensor(host, dtype=self._noise.dtype).to(self._noise.device, non_blocking=True)
        shape = (-1, *[1] * len(self.shape))
        return Level(values[:, 0], values[:, 1].reshape(shape), values[:, 2].reshape(shape), host, rows)

    def _denoiser(self, batch: Sequence[int], index: Tensor | None) -> Denoiser:
        """The denoiser under the conditions and guidance scales of the batch."""
        if not isinstance(self.denoiser, Network) or not self._conditions:
            return self.denoiser
        pick = (lambda v: v) if index is None else (lambda v: v[index])
        condition = self.denoiser.condition | {name: pick(v) for name, (v, _) in self._conditions.items()}
        negative = self.denoiser.condition | {name: pick(v) for name, (_, v) in self._conditions.items()}
        slots = [self._slots[place] for place in batch]
        scales = [1.0 if slot is None else slot.guidance for slot in slots]
        return Guided(self.denoiser, condition, negative, scales, interval=self.interval, rescale=self.rescale)

    def _set_condition(self, place: int, condition: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> None:
        if self.free == self.capacity:  # nobody is there, so the first image decides what conditions there are
            self._conditions = {}
            for name, value in condition.items():
                value = torch.as_tensor(value, device=self._noise.device)
                both = (value.expand(self.capacity, *value.shape).clone() for _ in "ab")
                self._conditions[name] = tuple(both)  # type: ignore[assignment]
        if condition.keys() != self._conditions.keys() or negative.keys() != self._conditions.keys():
            raise InvalidInput(
                f"all images of the batch need the conditions {sorted(self._conditions)}, got {sorted(condition)} "
                f"and negative {sorted(negative)}"
            )
        for name, buffers in self._conditions.items():
            for buffer, value in zip(buffers, (condition[name], negative[name]), strict=True):
                value = torch.as_tensor(value, device=buffer.device)
                if value.shape != buffer.shape[1:]:
                    raise InvalidInput(
                        f"condition {name!r} has shape {tuple(value.shape)}, this batch has {tuple(buffer.shape[1:])}"
                    )
                buffer[place] = value

    def _advance(self, places: Sequence[int], outputs: Sequence[Tensor]) -> None:
        """R <- A R + B f + s z for every slot with its own coefficients; an empty slot's are zero."""
        coefficients = np.zeros((self.capacity, self.registers, self.registers + len(outputs) + 1))
        for place in places:
            slot = self._slots[place]
            assert slot is not None
            coefficients[place] = slot.table[slot.row]
            interval = slot.plan.rows[slot.row].noise
            if interval is not None:
                host = np.empty(self.shape, np.float32)
                draw(slot.seed, key_of(interval), host)
                self._noise[place].copy_(torch.from_numpy(host), non_blocking=True)
        used = np.any(coefficients, axis=0)  # which of the K x (K + 2) coefficients any slot has
        shape = (*coefficients.shape, *[1] * len(self.shape))
        device = (
            torch.from_numpy(coefficients).to(self._noise.device, self._noise.dtype, non_blocking=True).reshape(shape)
        )
        sources = [*self._bank, *outputs, self._noise]
        for r, target in enumerate(self._next):
            columns = np.flatnonzero(used[r])
            if not len(columns):
                target.zero_()
            for n, j in enumerate(columns):
                if n == 0:
                    torch.mul(sources[j], device[:, r, j], out=target)
                else:
                    target.addcmul_(sources[j], device[:, r, j])
        self._bank, self._next = self._next, self._bank
