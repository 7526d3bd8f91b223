"""Training: one loop, the state that it goes on from, keyed draws, averages, and what a method of training says.

run = Run(method, roles, data, Settings(steps=2000), Path("runs/student"))
module = train(run)                                    # the same call goes on after an interruption
"""

from fewstep.training.average import Averages, Snapshot, combination
from fewstep.training.denoising import Denoising
from fewstep.training.draws import Draws
from fewstep.training.examples import Examples, examples_of
from fewstep.training.fresh import New
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
from fewstep.training.model import Anew, Trained, Watching, train_on
from fewstep.training.settings import OPTIMISERS, Settings

__all__ = [
    "OPTIMISERS",
    "STUDENT",
    "TEACHER",
    "Anew",
    "Averages",
    "Batch",
    "Data",
    "Denoising",
    "Diverged",
    "Draws",
    "Examples",
    "Loss",
    "Method",
    "Needs",
    "New",
    "Phase",
    "Progress",
    "Role",
    "Roles",
    "Run",
    "Settings",
    "Snapshot",
    "Trained",
    "Watching",
    "combination",
    "examples_of",
    "one_stage",
    "schedule_of",
    "student_of",
    "train",
    "train_on",
]
