"""Training: one loop, the state that it goes on from, keyed draws, averages, and what a method of training says.

run = Run(method, roles, data, Settings(steps=2000), Path("runs/student"))
module = train(run)                                    # the same call goes on after an interruption
"""

from fewstep.training.average import Averages, Snapshot, combination
from fewstep.training.draws import Draws
from fewstep.training.log import Logger
from fewstep.training.look import Look, Seen
from fewstep.training.loop import Progress, train
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
from fewstep.training.place import PRECISIONS, Place
from fewstep.training.processes import Processes, Stopped
from fewstep.training.run import Data, Run
from fewstep.training.settings import OPTIMISERS, Settings
from fewstep.training.step import Diverged

__all__ = [
    "OPTIMISERS",
    "PRECISIONS",
    "STUDENT",
    "TEACHER",
    "Averages",
    "Batch",
    "Data",
    "Diverged",
    "Draws",
    "Logger",
    "Look",
    "Loss",
    "Method",
    "Needs",
    "Phase",
    "Place",
    "Processes",
    "Progress",
    "Role",
    "Roles",
    "Run",
    "Seen",
    "Settings",
    "Snapshot",
    "Stopped",
    "combination",
    "one_stage",
    "schedule_of",
    "student_of",
    "train",
]
