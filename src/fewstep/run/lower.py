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

from functools import lru_cache
from typing import NamedTuple

from fewstep.core.plan import Plan

DATA, RAW, NOISE = -1, -2, -3
"""Sources beside the buffers: the network's output (or the projected data), the data before projection, the noise."""

MULTIPLY, MULTIPLY_IN_PLACE, ADD, ADD_IN_PLACE, TAKE, DROP = range(6)


class Op(NamedTuple):
    """`dst = c a`, `dst = a + c b`, both also in place where dst is a, `dst is a`, or no dst more, by `kind`."""

    kind: int
    dst: int
    a: int
    b: int
    c: float


class Program(NamedTuple):
    """Instructions for each row. Register 0 is in buffer `inputs[i]` at row i; the states to return are `results`.

    `first_memory` is the first row that begins with an earlier output itself, not a copy of it, in a buffer, and that
    buffer; (-1, -1) if there is none. `results` holds (buffer, factor) for each of the plan's outputs; `buffers` is how
    many there are in all.
    """

    rows: tuple[tuple[Op, ...], ...]
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
            row[0] += (data + raw) * skip
            row[DATA] = (data + raw) * out
        row[NOISE] = float(plan.s[i, r])
        targets.append({source: c for source, c in row.items() if c != 0.0})
    return targets


def _in_range(c: float) -> bool:
    """Whether a register may be stored divided by `c`: products over many rows must neither overflow nor vanish."""
    return 1e-9 < abs(c) < 1e9


