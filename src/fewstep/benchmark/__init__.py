"""What a model does under many samplers, measured on the same noise: one row a run, a table and a page.

from fewstep.benchmark import Sweep, bench

found = bench("digits", Sweep(samplers=["ddim", "unipc-3"], steps=[4, 8]))
for run in found.runs:
    print(run.name, run.nfe, run.figures["error"])
"""

from __future__ import annotations

from fewstep.benchmark.loading import Loading
from fewstep.benchmark.measured import Bench, bench
from fewstep.benchmark.pareto import Front, Group, front_of, groups, table
from fewstep.benchmark.row import Machine, Model, Rows, Run, read_runs
from fewstep.benchmark.runner import Estimate, Progress
from fewstep.benchmark.sweep import Sweep

__all__ = [
    "Bench",
    "Estimate",
    "Front",
    "Group",
    "Loading",
    "Machine",
    "Model",
    "Progress",
    "Rows",
    "Run",
    "Sweep",
    "bench",
    "front_of",
    "groups",
    "read_runs",
    "table",
]
