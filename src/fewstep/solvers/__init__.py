"""Solvers: functions on a tape, one family a file, each formula above its code; and their names."""

from fewstep.solvers.compiler import compile, solver_of
from fewstep.solvers.registry import SAMPLERS

__all__ = ["SAMPLERS", "compile", "solver_of"]
