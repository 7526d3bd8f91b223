"""A plan: the table that any sampler compiles to, and the recipe that it was compiled from.

With a bank R of K registers, of which R[0] is the next network input, row i of a plan is one network evaluation:

    u = R[0];    f = D(u, t_i);    R <- A_i R + B_i f + s_i z

D is the denoiser, an estimate of the data. B has two columns: one for the estimate as it is, and one for the estimate
before any clipping or thresholding (they are the same number where a denoiser does neither). z is unit noise, drawn
only where s_i is not 0 and named by the interval of time that it belongs to, never by the order of drawing. Before the
first row R = init [x, z]; after the last row R[0] is the result.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.files import write_whole

FORMAT = 1
KINDS = {
    "sampler": str,
    "options": dict,
    "grid": str,
    "grid_options": dict,
    "steps": int,
    "times": list,
    "schedule": dict,
    "schedule_fingerprint": str,
    "reverse": bool,
}
"""Fields of a recipe in JSON."""
TABLES = ("init", "A", "B", "s")
PLAIN = ("start_noise", "entry", "exit", "companion", "outputs", "tolerance", "note")
OF_BEFORE = {"model", "guidance_factors"}
"""Options that tuned plans had, before these were fields of the plan."""
MAX_ROWS, MAX_REGISTERS, MAX_FILE_BYTES = 100_000, 64, 512 * 2**20


class Interval(NamedTuple):
    """The times between which noise is drawn, and how often the run has crossed them before."""

    start: float
    end: float
    repeat: int = 0


class Row(NamedTuple):
    """What a row has beside its coefficients: the network's time, (alpha, sigma) of its input, and a label."""

    t: float
    alpha: float
    sigma: float
    label: str
    ends_step: bool
    noise: Interval | None


@dataclass(frozen=True)
class Recipe:
    """What a plan was compiled from. `times` is the grid that was used: N + 1 times for N steps."""

    sampler: str
    options: Mapping[str, Any]
    grid: str
    grid_options: Mapping[str, Any]
    steps: int
    times: tuple[float, ...]
    schedule: Mapping[str, Any]
    schedule_fingerprint: str
    reverse: bool = False


