"""Training: one loop, the state that it goes on from, keyed draws, averages, and what a method of training says.

run = Run(method, roles, data, Settings(steps=2000), Path("runs/student"))
module = train(run)                                    # the same call goes on after an interruption
"""

from fewstep.training.adapter import Adapter
from fewstep.training.average import Averages, Snapshot, combination
from fewstep.training.batch import Batch
from fewstep.training.denoising import Denoising
from fewstep.training.draws import Draws
from fewstep.training.examples import Examples, examples_of
from fewstep.training.forecast import Forecast, forecast_of
from fewstep.training.fresh import New
from fewstep.training.log import Logger
from fewstep.training.look import Look, Seen
from fewstep.training.loop import STATES, Progress, train
from fewstep.training.method import (
    Loss,
    Memory,
    Method,
    Needs,
    Phase,
    check_rows,
    further_roles,
    is_paired,
    memory_of,
    one_stage,
    row_facts_of,
    without_data,
)
from fewstep.training.model import Anew, Trained, Watching, forecast_on, train_on
from fewstep.training.place import PRECISIONS, Place
from fewstep.training.processes import Processes, Stopped
from fewstep.training.roles import STUDENT, TEACHER, Role, Roles, another, follower, schedule_of, still, student_of
from fewstep.training.run import Data, Ending, Run
from fewstep.training.settings import OPTIMISERS, Settings
from fewstep.training.state import LATEST
from fewstep.training.step import Diverged
from fewstep.training.tensorboard import TensorBoard

__all__ = [
    "LATEST",
    "OPTIMISERS",
    "PRECISIONS",
    "STATES",
    "STUDENT",
    "TEACHER",
    "Adapter",
    "Anew",
    "Averages",
    "Batch",
    "Data",
    "Denoising",
    "Diverged",
    "Draws",
    "Ending",
    "Examples",
    "Forecast",
    "Logger",
    "Look",
    "Loss",
    "Memory",
    "Method",
    "Needs",
    "New",
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
    "TensorBoard",
    "Trained",
    "Watching",
    "another",
    "check_rows",
    "combination",
    "examples_of",
    "follower",
    "forecast_of",
    "forecast_on",
    "further_roles",
    "is_paired",
    "memory_of",
    "one_stage",
    "row_facts_of",
    "schedule_of",
    "still",
    "student_of",
    "train",
    "train_on",
    "without_data",
]
