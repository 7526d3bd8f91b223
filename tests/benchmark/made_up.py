"""A measurement that nobody made, for tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fewstep.benchmark.measured import VERSION, Machine, Measured, ModelFacts, PlanFacts, key_of
from fewstep.measure.figure import Figure
from fewstep.tuning.certificate import ConfidenceInterval

MODEL = ModelFacts("digits", "0123456789abcdef", "digits")
MACHINE = Machine("a processor", 2, "cpu", "2.8.0", "0.1.0")
PLAN = {each.name for each in fields(PlanFacts)}


def figure(value: float, better: str = "less", **more: Any) -> Figure:
    """A figure with an interval of a tenth to either side."""
    return Figure("trajectory rmse", value, 0.9 * value, 1.1 * value, 16, better, **more)


def row(sampler: str = "ddim", steps: int = 4, error: float = 0.5, seconds: float = 0.01, **more: Any) -> Measured:
    """A plan of one row a step, each guided; `more` are fields of the measurement or of its plan."""
    plan: dict[str, Any] = {
        "digest": "plan-1",
        "file": None,
        "kind": "untuned",
        "sampler": sampler,
        "options": {},
        "grid": "quadratic",
        "grid_options": {"bias": 0.5},
        "steps": steps,
        "rows": steps,
    }
    facts: dict[str, Any] = {
        "version": VERSION,
        "key": key_of({"sampler": sampler, "steps": steps, "error": error, "seconds": seconds, "more": repr(more)}),
        "by": "bench",
        "model": MODEL,
        "guidance": 2.0,
        "precision": "float32",
        "nfe": 2.0 * steps,
        "images": 16,
        "lost": 0,
        "seed": 0,
        "conditions": "c0",
        "figures": {"error": figure(error), "quality": figure(1 - error**2, "more")},
        "seconds": ConfidenceInterval(seconds, 0.9 * seconds, 1.1 * seconds),
        "memory": None,
        "machine": MACHINE,
    }
    own = {name: value for name, value in more.items() if name in PLAN}
    rest = {name: value for name, value in more.items() if name not in PLAN}
    return Measured(**{**facts, "plan": PlanFacts(**{**plan, **own}), **rest})
