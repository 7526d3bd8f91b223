"""What a model does under many plans, measured on the same noise, and which plan to take for a budget.

import fewstep as fs
from fewstep.benchmark import Budget, Sweep

found = fs.bench("digits", Sweep(samplers=["ddim", "unipc-3"], steps=[4, 8]))
for one in found.results:
    print(one.name, one.plan.rows, one.nfe, one.figures["error"])
print(fs.choose("digits", Budget(rows=8)).lines.command)
"""

from __future__ import annotations

from fewstep.benchmark.advice import ADVICE, Advice, advice_for
from fewstep.benchmark.choice import Answer, Evidence, choose
from fewstep.benchmark.commands import Lines
from fewstep.benchmark.glossary import lacking, meaning
from fewstep.benchmark.measured import Measured, ModelFacts, PlanFacts
from fewstep.benchmark.negative import Negative, Negatives
from fewstep.benchmark.pareto import ComparisonGroup, Front, front_of, groups, table
from fewstep.benchmark.planner import Budget, Choice, decide, deciding, fits
from fewstep.benchmark.results import read_results
from fewstep.benchmark.runner import Bench, bench
from fewstep.benchmark.scale import Rung, Verdict, told
from fewstep.benchmark.search import ScaleChoice, ScaleSearch
from fewstep.benchmark.settings import Forecast, Loading, Pictures, Reporter, Stage
from fewstep.benchmark.sweep import Sweep
from fewstep.benchmark.yardstick import Yardstick, shows_digits, signed, yardstick_of
from fewstep.run.machine import Machine

__all__ = [
    "ADVICE",
    "Advice",
    "Answer",
    "Bench",
    "Budget",
    "Choice",
    "ComparisonGroup",
    "Evidence",
    "Forecast",
    "Front",
    "Lines",
    "Loading",
    "Machine",
    "Measured",
    "ModelFacts",
    "Negative",
    "Negatives",
    "Pictures",
    "PlanFacts",
    "Reporter",
    "Rung",
    "ScaleChoice",
    "ScaleSearch",
    "Stage",
    "Sweep",
    "Verdict",
    "Yardstick",
    "advice_for",
    "bench",
    "choose",
    "decide",
    "deciding",
    "fits",
    "front_of",
    "groups",
    "lacking",
    "meaning",
    "read_results",
    "shows_digits",
    "signed",
    "table",
    "told",
    "yardstick_of",
]
