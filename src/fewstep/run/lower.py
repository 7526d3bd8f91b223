"""From a plan's rows to instructions on buffers, with the denoiser's coefficients folded in.

A row asks for R' = A R + B x0 + s z, and an affine denoiser says x0 = skip R[0] + out F. Together each new register is
a linear combination of old registers, F and z. Three observations save passes over memory:

- A register that only takes over a tensor is a pointer, not a copy.
- All registers but R[0] may be stored divided by any number, as only later rows of the same program read them. So each
  is stored with the coefficient of its first term equal to 1, and a combination of n terms costs n - 1 additions.
- A combination may be shorter when it starts from another one of the same row (a corrected state and the prediction
  from it).

A buffer is written in place where nobody reads it afterwards. The network's output is never written to: it may be the
network's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.plan import Plan

NOTHING, DATA, RAW, NOISE = -1, -2, -3, -4
"""Sources beside the buffers. `DATA` is the network's output, or the projected data; `RAW` is the data before
projection. `NOTHING` is always None: a buffer that takes it lets its tensor go."""

SOURCES = 4

LEAST, MOST = 1e-9, 1e9
"""A register is stored divided by a number between these: products over many rows must neither overflow nor vanish."""


class Op(NamedTuple):
    """`dst` becomes `factor` times `lead` plus the sum of c times source over `first` and `rest`.

    Without a factor `lead` counts once: `dst` is that very tensor, written in place by `rest`, or a new one where
    `first` is given, the term that makes it. The factor is a tensor (), which multiplies faster than a number.
    """

    dst: int
    lead: int
    factor: Tensor | None
    first: tuple[int, float] | None
    rest: tuple[tuple[int, float], ...]


class Program(NamedTuple):
    """Instructions for each row. Register 0 is in buffer `inputs[i]` at row i; the states to return are `results`.
    `first` lists the registers that hold something before the first row, in the buffers of their own numbers.

    `first_memory` is the first row that begins with an earlier output itself, not a copy of it, in a buffer, and that
    buffer; (-1, -1) if there is none. `results` holds (buffer, factor) for each of the plan's outputs; `buffers` is how
    many there are in all.
    """

    rows: tuple[tuple[Op, ...], ...]
    first: tuple[int, ...]
    inputs: tuple[int, ...]
    first_memory: tuple[int, int]
    results: tuple[tuple[int, float], ...]
    buffers: int


Terms = dict[int, float]  # source -> coefficient; registers are 0 .. K-1


def combinations(plan: Plan, i: int, fold: tuple[float, float] | None) -> list[Terms]:
    """Each register after row i as terms; `fold` is (skip, out), or None where data and raw are given as tensors."""
    targets: list[Terms] = []
    for r in range(plan.registers):
        row = {j: float(c) for j, c in enumerate(plan.A[i, r])}
        data, raw = (float(v) for v in plan.B[i, r])
        if fold is None:
            row |= {DATA: data, RAW: raw}
        else:
            skip, out = fold
            of_input = (data + raw) * skip
            kept = row[0] + of_input
            is_rounding = abs(kept) < 1e-14 * abs(of_input)
            row[0] = 0.0 if is_rounding else kept
            row[DATA] = (data + raw) * out
        row[NOISE] = float(plan.s[i, r])
        targets.append({source: c for source, c in row.items() if c != 0.0})
    return targets


def _through(terms: Terms, buffer: int, other: Terms) -> Terms | None:
    """The same combination with `other`, which is in `buffer`, in place of some terms; None where that is not shorter.

    Where `buffer` held one of the terms before, that one has to go, and a combination of equal length will do.
    """
    if not other.keys() <= terms.keys():
        return None
    overwritten = buffer in terms
    best = None
    most = len(terms) if overwritten else len(terms) - 1
    for shared in {buffer} if overwritten else terms.keys() & other.keys():
        if not other.get(shared) or not terms[shared]:
            continue
        ratio = terms[shared] / other[shared]
        taken = {source: ratio * other.get(source, 0.0) for source in terms}
        if any(abs(taken[source]) > 30 * abs(c) for source, c in terms.items()):
            continue  # they nearly cancel, which would cost accuracy
        rest = {s: c - taken[s] for s, c in terms.items() if s != shared and abs(c - taken[s]) > 1e-13 * abs(c)}
        if len(rest) + 1 <= most:
            best = {buffer: ratio, **rest}
            most = len(rest)
    return best


@dataclass
class _Row:
    """Lowers one row: which buffer holds which register, which ones may be written (`own`), which not (`foreign`)."""

    place: dict[int, int]
    scale: dict[int, float]
    own: set[int]
    foreign: set[int]
    size: int
    ops: list[Op] = field(default_factory=list)

    def after(self, targets: list[Terms], outputs: int, last: bool, dtype: torch.dtype) -> _Row:
        """The row that makes `targets`, in the cheaper of two orders: register 0, the longest, made last or first."""
        waiting: dict[int, Terms] = {}
        for r, terms in enumerate(targets):
            # Combinations of registers as those of buffers; registers of zeros have none, and fall away.
            held = {source: c for source, c in terms.items() if source < 0 or source in self.place}
            stored = {self.place.get(s, s): c if s < 0 else c * self.scale[s] for s, c in held.items()}
            if not stored and r < outputs:  # the first registers are read, also where they are zero
                stored = {DATA: 0.0}
            if stored:
                waiting[r] = stored
        unscaled = range(outputs) if last else range(0)
        both = []
        for first in (False, True):
            row = _Row({}, {}, set(self.own), set(self.foreign), self.size)
            row._lower(dict(waiting), len(targets), first, unscaled, dtype)
            passes = sum((op.factor is not None) + (op.first is not None) + len(op.rest) for op in row.ops)
            both.append((passes, row.size, first, row))
        return min(both)[-1]

    def _lower(
        self, waiting: dict[int, Terms], registers: int, first: bool, results: range, dtype: torch.dtype
    ) -> None:
        """Write the instructions; `first` says whether register 0 is made first or last.

        `results` are the registers that the run returns, which may not be memory of the network's.
        """
        busy: set[int] = set()
        while waiting:
            *_, r = min(((r == 0) != first, len(terms), r) for r, terms in waiting.items())
            terms = waiting.pop(r)
            [(source, c), *others] = terms.items()
            is_memory = source in (DATA, RAW) and r in results
            unit = r == 0  # the network's input is stored as it is
            if not others and not is_memory and (c == 1.0 or (not unit and LEAST < abs(c) < MOST)):
                if source < 0 or source in busy:
                    source = self._capture(source, busy.union(*waiting.values()))
                self.place[r], self.scale[r] = source, c
            else:
                self.place[r], self.scale[r] = self._combine(terms, busy, waiting, unit, dtype)
            busy.add(self.place[r])
        kept = max(0, registers - len(busy))  # all that is held is one buffer for each register
        spare = sorted(self.own - busy)[kept:]
        for buffer in [*sorted(self.foreign - busy), *spare]:
            self.ops.append(Op(buffer, NOTHING, None, None, ()))
        self.foreign &= busy
        self.own -= set(spare)

    def _capture(self, source: int, needed: set[int]) -> int:
        """A buffer that is the tensor `source` from now on."""
        buffer = self._free(needed | self.own)
        self.ops.append(Op(buffer, source, None, None, ()))
        # Two registers that share a tensor may not be written in place.
        self.foreign |= {buffer} if source < 0 else {buffer, source}
        self.own.discard(source)
        return buffer

    def _combine(
        self, terms: Terms, busy: set[int], waiting: dict[int, Terms], unit: bool, dtype: torch.dtype
    ) -> tuple[int, float]:
        """Write the sum of `terms` to a buffer, divided by the returned factor, which is 1 where `unit` asks for it.

        Combinations that wait are shortened where they can start from this one.
        """
        # Nobody needs what is in these buffers, or those who do can start from the new combination instead.
        writable = self.own.intersection(terms) - busy
        for other in waiting.values():
            writable -= {s for s in writable.intersection(other) if not _through(other, s, terms)}
        # First a coefficient of 1, which needs no multiplication, then a buffer that can be overwritten.
        lead = min(terms, key=lambda s: (unit and terms[s] != 1.0, s not in writable, -abs(terms[s])))
        factor = terms[lead] if not unit and LEAST < abs(terms[lead]) < MOST else 1.0
        whole = {s: c / factor for s, c in terms.items()}
        taken = busy.union(terms, *waiting.values())
        dst = lead if lead in writable else min(self.own - taken, default=None)
        if dst is None:
            dst = self._free(taken | self.foreign)
            self.own.add(dst)
        rest = [(s, c) for s, c in whole.items() if s != lead]
        multiplier, start = None, None
        if whole[lead] != 1.0 or not rest:
            multiplier = torch.tensor(whole[lead], dtype=dtype)
        elif lead not in writable:
            start = rest.pop(0)
        self.ops.append(Op(dst, lead, multiplier, start, tuple(rest)))
        for r, other in waiting.items():
            waiting[r] = _through(other, dst, whole) or other
        return dst, factor

    def _free(self, taken: set[int]) -> int:
        """A buffer without a tensor in it."""
        buffer = next(b for b in range(self.size + 1) if b not in taken)
        self.size = max(self.size, buffer + 1)
        return buffer


@lru_cache(maxsize=64)
def lower(plan: Plan, folds: tuple[tuple[float, float], ...] | None, dtype: torch.dtype = torch.float32) -> Program:
    """The instructions of `plan` for states of `dtype` and a denoiser with (skip, out) = folds[i] in row i.

    Without `folds`, data and raw come as tensors.
    """
    first = tuple(r for r in range(plan.registers) if r == 0 or plan.init[r].any())
    row = _Row({r: r for r in first}, dict.fromkeys(first, 1.0), set(first), set(), max(first) + 1)
    rows: list[tuple[Op, ...]] = []
    inputs: list[int] = []
    first_memory = (-1, -1)
    n = len(plan.rows)
    for i in range(n):
        inputs.append(row.place[0])
        if row.foreign and first_memory[0] < 0:
            first_memory = (i, min(row.foreign))
        targets = combinations(plan, i, None if folds is None else folds[i])
        row = row.after(targets, plan.outputs, i == n - 1, dtype)
        rows.append(tuple(row.ops))
    results = tuple((row.place[r], row.scale[r]) for r in range(plan.outputs))
    return Program(tuple(rows), first, tuple(inputs), first_memory, results, row.size)
