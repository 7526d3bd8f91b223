"""Runs every case of every peer against ours, and writes the outcome as docs/conformance.md."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np

import fewstep as fs
from fewstep.core.plan import Plan
from fewstep.measure.impulse import impulse

from .catalogue import STILL, Ours, ours_for, peers, plan_for
from .departures import DEPARTURES, NOT_COMPARED, Departure, departure_of, sampler_of
from .peers import Peer, Response

BARS = {"float64": 1e-9, "float32": 1e-5}
CANCELLING = ("KDPM2AncestralDiscrete", "dpm_2_ancestral")
"""These subtract squares of nearly equal sigmas, which costs them three digits also in float64."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """One case: the largest difference of the two tables, what was asked for, and the departure that covers it."""

    peer: Peer
    ours: Ours | None
    difference: float
    bound: float
    departure: Departure | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """As it should be: equal tables, or a departure that really shows, so that one that is gone is noticed."""
        if self.departure and self.departure.kind in ("error", "guard"):
            return self.difference > 100 * self.bound
        return self.ours is None or self.difference < self.bound


def verdicts() -> Iterator[Verdict]:
    for peer in peers():
        yield verdict(peer)


def verdict(peer: Peer) -> Verdict:
    """Compare one peer with ours."""
    departure, ours = departure_of(peer), ours_for(peer)
    if ours is None:
        return Verdict(peer, None, float("nan"), 0.0, departure)
    bound = BARS[peer.precision]
    if departure and departure.kind == "rounding":
        bound = departure.bound
    elif peer.precision == "float64":
        bound = 1e-10 if sampler_of(peer) in CANCELLING else 1e-12
    table = _without_idle_start(peer.response())
    try:
        plan = plan_for(peer, ours, table)
    except fs.InvalidInput as error:
        return Verdict(peer, ours, float("inf"), bound, departure, str(error))
    return Verdict(peer, ours, difference(table, plan), bound, departure)


def difference(table: Response, plan: Plan) -> float:
    """Largest difference of two tables and of the levels that the network is evaluated at.

    Each state is a row, and differences are relative to its largest coefficient where that is above 1. The start counts
    in units of its noise. Noise below the bar has no column in either table. Tables of different shapes (evaluations,
    draws of noise) are infinitely far apart.
    """
    response = impulse(plan)
    heard = np.abs(response.states).max(axis=0) > BARS[table.precision]
    heard[: response.noise.start] = True
    theirs, ours = table.states, response.states[:, heard]
    if theirs.shape != ours.shape:
        return float("inf")
    unit = np.ones(theirs.shape[1])
    unit[0] = max(1.0, float(np.hypot(*table.levels[0])))
    levels = np.array([*((row.alpha, row.sigma) for row in plan.rows), plan.exit])
    theirs = np.hstack([theirs * unit, table.levels])
    ours = np.hstack([ours * unit, levels])
    return float((np.abs(theirs - ours) / np.maximum(1.0, np.abs(theirs).max(axis=1, keepdims=True))).max())


def _without_idle_start(table: Response) -> Response:
    """The table without a first evaluation in vain: DDIMInverse may begin with a step from a level to itself."""
    first, second = np.hstack([table.states, table.levels])[:2]
    if np.abs(first - second).max() > BARS[table.precision]:
        return table
    return replace(
        table,
        inputs=np.delete(table.inputs[1:], 1, axis=1),
        final=np.delete(table.final, 1),
        times=table.times[1:],
        alphas=table.alphas[1:],
        sigmas=table.sigmas[1:],
        scales=table.scales[1:],
    )


# --- the page -----------------------------------------------------------------------------------------------

_INTRO = """\
# Conformance

A sampler is linear in the state it starts from, in the network's outputs and in its noise. Run on unit vectors, the
unmodified sampler of another library therefore yields its exact table of coefficients (`tests/conformance/peers.py`).
Here these tables are compared with ours (`fewstep.measure.impulse`), coefficient by coefficient, for every state that
the network is evaluated at and for the result, and so are the noise levels of the evaluations.

The times, or the noise levels, are the peer's own, taken verbatim. A difference is relative to the largest
coefficient of the state where that is above 1, and the start counts in units of its noise. The bar is {wide} where
the peer computes in float64, and {narrow} where it computes in float32. The schedulers of diffusers compute in
float32: they are compared as they are, and once more with `float32` meaning float64 inside their module. The peers
are diffusers {diffusers} and k-diffusion {k_diffusion}.

This page is written by `docs/generate_conformance.py`, and a test fails if it is not up to date.

**{same} tables are equal below the bar**: {float64} in float64, {float32} in float32. {named} are covered by a
departure that is named below.

"""

_GRIDS = """\
## What taking the peer's grid verbatim hides

These belong to grids and ends, not to samplers, and fewstep does not copy them. To use a peer's grid, pass its
`times` or `sigmas`.

- diffusers' FlowMatch schedulers shift the end of the range when they are made and the whole grid once more in
  `set_timesteps`; sigmas that the user gives are shifted too.
- DEIS, SASolver and `final_sigmas_type='sigma_min'` end at the smallest training sigma, never at clean data. With
  Karras, exponential, beta or flow sigmas that last sigma is repeated, so the last evaluation has no effect (a
  `PlanScheduler` does the same, but for flow sigmas, where it goes on to clean data). PNDM and
  DDIMInverse with `timestep_spacing='leading'` evaluate once in vain, too. Ours is then compared over a step that is
  {still} wide.
