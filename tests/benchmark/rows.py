"""A row of measurements that nobody measured, for tests."""

from __future__ import annotations

from typing import Any

from fewstep.benchmark.row import Machine, Model, Run, key_of
from fewstep.measure.figure import Figure
from fewstep.tuning.certificate import Interval

MODEL = Model("digits", "0123456789abcdef", "digits")
MACHINE = Machine("a processor", 2, "cpu", "2.8.0", "0.1.0")


def figure(value: float, better: str = "less", **more: Any) -> Figure:
    """A figure with an interval of a tenth to either side."""
    return Figure("trajectory rmse", value, 0.9 * value, 1.1 * value, 16, better, **more)


def row(sampler: str = "ddim", steps: int = 4, error: float = 0.5, seconds: float = 0.01, **more: Any) -> Run:
    """A row of one evaluation a step."""
    facts: dict[str, Any] = {
        "key": key_of({"sampler": sampler, "steps": steps, "error": error, "seconds": seconds, "more": repr(more)}),
        "model": MODEL,
        "plan": "plan-1",
        "kind": "untuned",
        "plan_file": None,
        "sampler": sampler,
        "options": {},
        "grid": "quadratic",
        "grid_options": {"bias": 0.5},
        "steps": steps,
        "guidance": 2.0,
        "precision": "float32",
        "nfe": steps,
        "evaluations": 2.0 * steps,
        "images": 16,
        "lost": 0,
        "seed": 0,
        "conditions": "c0",
        "figures": {"error": figure(error), "quality": figure(1 - error**2, "more")},
        "seconds": Interval(seconds, 0.9 * seconds, 1.1 * seconds),
        "memory": None,
        "machine": MACHINE,
    }
    return Run(**{**facts, **more})
