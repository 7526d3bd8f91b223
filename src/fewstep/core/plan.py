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
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.check import check_marginals
from fewstep.core.errors import InvalidInput, shown
from fewstep.core.schedule import Float
from fewstep.files import read_bounded, write_whole

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
MAX_ROWS, MAX_REGISTERS, MAX_FILE_BYTES = 100_000, 64, 16 * 2**20
LARGEST, MOST_DEPARTURE, ROUNDING = 1e8, 2.0, 1e-10
"""Of a plan that is read: the largest number in its table, the most that it may declare to depart from the schedule,
and what the rounding of another machine may add."""
MAX_DRAWS, MAX_TEXT = 1e9, 1000
"""Most registers times rows times draws of noise, as following each draw takes time; most characters of a text."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")


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
                f"a plan of {k} registers has 1 to {k} outputs and 1 input, or 2 and a companion: got "
                f"{shown(self.outputs)} outputs, {self.inputs} inputs, companion {shown(self.companion)}"
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
    def ends(self) -> tuple[tuple[float, float, float], ...]:
        """Where each row leads, (t, alpha, sigma): to the input of the next one, the last to the result."""
        return *(row[:3] for row in self.rows[1:]), (self.recipe.times[-1], *self.exit)

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
        """The inverse of `to_json`.

        Raises `InvalidInput` where the text is not a plan, was edited since, or its table departs from its own levels:
        a digest says who wrote a file no more than its name does.
        """
        try:
            content = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"not a plan: the text is not JSON ({error})") from error
        if not isinstance(content, dict) or "digest" not in content or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise InvalidInput(
                f"not a plan of format {FORMAT} (got format {shown(got)}): write one with `fewstep plan --json`"
            )
        digest = content.pop("digest")
        try:
            actual = _digest(content)
        except RecursionError as error:
            raise InvalidInput("not a plan: its lists are nested too deeply") from error
        except ValueError as error:
            raise InvalidInput("not a plan: it holds numbers that are not finite") from error
        if actual != digest:
            raise InvalidInput(
                f"the plan was edited: its digest says {shown(digest)}, its content gives {actual}. "
                "Compile it again from its recipe, or use `fewstep.compile` with the times you want"
            )
        try:
            plan = _plan_of(content)
        except InvalidInput:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"not a plan: {type(error).__name__} {error!s:.200} while reading it") from error
        _check_numbers(plan)
        check_marginals(plan, ROUNDING)
        return plan

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to `path`; a half-written file never appears under that name."""
        write_whole(path, self.to_json().encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a file that `save` wrote. Raises `InvalidInput` for a file that is not a plan, too large or edited."""
        try:
            text = read_bounded(path, MAX_FILE_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"cannot read the plan {path}: it is not text in UTF-8 ({error.reason})") from error
        except OSError as error:
            raise InvalidInput(f"cannot read the plan {path}: {error.strerror}") from error
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
    if not usable or not all(type(r) in (int, float) and abs(r) < math.inf for r in given):
        raise InvalidInput(f"guidance_factors of a plan of {rows} rows are {rows} finite numbers, got {shown(given)}")
    return tuple(float(r) for r in given)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_numbers(plan: Plan) -> None:
    """Raise `InvalidInput` for what no sampler compiles to, before the table is followed."""
    sampler, grid = plan.recipe.sampler, plan.recipe.grid
    if not _NAME.fullmatch(sampler) or not _NAME.fullmatch(grid):  # which files are named by
        raise InvalidInput(f"not a plan: its sampler is called {shown(sampler)}, its grid {shown(grid)}")
    noises = [row.noise for row in plan.rows if row.noise is not None]
    drawn = [*noises, *([plan.start_noise] if plan.start_noise else [])]
    pairs = [plan.entry, plan.exit, *([plan.companion] if plan.companion else [])]
    levels = np.array([*pairs, *((row.alpha, row.sigma) for row in plan.rows)])
    times = np.array([*plan.recipe.times, *(row.t for row in plan.rows), *(t for one in drawn for t in one[:2])])
    largest = max(float(np.max(np.abs(part), initial=0)) for part in (*map(plan.__getattribute__, TABLES), times))
    if not largest <= LARGEST or not np.all((levels >= 0) & (levels <= (1 + ROUNDING, LARGEST))):
        raise InvalidInput(
            f"not a plan: alpha lies in 0 .. 1, sigma in 0 .. {LARGEST:g}, and its times and coefficients within "
            f"{LARGEST:g}; it has alpha {levels[:, 0].min():g} .. {levels[:, 0].max():g}, sigma "
            f"{levels[:, 1].min():g} .. {levels[:, 1].max():g}, others up to {largest:g}"
        )
    if not 0 <= plan.tolerance <= MOST_DEPARTURE:
        raise InvalidInput(f"not a plan: its tolerance is {plan.tolerance:g}, allowed is 0 to {MOST_DEPARTURE:g}")
    if plan.registers * len(plan.rows) * len(noises) > MAX_DRAWS:
        raise InvalidInput(
            f"a plan of {len(plan.rows)} rows, {plan.registers} registers and {len(noises)} draws is too large to be "
            "checked: use fewer steps"
        )
    texts = [plan.note, *(row.label for row in plan.rows)]
    if max(map(len, texts)) > MAX_TEXT or not all(text.isprintable() for text in texts):
        raise InvalidInput(f"not a plan: its note and labels are printable texts of at most {MAX_TEXT} characters")


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
            raise TypeError(f"tuned_for = {shown(value)}, which is not a model's digest with its settings,")
        return TunedFor(**value)

    recipe = content["recipe"]
    for name, kind in KINDS.items():
        if not isinstance(recipe[name], kind) or (kind is int and isinstance(recipe[name], bool)):
            raise TypeError(f"recipe.{name} = {shown(recipe[name])}, which is not a {kind.__name__},")
    if len(recipe["times"]) != recipe["steps"] + 1:
        raise ValueError(f"{len(recipe['times'])} times for {shown(recipe['steps'])} steps")
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