@dataclass(frozen=True)
class TunedFor:
    """The model that a plan was tuned for, by its digest, and the settings, such as the guidance: plain JSON values."""

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Plan:
    """A compiled sampler. It is immutable and keeps no state of a run, so any number of threads may share one.

    Attributes:
        recipe: what it was compiled from.
        rows: one `Row` for each network evaluation, n in all.
        init: (K, inputs + 1); the last column multiplies the noise of `start_noise`.
        A, B, s: (n, K, K), (n, K, 2) and (n, K), float64.
        entry, exit: (alpha, sigma) of the state that the caller gives and gets; `companion`: of the second state of a
            pair.
        tolerance: how far the inputs may be from the schedule's (alpha, sigma), where the data is one point. Where
            that is more than rounding, `note` says why.
        guidance_factors: factors r_i that strengthen or weaken the guidance w in row i, w_i = 1 + (w - 1) r_i, (n,).
            They are relative, so that they carry over to other scales: r = 1 is the scale as it is, r = 0 no guidance,
            and at w = 1 they do nothing. None where every row is guided alike.
        tuned_for: None for a plan that any model of its noise schedule may use.
        registers: K, the number of states that a run holds.
        inputs: how many states a run starts from: 1, or 2 for an invertible pair. `outputs` is how many it ends with.
        steps: transitions of the time grid.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    init: Float
    A: Float
    B: Float
    s: Float
    start_noise: Interval | None
    entry: tuple[float, float]
    exit: tuple[float, float]
    companion: tuple[float, float] | None
    outputs: int
    tolerance: float
    note: str = ""
    guidance_factors: tuple[float, ...] | None = None
    tuned_for: TunedFor | None = None
    registers: int = field(init=False)
    inputs: int = field(init=False)
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        for name in TABLES:
            array = np.array(getattr(self, name), np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        n, k = len(self.rows), self.init.shape[0]
        sizes = {"registers": k, "inputs": self.init.shape[1] - 1, "steps": len(self.recipe.times) - 1}
        for name, size in sizes.items():
            object.__setattr__(self, name, size)
        if not 1 <= n <= MAX_ROWS or not 1 <= k <= MAX_REGISTERS:
            limits = f"1 to {MAX_ROWS} rows and 1 to {MAX_REGISTERS} registers"
            raise InvalidInput(f"a plan has {limits}, got {n} and {k}: use fewer steps")
        shapes = {"A": (n, k, k), "B": (n, k, 2), "s": (n, k)}
        for name, shape in shapes.items():
            got = getattr(self, name).shape
            if got != shape:
                raise InvalidInput(f"plan table {name} has shape {got}, its rows ask for {shape}")
        wanted = 1 if self.companion is None else 2
        if not 1 <= self.outputs <= k or self.inputs != wanted:
            raise InvalidInput(
                f"a plan of {k} registers has 1 to {k} outputs and 1 input, or 2 and a companion: got {self.outputs} "
                f"outputs, {self.inputs} inputs, companion {self.companion}"
            )
        if not all(np.all(np.isfinite(getattr(self, name))) for name in TABLES):
            raise InvalidInput(f"the table of {self.recipe.sampler} holds values that are not finite")
        scales = [self.init[:, -1], *self.s]
        intervals = [self.start_noise, *(row.noise for row in self.rows)]
        if any(interval is None and np.any(s) for interval, s in zip(intervals, scales, strict=True)):
            raise InvalidInput(f"the table of {self.recipe.sampler} scales noise that belongs to no interval")
        if self.guidance_factors is not None:
            object.__setattr__(self, "guidance_factors", _checked_factors(self.guidance_factors, n))

    def nfe(self, guided: bool = False) -> int:
        """Network evaluations of an image: the rows, and where it is guided, once more those whose factor is not 0."""
        n = len(self.rows)
        if not guided:
            return n
        return n + (n if self.guidance_factors is None else sum(factor != 0 for factor in self.guidance_factors))

    @property
    def stochastic(self) -> bool:
        """Whether a run draws noise beyond its start."""
        return self.start_noise is not None or any(row.noise is not None for row in self.rows)

    @property
    def uses_raw(self) -> bool:
        """Whether a row uses the estimate before clipping."""
        return bool(np.any(self.B[:, :, 1]))

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over everything that the plan holds."""
        return _digest(self._content())

    def _content(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in TABLES}
        plain = {name: getattr(self, name) for name in PLAIN}
        content = {"format": FORMAT, "recipe": asdict(self.recipe), "rows": self.rows, **plain, **arrays}
        # Left out where there are none, so that a plan's digest does not depend on what it is not.
        if self.guidance_factors is not None:
            content["guidance_factors"] = self.guidance_factors
        if self.tuned_for is not None:
            content["tuned_for"] = asdict(self.tuned_for)
        return content

    def to_json(self) -> str:
        """The plan as JSON. Floats are written so that reading gives the same bits."""
        return json.dumps({**self._content(), "digest": self.digest}, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Plan:
        """The inverse of `to_json`. Raises `InvalidInput` where the text is not a plan, or was edited since."""
        try:
            content = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"not a plan: the text is not JSON ({error})") from error
        if not isinstance(content, dict) or "digest" not in content or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise InvalidInput(
                f"not a plan of format {FORMAT} (got format {got!r}): write one with `fewstep plan --json`"
            )
        digest = content.pop("digest")
        try:
            actual = _digest(content)
        except ValueError as error:
            raise InvalidInput("not a plan: it holds numbers that are not finite") from error
        if actual != digest:
            raise InvalidInput(
                f"the plan was edited: its digest says {digest}, its content gives {actual}. "
                "Compile it again from its recipe, or use `fewstep.compile` with the times you want"
            )
        try:
            return _plan_of(content)
        except InvalidInput:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise InvalidInput(f"not a plan: {type(error).__name__} {error} while reading it") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to `path`; a half-written file never appears under that name."""
        write_whole(path, self.to_json().encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a file that `save` wrote. Raises `InvalidInput` for a file that is not a plan, too large or edited."""
        file = Path(path)
        try:
            size = file.stat().st_size
            if size > MAX_FILE_BYTES:
                raise InvalidInput(f"{file} has {size} bytes, a plan has at most {MAX_FILE_BYTES}")
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read the plan {file}: {error}") from error
        return Plan.from_json(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        recipe = self.recipe
        return (
            f"Plan({recipe.sampler!r}, grid={recipe.grid!r}, steps={self.steps}, rows={len(self.rows)}, "
            f"registers={self.registers}, digest={self.digest!r})"
        )


def _checked_factors(given: Any, rows: int) -> tuple[float, ...]:
    usable = isinstance(given, list | tuple) and len(given) == rows
    if not usable or not all(type(r) in (int, float) and math.isfinite(r) for r in given):
        raise InvalidInput(f"guidance_factors of a plan of {rows} rows are {rows} finite numbers, got {given!r:.200}")
    return tuple(float(r) for r in given)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plan_of(content: dict[str, Any]) -> Plan:
    """The plan that `Plan._content` describes; raises InvalidInput, or what Python raises, where there is none."""

    def interval(value: Any) -> Interval | None:
        return None if value is None else Interval(float(value[0]), float(value[1]), int(np.int64(value[2])))

    def row(t: float, alpha: float, sigma: float, label: str, ends_step: bool, noise: Any) -> Row:
        return Row(float(t), float(alpha), float(sigma), str(label), bool(ends_step), interval(noise))

    def level(alpha: float, sigma: float) -> tuple[float, float]:
        return float(alpha), float(sigma)

    def tuned_for(value: Any) -> TunedFor | None:
        if value is None:
            return None
        if not isinstance(value["model"], str) or not isinstance(value["settings"], dict):
            raise TypeError(f"tuned_for = {value!r:.200}, which is not a model's digest with its settings,")
        return TunedFor(**value)

    recipe = content["recipe"]
    for name, kind in KINDS.items():
        if not isinstance(recipe[name], kind) or (kind is int and isinstance(recipe[name], bool)):
            raise TypeError(f"recipe.{name} = {recipe[name]!r}, which is not a {kind.__name__},")
    if len(recipe["times"]) != recipe["steps"] + 1:
        raise ValueError(f"{len(recipe['times'])} times for {recipe['steps']} steps")
    if OF_BEFORE & recipe["options"].keys():
        raise InvalidInput(
            "the plan was tuned by an earlier version, which kept what it is for among the options of its sampler: "
            "tune it again"
        )
    return Plan(
        recipe=Recipe(**{**recipe, "times": tuple(map(float, recipe["times"]))}),
        rows=tuple(row(*values) for values in content["rows"]),
        **{name: np.array(content[name], np.float64) for name in TABLES},
        start_noise=interval(content["start_noise"]),
        entry=level(*content["entry"]),
        exit=level(*content["exit"]),
        companion=content["companion"] and level(*content["companion"]),
        outputs=int(content["outputs"]),
        tolerance=float(content["tolerance"]),
        note=str(content["note"]),
        guidance_factors=content.get("guidance_factors"),
        tuned_for=tuned_for(content.get("tuned_for")),
    )
