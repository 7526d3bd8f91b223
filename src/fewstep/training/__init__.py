"""Training: one loop, the state that it goes on from, keyed draws, averages, and what a method of training says.

run = Run(method, roles, data, Settings(steps=2000), Path("runs/student"))
module = train(run)                                    # the same call goes on after an interruption
"""

from fewstep.training.adapter import Adapter
from fewstep.training.average import Averages, Snapshot, combination
from fewstep.training.draws import Draws
from fewstep.training.look import Look, Seen
from fewstep.training.loop import STATES, Data, Diverged, Progress, Run, train
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
    check_rows,
    one_stage,
    schedule_of,
    student_of,
)
from fewstep.training.settings import OPTIMISERS, Settings

__all__ = [
    "OPTIMISERS",
    "STATES",
    "STUDENT",
    "TEACHER",
    "Adapter",
    "Averages",
    "Batch",
    "Data",
    "Diverged",
    "Draws",
    "Look",
    "Loss",
    "Method",
    "Needs",
    "Phase",
    "Progress",
    "Role",
    "Roles",
    "Run",
    "Seen",
    "Settings",
    "Snapshot",
    "check_rows",
    "combination",
    "one_stage",
    "schedule_of",
    "student_of",
    "train",
]
