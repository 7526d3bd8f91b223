"""What a model does under many samplers, measured on the same noise: one row a run, a table and a page.

from fewstep.bench import Sweep, bench

found = bench("digits", Sweep(samplers=["ddim", "unipc-3"], steps=[4, 8]))
for run in found.runs:
    print(run.name, run.nfe, run.figures["error"])
"""

from __future__ import annotations

from fewstep.bench.loading import Loading
from fewstep.bench.measured import Bench, bench
from fewstep.bench.pareto import Front, Group, front_of, groups, table
from fewstep.bench.row import Machine, Model, Rows, Run, read_runs
from fewstep.bench.runner import Estimate, Progress
from fewstep.bench.sweep import Sweep

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
