"""Images that run different plans in one batch: each slot has its own plan, row, seed, condition and guidance.

A tick makes one network call for each kind of branch that any image needs in its row, over all places, and advances
each image by one row of its own table. An image's row in every call is its place, and it is guided by itself, so it is
bitwise the same whoever shares the batch. Coefficients are read from a tensor (slots, K, K + 3), so a tick's kernels do
not depend on who is there. A slot's registers are zeroed when it is taken: what a finished or broken image left behind,
NaN included, reaches nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.attention import perturbed
from fewstep.denoise.base import Denoiser, Level, as_denoiser
from fewstep.denoise.cfg import CFG
from fewstep.denoise.convert import Network, weak_output
from fewstep.denoise.guided import Guided, RowNeed
from fewstep.denoise.method import NEGATIVE, PERTURBED, POSITIVE, WEAK, BatchState, Method
from fewstep.denoise.scale import EVERYWHERE, Weight, moments_of
from fewstep.run.eager import initial_registers, starting_states
from fewstep.run.noise import draw, key_of

_Call = tuple[str, frozenset[int]]
"""A call of a network: its branch, and the layers that it perturbs."""
ESTIMATES = "estimates"
"""The call of a denoiser that is no `Network`: it gives (data, raw) itself."""


class Finished(NamedTuple):
    """An image that left its slot: the ticket of `admit`, the state (..) without batch, whether all of it is finite,
    and how many evaluations of networks it needed.
    """

    ticket: int
    sample: Tensor
    finite: bool
    nfe: int


@dataclass(frozen=True, eq=False)
class Request:
    """An image to draw. Tensors are without batch dimension.

    Attributes:
        noise, start: as in `fewstep.sample`; with neither, the noise is that of the seed.
        condition, negative: keyword arguments of the network, tensors. All images of a batch name the same.
        weak: those of the weaker network; None is the same as `condition`.
        scale, method, interval: of guidance, as in `fewstep.Guided`; by row where the plan was tuned so.
        around: from the guided denoiser to the one that is run, such as `fewstep.clip`: of (data, raw) of a batch of
            one, so not another schedule.
    """

    seed: int = 0
    noise: Tensor | None = None
    start: Tensor | None = None
    condition: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Any] | None = None
    weak: Mapping[str, Any] | None = None
    scale: Weight = 1.0
    method: str | Method = "cfg"
    interval: tuple[float, float] = EVERYWHERE
    around: Callable[[Denoiser], Denoiser] | None = None


class _Answer(Denoiser):
    """The innermost denoiser of a slot: what the networks said in this tick."""

    estimates: tuple[Tensor, Tensor]

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return self.estimates


@dataclass
class _Slot:
    """An image in its place.

    Attributes:
        needs: by row; `layers`: of the perturbed branch; `conditions`: by branch.
        folds: (skip, out) by row; `folded`: they are in the table, which takes outputs and not data.
        table: (n, K, K + 3): registers, data, raw, noise.
        around: what is put around `answer`, the innermost denoiser.
        memory: of guidance.
    """

    ticket: int
    plan: Plan
    seed: int
    method: Method
    needs: Sequence[RowNeed]
    layers: frozenset[int]
    conditions: dict[str, dict[str, Tensor]]
    folds: Sequence[tuple[float, float]]
    folded: bool
    table: np.ndarray
    answer: _Answer
    around: Denoiser | None
    row: int = 0
    nfe: int = 0
    memory: Any = None

    def level(self, x: Tensor) -> Level:
        """That of the next row, of states `x` (1, ..)."""
        return Level.at([self.plan.rows[self.row][:3]], x, [self.row], [self.plan.ends[self.row]])

    @property
    def calls(self) -> list[_Call]:
        """Those of the next row."""
        branches = self.needs[self.row].branches
        return [(branch, self.layers if branch == PERTURBED else frozenset()) for branch in branches]

    @property
    def shapes(self) -> dict[str, dict[str, list[int]]]:
        """Of the conditions, by branch and name."""
        return {
            branch: {name: list(value.shape) for name, value in sorted(own.items())}
            for branch, own in self.conditions.items()
        }

    def estimate(self, x: Tensor, heard: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        """Data and raw, (1, ..) each, from what the networks said of this image."""
        need, (skip, out) = self.needs[self.row], self.folds[self.row]
        if ESTIMATES in heard:
            estimates = heard[ESTIMATES]
        else:
            outputs = {branch: output for branch, [output] in heard.items()}
            state = BatchState(x, skip, out, [need.moment], [need.weight])
            *estimates, self.memory = self.method.guide(outputs, state, self.memory)
            if self.folded:
                return estimates
            estimates = [skip * x + out * output for output in estimates]
        if self.around is None:
            return estimates
        self.answer.estimates = estimates[0], estimates[1]
        return self.around.estimate(x, self.level(x))


class Slots:
    """A batch of `capacity` places for images of `sample_shape`, (..) without batch.

    Args:
        network: a `Network`, whose condition and guidance are those of the images; or any denoiser or callable
            `(x, t) -> x0`, for images without.
        registers: K, the largest plan that fits; plans say theirs as `plan.registers`.
        pad: evaluate the network on all places every time, so that its batch has one shape and an image is bitwise the
            same whoever shares the batch; False evaluates the places that need it only.
        weaker: the network of autoguidance.
    """

    def __init__(
        self,
        network: Any,
        sample_shape: Sequence[int],
        capacity: int,
        *,
        registers: int = 4,
        pad: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        weaker: Network | None = None,
    ):
        if capacity < 1 or registers < 1 or not sample_shape or min(sample_shape) < 1:
            raise InvalidInput(
                f"slots need capacity, registers and sizes of at least 1, got {capacity}, {registers}, {sample_shape}"
            )
        self.network: Denoiser = as_denoiser(network)
        if self.network.begin() is not self.network:
            raise InvalidInput(
                f"{type(self.network).__name__} remembers earlier rows of a run, which the images of slots do not "
                "share: give the network alone, and the guidance method to each Request"
            )
        self.shape, self.capacity, self.registers, self.pad = tuple(sample_shape), capacity, registers, pad
        self.weaker = weaker
        size = (capacity, *self.shape)
        # Two banks, read and written in turn; what a tick knows and draws; all of one shape and place for the life of
        # the object.
        self._bank, self._next = (
            [torch.zeros(size, dtype=dtype, device=device) for _ in range(registers)] for _ in "ab"
        )
        self._data, self._raw, self._noise = (torch.zeros(size, dtype=dtype, device=device) for _ in "abc")
        self._slots: list[_Slot | None] = [None] * capacity
        self._tickets = 0

    @property
    def free(self) -> int:
        """How many more images fit."""
        return self._slots.count(None)

    @property
    def tickets(self) -> list[int]:
        """The tickets of the images in the batch."""
        return [slot.ticket for _, slot in self._taken()]

    def admit(self, plan: Plan, request: Request | None = None) -> int:
        """Put an image in a free slot and return its ticket.

        Raises:
            InvalidInput: if no slot is free, the plan needs more registers, a pair, or another noise schedule, or the
                network cannot be guided so.
        """
        request = request or Request()
        if not self.free:
            raise InvalidInput(f"all {self.capacity} slots are taken: call step() until one is free")
        if plan.registers > self.registers or plan.inputs != 1:
            raise InvalidInput(
                f"{plan.recipe.sampler} needs {plan.registers} registers and {plan.inputs} starting states; these "
                f"slots have {self.registers} registers for single states: make them with registers={plan.registers}"
            )
        noise = None if request.noise is None else request.noise[None]
        start = None if request.start is None else request.start[None]
        shape = (1, *self.shape) if noise is None and start is None else None
        states, _ = starting_states(plan, self.network, shape=shape, noise=noise, start=start, seed=[request.seed])
        if states[0].shape[1:] != self.shape:
            raise InvalidInput(f"these slots hold states of shape {self.shape}, got {tuple(states[0].shape[1:])}")
        slot = self._slot(plan, request)
        for _, other in self._taken()[:1]:
            if slot.shapes != other.shapes:
                raise InvalidInput(
                    f"all images of the batch need the conditions {other.shapes}, with these names and shapes, got "
                    f"{slot.shapes}"
                )
        place = self._slots.index(None)
        self._clear(place)
        for register, state in initial_registers(plan, states, [request.seed]).items():
            self._bank[register][place].copy_(state[0])
        self._tickets += 1
        self._slots[place] = slot
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Free the slot of an image."""
        for place, slot in self._taken():
            if slot.ticket == ticket:
                self._free(place)
                return
        raise InvalidInput(f"no image with ticket {ticket} is in the batch, which has {self.tickets}")

    def step(self) -> list[Finished]:
        """One row of each image's plan; the images that this finished."""
        if not self._taken():
            return []
        with torch.no_grad():
            self._estimate()
            self._advance()
        finished = []
        for place, slot in self._taken():
            slot.row += 1
            if slot.row == len(slot.plan.rows):
                sample = self._bank[0][place].clone()
                finished.append(Finished(slot.ticket, sample, bool(torch.isfinite(sample).all()), slot.nfe))
                self._free(place)
        return finished

    def _taken(self) -> list[tuple[int, _Slot]]:
        return [(place, slot) for place, slot in enumerate(self._slots) if slot is not None]

    def _clear(self, place: int) -> None:
        for bank in (*self._bank, self._data, self._raw, self._noise):
            bank[place].zero_()

    def _free(self, place: int) -> None:
        """An empty place shows the network zeros, not what is left of a broken image."""
        self._slots[place] = None
        self._clear(place)

    def _slot(self, plan: Plan, request: Request) -> _Slot:
        """The image as it will be run. Raises `InvalidInput` where it cannot be."""
        answer, affine = _Answer(), self.network.affine
        moments = moments_of(plan.rows, range(len(plan.rows)))
        needs = [RowNeed(moment, None, (POSITIVE if affine else ESTIMATES,)) for moment in moments]
        method, layers = CFG(), frozenset()
        if isinstance(self.network, Network):
            guided = Guided(
                self.network,
                request.condition,
                request.negative,
                request.scale if isinstance(request.scale, str) else [request.scale],
                method=request.method,
                interval=request.interval,
                weaker=self.weaker,
            ).following(plan)
            guided.check(plan)
            method, layers = guided.method, guided.layers
            needs = [guided.need(0, moment) for moment in moments]
        elif request.condition or request.negative or request.scale != 1 or request.method != "cfg":
            raise InvalidInput("conditions and guidance need a fewstep.Network as the network")
        folded = affine and not method.splits and request.around is None
        folds = [self.network.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows]
        return _Slot(
            self._tickets + 1,
            plan,
            request.seed,
            method,
            needs,
            layers,
            self._placed(request),
            folds,
            folded,
            self._table(plan, folds if folded else None),
            answer,
            None if request.around is None else request.around(answer),
        )

    def _table(self, plan: Plan, folds: Any) -> np.ndarray:
        """The plan's rows padded to K registers, with the coefficients of outputs folded in where they are given."""
        k, width = plan.registers, self.registers
        table = np.zeros((len(plan.rows), width, width + 3))
        table[:, :k, :k] = plan.A
        table[:, :k, width : width + 2] = plan.B
        table[:, :k, -1] = plan.s
        if folds is not None:
            total, fold = plan.B.sum(axis=2), np.array(folds, np.float64)
            table[:, :k, 0] += total * fold[:, :1]
            table[:, :k, width] = total * fold[:, 1:]
            table[:, :k, width + 1] = 0
        return table

    def _placed(self, request: Request) -> dict[str, dict[str, Tensor]]:
        """The conditions of each branch, on the device."""
        weak = request.condition if request.weak is None else request.weak
        given = {POSITIVE: request.condition, NEGATIVE: request.negative or request.condition, WEAK: weak}
        return {
            branch: {name: torch.as_tensor(value, device=self._noise.device) for name, value in condition.items()}
            for branch, condition in given.items()
        }

    def _estimate(self) -> None:
        """The data and the raw estimate of each image, from the calls that they need."""
        wanted: dict[_Call, list[int]] = {}
        for place, slot in self._taken():
            for call in slot.calls:
                wanted.setdefault(call, []).append(place)
        heard = {call: self._call(call, places) for call, places in wanted.items()}
        for place, slot in self._taken():
            here = slice(place, place + 1)
            own = {call[0]: [output[here] for output in heard[call]] for call in slot.calls}
            self._data[here], self._raw[here] = slot.estimate(self._bank[0][here], own)
            slot.nfe += len(own)

    def _call(self, call: _Call, needed: list[int]) -> list[Tensor]:
        """(capacity, ..), what a network says of all places, or of those that need it: an output, or two estimates.

        An empty place shows the network the time and the condition of an image that is there.
        """
        branch, layers = call
        places = list(range(self.capacity)) if self.pad else needed
        stand_in = self._taken()[0][1]
        slots = [self._slots[place] or stand_in for place in places]
        x = self._bank[0] if len(places) == self.capacity else self._bank[0][places]
        rows, ends = ([getattr(slot.plan, name)[slot.row][:3] for slot in slots] for name in ("rows", "ends"))
        level = Level.at(rows, x, [slot.row for slot in slots], ends)
        kind, network = branch if branch in (NEGATIVE, WEAK) else POSITIVE, self.network
        own = {name: torch.stack([slot.conditions[kind][name] for slot in slots]) for name in stand_in.conditions[kind]}
        if branch == ESTIMATES:
            outputs = [*network.estimate(x, level)]
        elif not isinstance(network, Network):
            outputs = [network.output(x, level)]
        elif branch == WEAK and self.weaker is not None:
            outputs = [weak_output(network, self.weaker.given({**self.weaker.condition, **own}), x, level)]
        else:
            with perturbed(layers, len(x), len(x)) if layers else nullcontext():
                outputs = [network.given({**network.condition, **own}).output(x, level)]
        if len(places) == self.capacity:
            return outputs
        index = torch.tensor(places, device=x.device)
        return [torch.zeros_like(self._noise).index_copy(0, index, output) for output in outputs]

    def _advance(self) -> None:
        """R <- A R + B f + s z for every slot with its own coefficients; an empty slot's are zero."""
        coefficients = np.zeros((self.capacity, self.registers, self.registers + 3))
        for place, slot in self._taken():
            coefficients[place] = slot.table[slot.row]
            interval = slot.plan.rows[slot.row].noise
            if interval is not None:
                host = np.empty(self.shape, np.float32)
                draw(slot.seed, key_of(interval), host)
                self._noise[place].copy_(torch.from_numpy(host), non_blocking=True)
        used = np.any(coefficients, axis=0)  # which of the K x (K + 3) coefficients any slot has
        shape = (*coefficients.shape, *[1] * len(self.shape))
        device = (
            torch.from_numpy(coefficients).to(self._noise.device, self._noise.dtype, non_blocking=True).reshape(shape)
        )
        sources = [*self._bank, self._data, self._raw, self._noise]
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
