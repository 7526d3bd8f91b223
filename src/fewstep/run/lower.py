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

    `results` holds (buffer, factor) for each of the plan's outputs; `buffers` is how many there are in all.
    """

    rows: tuple[tuple[Op, ...], ...]
    inputs: tuple[int, ...]
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

    def lower(self, targets: list[Terms], outputs: int) -> None:
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
        order = sorted((r for r, terms in enumerate(stored) if terms), key=lambda r: (r == 0, len(stored[r])))
        place, scale, done = (
            {},
            {},
            [],
        )  # the registers after this row; `done`: (buffer, terms of what it holds)
        waiting = list(order)
        busy: set[int] = set()
        for r in order:
            waiting.remove(r)
            terms = self._shorten(stored[r], done)
            needed = busy | {s for w in waiting for s in self._shorten(stored[w], []) if s >= 0}
            [(source, c), *more] = terms.items()
            if not more and (c == 1.0 or (r != 0 and _in_range(c))):
                buffer = source if source >= 0 and source not in busy else self._capture(source, needed)
                place[r], scale[r] = buffer, c
            else:
                buffer, c = self._combine(terms, needed, unit=r == 0)
                place[r], scale[r] = buffer, c
            busy.add(place[r])
            if any(stored[r].values()):
                done.append((place[r], {s: v / scale[r] for s, v in stored[r].items()}))
        for buffer in sorted(self.foreign - busy):
            self.ops.append(Op(DROP, buffer, 0, 0, 0.0))
        self.foreign &= busy
        self.place, self.scale = place, scale

    @staticmethod
    def _shorten(terms: Terms, done: list[tuple[int, Terms]]) -> Terms:
        """The same combination, starting from a finished one where that takes fewer terms and cancels no large ones."""
        best = terms
        for buffer, other in done:
            for shared in terms.keys() & other.keys() if other.keys() <= terms.keys() else ():
                ratio = terms[shared] / other[shared]
                taken = {s: ratio * other.get(s, 0.0) for s in terms}
                rest = {s: c - taken[s] for s, c in terms.items() if abs(c - taken[s]) > 1e-13 * abs(c)}
                loud = any(abs(taken[s]) > 30 * abs(c) for s, c in terms.items())
                if len(rest) + 1 < len(best) and not loud:
                    best = {buffer: ratio, **rest}
        return best

    def _capture(self, source: int, needed: set[int]) -> int:
        """A buffer that is the tensor `source` from now on."""
        buffer = self._free(needed, own=False)
        self.ops.append(Op(TAKE, buffer, source, 0, 1.0))
        self.foreign.add(buffer)
        if source >= 0:  # two registers share a tensor from now on, so neither may be written in place
            self.foreign.add(source)
        return buffer

    def _combine(self, terms: Terms, needed: set[int], unit: bool) -> tuple[int, float]:
        """Write the sum of `terms` to a buffer, divided by the returned factor, which is 1 where `unit` asks for it."""

        # Start from a coefficient of 1, which needs no multiplication, and from a buffer that can be overwritten.
        def cost(s: int) -> tuple[bool, bool, float]:
            return (unit and terms[s] != 1.0, s < 0 or s in needed or s in self.foreign, -abs(terms[s]))

        lead = min(terms, key=cost)
        unit = unit or not _in_range(terms[lead])
        factor = 1.0 if unit else terms[lead]
        in_place = lead >= 0 and lead not in needed and lead not in self.foreign
        dst = lead if in_place else self._free(needed | {s for s in terms if s >= 0}, own=True)
        rest = [(s, c / factor) for s, c in terms.items() if s != lead]
        current = lead
        if terms[lead] / factor != 1.0 or not rest:
            self.ops.append(Op(MULTIPLY_IN_PLACE if in_place else MULTIPLY, dst, lead, 0, terms[lead] / factor))
            current = dst
        for source, c in rest:
            self.ops.append(Op(ADD_IN_PLACE if current == dst else ADD, dst, current, source, c))
            current = dst
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
    rows, inputs = [], []
    for i in range(plan.nfe):
        inputs.append(row.place[0])
        row.ops = []
        row.lower(combinations(plan, i, None if folds is None else folds[i]), plan.outputs)
        rows.append(tuple(row.ops))
    results = tuple((row.place[r], row.scale[r]) for r in range(plan.outputs))
    return Program(tuple(rows), tuple(inputs), results, row.size)