- Times told to the network are rounded (Karras) or truncated (exponential, beta, flow) to integers by the multistep
  schedulers. Here they are what the schedule says. DDIMInverse tells the time one step above the noise level that it
  converts with.
- `leading` and `linspace` put the times of different schedulers at different places.

## Where a peer has no table

- k-diffusion's 2M SDE and 3M SDE raise UnboundLocalError when asked for a single step.
- UniPCMultistep is NaN at the step to sigma = 0 with `solver_type='bh1'` or `predict_x0=False`.
- DPMSolverMultistep and its inverse are NaN at order 3 where the last sigma is repeated, at 15 steps and more.
- Where rounding makes two told times equal, diffusers' schedulers start at the second of them and fail at the end of
  the run, unless the pipeline calls `set_begin_index(0)`.

"""


def page(outcome: list[Verdict], hosted: str = "") -> str:
    """docs/conformance.md for these verdicts: the bounds that the tests assert, which are the same on every machine.

    `hosted` is the section of `hosted_report`.
    """
    same = [v for v in outcome if v.departure is None]
    text = _INTRO.format(
        wide=_power(BARS["float64"]),
        narrow=_power(BARS["float32"]),
        diffusers=version("diffusers"),
        k_diffusion=version("k-diffusion"),
        same=len(same),
        float64=sum(v.peer.precision == "float64" for v in same),
        float32=sum(v.peer.precision == "float32" for v in same),
        named=len(outcome) - len(same),
    )
    text += "## Equal tables\n\n"
    text += _row("peer", "fewstep", "settings of the peer", "tables", "float64", "float32")
    text += _row(*["---"] * 6)
    groups: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for v in same:
        library = v.peer.name.split(":")[0].replace("_", "-")
        groups[library, sampler_of(v.peer), _sampler(v)].append(v)
    for (library, name, ours), group in sorted(groups.items()):
        below = [_below(group, "float64"), _below(group, "float32")]
        text += _row(f"{library} {name}", ours, _settings(group), str(len(group)), *below)
    return text + "\n" + _departures(outcome) + hosted + _GRIDS.format(still=_power(STILL)) + _absent_peers()


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _sampler(v: Verdict) -> str:
    return f"`{v.ours.sampler}`" + (" reversed" if v.ours.reverse else "") if v.ours else ""


def _below(group: list[Verdict], precision: str) -> str:
    bounds = [v.bound for v in group if v.peer.precision == precision]
    return f"< {_power(max(bounds))}" if bounds else ""


def _power(value: float) -> str:
    return f"1e{round(math.log10(value))}"


def _settings(group: list[Verdict]) -> str:
    """Each setting with the values that occur in a group of cases."""
    values: dict[str, list[str]] = defaultdict(list)
    for v in group:
        for name, value in _shown(v.peer).items():
            if value not in values[name]:
                values[name].append(value)
    for seen in values.values():
        seen.sort(key=lambda value: float(value) if value.replace(".", "").isdigit() else 0.0)
    return "; ".join(f"{name} {', '.join(seen)}" for name, seen in sorted(values.items()))


def _shown(peer: Peer) -> dict[str, str]:
    settings = dict(peer.settings)
    shown = {**settings.get("config", {}), **settings["options"]}
    for name in ("beta_start", "beta_end"):
        shown.pop(name, None)
    for name in ("trained_betas", "sigmas"):
        if name in shown or (name in settings and "function" not in settings):
            shown[name] = "given"
    if settings.get("begin_index") is not None:
        shown["begin_index"] = settings["begin_index"]
    steps = settings.get("num_inference_steps") or len(settings.get("sigmas", ())) - 1
    if settings.get("function") == "dpm_fast":
        steps = shown.pop("n")
    words = {name: getattr(value, "__name__", None) or f"{value}" for name, value in shown.items()}
    return words | {"steps": f"{steps}"} | ({"r": f"{shown['r']:.3g}"} if "r" in shown else {})


def _departures(outcome: list[Verdict]) -> str:
    heads = {
        "error": "## Where a peer departs from its formula\n\nThe tables differ by far, and a test sees to it that "
        "they do, so that a repaired release is noticed.\n\n",
        "guard": "## Where fewstep departs on purpose\n\n",
        "absent": "## Settings that fewstep does not have\n\n",
        "rounding": "## Where the peer's float32 loses more than the bar\n\nIn float64 these tables are equal.\n\n",
    }
    text = ""
    for kind, head in heads.items():
        text += head
        for departure in DEPARTURES:
            if departure.kind == kind:
                count = sum(v.departure is departure for v in outcome)
                limit = f", below {_power(departure.bound)}" if kind == "rounding" else ""
                text += f"- **{departure.name}** ({count} tables{limit}). {departure.reason}\n"
        text += "\n"
    return text


def _absent_peers() -> str:
    text = "## Not compared\n\n"
    for reason in dict.fromkeys(NOT_COMPARED.values()):
        names = ", ".join(f"{name}" for name, why in NOT_COMPARED.items() if why == reason)
        text += f"- {names}: {reason}.\n"
    return text
