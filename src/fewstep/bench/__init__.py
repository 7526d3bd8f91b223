"""What a model does under many samplers, measured: one row a run, a table and a page."""

from __future__ import annotations

from fewstep.bench.row import Machine, Model, Rows, Run, read_runs

__all__ = ["Machine", "Model", "Rows", "Run", "read_runs"]
