"""Training: one loop, the state that it goes on from, keyed draws, averages, and what a method of training says.

run = Run(method, roles, data, Settings(steps=2000), Path("runs/student"))
module = train(run)                                    # the same call goes on after an interruption
"""

from fewstep.training.average import Averages, Snapshot, combination
from fewstep.training.denoising import Denoising
from fewstep.training.draws import Draws
from fewstep.training.loop import Data, Diverged, Progress, Run, train
from fewstep.training.method import (
    STUDENT,
    TEACHER,
    Batch,
    Loss,
    Method,
    Needs,
    Phase,
    Role,
    Roles,
    one_stage,
    schedule_of,
    student_of,
)
from fewstep.training.settings import OPTIMISERS, Settings

__all__ = [
    "OPTIMISERS",
    "STUDENT",
    "TEACHER",
    "Averages",
    "Batch",
    "Data",
    "Denoising",
    "Diverged",
    "Draws",
    "Loss",
    "Method",
    "Needs",
    "Phase",
    "Progress",
    "Role",
    "Roles",
    "Run",
    "Settings",
    "Snapshot",
    "combination",
    "one_stage",
    "schedule_of",
    "student_of",
    "train",
]