class _Row:
    """Lowers one row: knows which buffer holds which register, and which buffers may be written."""

    def __init__(self, place: dict[int, int], scale: dict[int, float], foreign: set[int], size: int):
        self.place, self.scale, self.foreign, self.size = place, scale, foreign, size
        self.ops: list[Op] = []

    def lower(self, targets: list[Terms], outputs: int, last: bool) -> None:
        # A register of zeros has no place, unless it is one of the first, which are read: then it is 0 times a tensor.
        stored = [
            {
                self.place[s] if s >= 0 else s: c * (self.scale[s] if s >= 0 else 1.0)
                for s, c in terms.items()
                if s < 0 or s in self.place
            }
            or ({DATA: 0.0} if r < outputs else {})
            for r, terms in enumerate(targets)
        ]
        waiting = {r: terms for r, terms in enumerate(stored) if terms}
        place: dict[int, int] = {}
        scale: dict[int, float] = {}
        busy: set[int] = set()
        while waiting:
            r = min(waiting, key=lambda r: (r == 0, len(waiting[r])))
            terms = waiting.pop(r)
            needed = busy.union(*waiting.values())
            [(source, c), *more] = terms.items()
            own = last and r < outputs  # a result is no memory of the network's
            if not more and (c == 1.0 or (r != 0 and _in_range(c))) and not (own and source in (DATA, RAW)):
                buffer = source if source >= 0 and source not in busy else self._capture(source, needed)
                place[r], scale[r] = buffer, c
            else:
                place[r], scale[r] = self._combine(terms, busy, waiting, unit=r == 0)
            busy.add(place[r])
        for buffer in sorted(self.foreign - busy):
            self.ops.append(Op(DROP, buffer, 0, 0, 0.0))
        self.foreign &= busy
        self.place, self.scale = place, scale

    @staticmethod
    def _through(terms: Terms, buffer: int, other: Terms) -> Terms | None:
        """The same combination with the one in `buffer` in place of some terms; None where that is no shorter.

        Where `buffer` held one of the terms before, that one has to go, and no longer is good enough.
        """
        gone = terms.keys() & {buffer}
        best, most = None, len(terms) + bool(gone) - 1
        for shared in gone or (terms.keys() & other.keys()):
            ratio = terms[shared] / other[shared] if other.get(shared) else 0.0
            if not ratio or not other.keys() <= terms.keys():
                continue
            taken = {s: ratio * other.get(s, 0.0) for s in terms}
            rest = {s: c - taken[s] for s, c in terms.items() if abs(c - taken[s]) > 1e-13 * abs(c) and s != shared}
            loud = any(abs(taken[s]) > 30 * abs(c) for s, c in terms.items())  # nearly cancels: costs accuracy
            if len(rest) + 1 <= most and not loud:
                best, most = {buffer: ratio, **rest}, len(rest)
        return best

    def _capture(self, source: int, needed: set[int]) -> int:
        """A buffer that is the tensor `source` from now on."""
        buffer = self._free(needed, own=False)
        self.ops.append(Op(TAKE, buffer, source, 0, 1.0))
        self.foreign.add(buffer)
        if source >= 0:  # two registers share a tensor from now on, so neither may be written in place
            self.foreign.add(source)
        return buffer

    def _combine(self, terms: Terms, busy: set[int], waiting: dict[int, Terms], unit: bool) -> tuple[int, float]:
        """Write the sum of `terms` to a buffer, divided by the returned factor, which is 1 where `unit` asks for it.

        Combinations that wait are shortened where they can start from this one.
        """

        def may_be_overwritten(s: int) -> bool:
            """Whether nobody needs what is in `s`, or those who do can start from the new combination instead."""
            if s < 0 or s in busy or s in self.foreign:
                return False
            return all(s not in other or self._through(other, s, terms) for other in waiting.values())

        # Start from a coefficient of 1, which needs no multiplication, and from a buffer that can be overwritten.
        lead = min(terms, key=lambda s: (unit and terms[s] != 1.0, not may_be_overwritten(s), -abs(terms[s])))
        factor = 1.0 if unit or not _in_range(terms[lead]) else terms[lead]
        in_place = may_be_overwritten(lead)
        taken = busy.union(terms, *waiting.values())
        dst = lead if in_place else self._free(taken, own=True)
        first, rest = terms[lead] / factor, [(s, c / factor) for s, c in terms.items() if s != lead]
        current = lead
        if first != 1.0 or not rest:
            self.ops.append(Op(MULTIPLY_IN_PLACE if in_place else MULTIPLY, dst, lead, 0, first))
            current = dst
        for source, c in rest:
            self.ops.append(Op(ADD_IN_PLACE if current == dst else ADD, dst, current, source, c))
            current = dst
        whole = {s: c / factor for s, c in terms.items()}
        for r, other in waiting.items():
            waiting[r] = self._through(other, dst, whole) or other
        return dst, factor

    def _free(self, needed: set[int], own: bool) -> int:
        """A buffer that nobody needs; a new one if there is none. With `own`, one that may be written."""
        taken = needed | (self.foreign if own else set())
        for buffer in range(self.size):
            if buffer not in taken:
                return buffer
        self.size += 1
        return self.size - 1


@lru_cache(maxsize=64)
def lower(plan: Plan, folds: tuple[tuple[float, float], ...] | None) -> Program:
    """The instructions of `plan` for a denoiser with (skip, out) = folds[i] in row i; None: data and raw come as
    tensors.

    Buffers 0 .. K-1 start as the registers after `plan.init`.
    """
    place = {r: r for r in range(plan.registers)}
    scale = dict.fromkeys(place, 1.0)
    row = _Row(place, scale, set(), plan.registers)
    rows, inputs, first_memory = [], [], (-1, -1)
    for i in range(plan.nfe):
        inputs.append(row.place[0])
        if row.foreign and first_memory[0] < 0:
            first_memory = i, min(row.foreign)
        row.ops = []
        last = i == plan.nfe - 1
        row.lower(combinations(plan, i, None if folds is None else folds[i]), plan.outputs, last)
        rows.append(tuple(row.ops))
    results = tuple((row.place[r], row.scale[r]) for r in range(plan.outputs))
    return Program(tuple(rows), tuple(inputs), first_memory, results, row.size)
