"""The one loop that trains: seeded, logged, resumable to the same bits, in one process or shared out to several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.training import state as states
from fewstep.training.average import Averages
from fewstep.training.log import Log, Taken
from fewstep.training.look import averaged, put_average
from fewstep.training.method import Phase
from fewstep.training.place import prepared
from fewstep.training.processes import Processes
from fewstep.training.roles import STUDENT, TEACHER, Role, Roles
from fewstep.training.run import Run
from fewstep.training.settings import Settings
from fewstep.training.state import Learner, Saved
from fewstep.training.step import keyed, take_step

STATES, LOG = "states", "log.jsonl"


@dataclass(frozen=True)
class Progress:
    """What a watcher is told at each line of the log, and where a run goes on from a state.

    Attributes:
        step: done, of `steps`; `losses`: the mean of each since the last line, by role; none where a run
            goes on.
        seconds: of the steps so far, in all sittings; `left`: what the rest will take.
        speed: images a second.
    """

    step: int
    steps: int
    phase: Phase
    losses: Mapping[str, float]
    seconds: float
    left: float
    speed: float = 0.0


def train(run: Run, watch: Callable[[Progress], None] = lambda now: None) -> nn.Module:
    """Train the student of a run, from the state saved last, and return its module with the averaged weights.

    An exception of `watch`, a kill or a crash loses the steps since the last state; the same call goes on. Where a
    launcher started several processes, each calls this; they share the steps, and the first one alone writes and is
    watched. Another number of processes goes on from the same state.

    Raises:
        InvalidInput: the folder holds states of a run with other settings, or a damaged one; or the batch cannot be
            shared out equally.
        Diverged: a loss or its gradient is not finite; the message names step and samples.
        OSError: a state cannot be written; the earlier ones stay.
        Stopped: in a process other than the first, of what that one raises; in all of them, where one is lost.
    """
    processes = Processes.joined(run.place)
    processes.share(run.settings.batch, run.settings.accumulate)
    sitting = begun(run, processes)
    try:
        with prepared(run.roles, run.place) as called:
            go_on(run, called, sitting, watch if processes.main else lambda now: None)
    finally:
        for logger in run.loggers if processes.main else ():
            logger.close()
    for learner in sitting.learners.values():
        put_average(learner, run.settings)
    return run.roles[STUDENT].module


@dataclass
class Sitting:
    """A run under way.

    Attributes:
        learners: by role; `log`: None but in the first process.
        step: done; `stage`: of the last one; `seconds`: in all sittings.
    """

    processes: Processes
    learners: dict[str, Learner]
    log: Log | None = None
    step: int = 0
    stage: int = 0
    seconds: float = 0.0

    def progress(self, run: Run, losses: Mapping[str, float]) -> Progress:
        """Where it is, after a step at least."""
        steps, each = run.settings.steps, self.seconds / self.step
        phase = run.method.phase(self.step - 1, steps)
        return Progress(self.step, steps, phase, losses, self.seconds, each * (steps - self.step), self.speed(run))

    def speed(self, run: Run) -> float:
        """Images a second."""
        return run.settings.batch * self.step / self.seconds if self.seconds else 0.0


def begun(run: Run, processes: Processes) -> Sitting:
    """A run at its beginning, or as its last state has it. Raises `InvalidInput` where it cannot go on."""
    if run.roles[STUDENT].adapted != (run.settings.adapter is not None):
        raise InvalidInput(
            f"the settings have the adapter {run.settings.adapter}, and the student was made "
            f"{'with one' if run.roles[STUDENT].adapted else 'without'}: give the same to student_of and to Settings"
        )
    learners = {name: learner_of(role, run.settings) for name, role in run.roles.items() if role.trained}
    sitting = Sitting(processes, learners)
    processes.on_main(lambda: run.folder.mkdir(parents=True, exist_ok=True))
    saved = states.read(run.folder / STATES, run.known_as)
    if saved is not None:
        states.restore(saved, run.roles, learners)
        sitting.step, sitting.stage, sitting.seconds = saved.step, saved.stage, saved.seconds
    else:
        for role in run.roles.values():
            if role.moves:
                processes.take_from_main([*role.module.parameters(), *role.module.buffers()])
    if processes.main:
        sitting.log = Log(run.folder / LOG, sitting.step, run.loggers)
    return sitting


def go_on(run: Run, called: Roles, sitting: Sitting, watch: Callable[[Progress], None]) -> None:
    """All steps that are left, with the roles `called` as the place says."""
    settings, processes = run.settings, sitting.processes
    if sitting.step:
        watch(sitting.progress(run, {}))
    while sitting.step < settings.steps and not ended(run, sitting):
        began = time.perf_counter()
        phase = run.method.phase(sitting.step, settings.steps)
        if phase.stage and phase.step == phase.begins:
            succeed(run, sitting)
        with keyed(settings.seed, sitting.step, processes.rank):
            taken = take_step(run._replace(roles=called), sitting.learners, phase, processes)
        sitting.step, sitting.stage = sitting.step + 1, phase.stage
        sitting.seconds += time.perf_counter() - began
        if sitting.log is not None:
            report(run, sitting, sitting.log, taken, watch)
        if due(sitting.step, settings.state_every, settings.steps):
            processes.on_main(lambda: save(run, sitting))


def ended(run: Run, sitting: Sitting) -> bool:
    """Whether the run ends here, before its last step; then its state is written."""
    ending, step = run.ending, sitting.step
    if ending is None or step == 0 or step % ending.every or not sitting.processes.on_main(lambda: ending.due(step)):
        return False
    if step % run.settings.state_every:
        sitting.processes.on_main(lambda: save(run, sitting))
    return True


def due(step: int, every: int, steps: int) -> bool:
    """Whether what is done every so many steps, and after the last, is done after this one."""
    return step % every == 0 or step == steps


def report(run: Run, sitting: Sitting, log: Log, taken: Taken, watch: Callable[[Progress], None]) -> None:
    """What is written and shown after a step."""
    step, settings = sitting.step, run.settings
    log.add(taken)
    if due(step, settings.log_every, settings.steps):
        rate = settings.learning_rate(run.method.phase(step - 1, settings.steps))
        losses = log.line(step, rate, sitting.seconds, sitting.speed(run))
        watch(sitting.progress(run, losses))
    looks = [look for look in run.looks if due(step, look.every, settings.steps)]
    if not looks:
        return
    with averaged(run.roles, sitting.learners, settings):
        for look in looks:
            seen = look(step, run.roles)
            log.saw(step, seen.figures, seen.pictures)


def save(run: Run, sitting: Sitting) -> None:
    """Write a state."""
    tensors = states.tensors_of(run.roles, sitting.learners, sitting.stage)
    states.write(run.folder / STATES, run.known_as, Saved(sitting.step, sitting.stage, sitting.seconds, tensors))


def learner_of(role: Role, settings: Settings) -> Learner:
    """What belongs to a role that is trained, at its beginning."""
    weights = role.weights
    return Learner(weights, Averages(weights, settings.widths), settings.optimiser_of(weights))


def succeed(run: Run, sitting: Sitting) -> None:
    """A new stage: the averaged student becomes the teacher, and its own beginning and that of who goes after it, with
    a new optimiser and average.
    """
    student = run.roles[STUDENT]
    put_average(sitting.learners[STUDENT], run.settings)
    with torch.no_grad():
        run.roles[TEACHER].module.load_state_dict(student.module.state_dict())  # with buffers
        for role in run.roles.values():
            if role.decay is not None:
                role.module.load_state_dict(student.module.state_dict())
    sitting.learners[STUDENT] = learner_of(student, run.settings)
