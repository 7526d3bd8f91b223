"""What a way of training says of itself, so that one loop runs all of them.

A method is a frozen dataclass of its settings. It names what it needs and the networks that take part, says for each
step where in the training it is, and yields losses, which the loop back-propagates one by one, so that the graph of one
is in memory. It holds no optimiser, device, precision, average or file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.training.batch import Batch
from fewstep.training.draws import Draws
from fewstep.training.roles import Role, Roles


class Needs(NamedTuple):
    """What a method cannot do without.

    Attributes:
        images: samples of the data; `pairs`: noise and what the teacher makes of it.
        predictions: what the student's network may predict; None is anything.
        told: it may learn from a network that is told its guidance scale, and draws one for each sample.
    """

    teacher: bool = False
    images: bool = False
    pairs: bool = False
    predictions: tuple[str, ...] | None = None
    told: bool = False


class Phase(NamedTuple):
    """Where a training is at a step.

    Attributes:
        stage: 0, 1 .. With each later stage the averaged student becomes the teacher, and optimiser, rate and average
            begin anew.
        stages: in all.
        begins: the step at which the stage begins; `steps`: how many it has.
        step: the step of the whole training.
    """

    stage: int
    stages: int
    begins: int
    steps: int
    step: int

    @property
    def share(self) -> float:
        """How much of the stage is done, in [0, 1)."""
        return (self.step - self.begins) / self.steps


def one_stage(step: int, steps: int) -> Phase:
    """The phase of a method that has one stage alone."""
    return Phase(0, 1, 0, steps, step)


class Loss(NamedTuple):
    """A scalar to go down.

    Attributes:
        role: whose weights it is for; `also`: others whose weights it moves too.
        figures: numbers for the log.
    """

    role: str
    value: Tensor
    figures: Mapping[str, float] = {}
    also: Sequence[str] = ()


class Memory(NamedTuple):
    """What a method holds at its most demanding step.

    Attributes:
        graphs: calls of the student's network whose activations are kept at once, until a loss is back-propagated.
        copies: of the student's weights that it makes beside the roles.
    """

    graphs: int = 1
    copies: int = 0


class Method(Protocol):
    """A way of training; see the module's docstring.

    It may also say `memory() -> Memory`, without which one graph and no copy are counted; `along(schedule)`, the times
    at which it learns from states of the teacher's trajectories; `suited(plan)`, the method for a teacher's plan;
    `row_facts`, what the student's network is to know of its rows; `roles(roles, batch) -> dict[str, Role]`, what
    else takes part, made once from student and teacher as they begin and a few samples; `cycle`, the steps after which
    it does the same again, where these differ; `hardest(steps)`, the step that takes the most memory, where that is not
    the first; `paired`, False where its student is not to make the teacher's picture of the same noise, so that no
    error but the distance of all pictures judges it; and `without_data`, why it cannot learn from real pictures as it
    is set, "" where it can, which is usual where it needs `images`.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]

    def phase(self, step: int, steps: int) -> Phase:
        """Where the training is; a pure function, so that a resumed run needs nothing else."""
        ...

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        """The losses of a batch, each a mean over it."""
        ...

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        """The plan that the trained network is to be sampled with, in other `rows` than those of the method if asked.

        Raises `InvalidInput` where the network has not learnt to draw in so many, saying why.
        """
        ...


def memory_of(method: Method) -> Memory:
    """What a method says that it holds, or what is usual."""
    own = getattr(method, "memory", None)
    return Memory() if own is None else own()


def row_facts_of(method: Method) -> RowFacts:
    """What a method's student knows of its rows: nothing unless it says so."""
    return getattr(method, "row_facts", NO_ROW)


def further_roles(method: Method, roles: Roles, batch: Batch) -> dict[str, Role]:
    """The roles of a method beside student and teacher."""
    own = getattr(method, "roles", None)
    return {} if own is None else own(roles, batch)


def cycle_of(method: object) -> int:
    """After how many steps a method does the same again."""
    return int(getattr(method, "cycle", 1))


def hardest_of(method: object, steps: int) -> int:
    """Which of so many steps takes the most memory."""
    own = getattr(method, "hardest", None)
    return 0 if own is None else own(steps)


def is_paired(method: object) -> bool:
    """Whether the student of a method is to make the teacher's picture of the same noise."""
    return bool(getattr(method, "paired", True))


def without_data(method: Method) -> str:
    """Why a method cannot learn from real pictures, in the place of those that a teacher draws; "" where it can."""
    usual = "" if method.needs.images else "it learns from no pictures"
    if method.needs.pairs:
        usual = "it learns which noise becomes which picture of the teacher, and a real picture has no noise"
    return str(getattr(method, "without_data", usual))


def check_rows(method: str, own: int, rows: int | None) -> None:
    """Raise `InvalidInput` for other rows than a method's `own`, where its student knows the times of these alone."""
    if rows is not None and rows != own:
        raise InvalidInput(
            f"a student by {method} knows the times of its own {own} row{'s' * (own != 1)} alone: train one for {rows}"
        )
