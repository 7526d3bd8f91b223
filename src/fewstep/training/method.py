"""What a way of training says of itself, so that one loop runs all of them.

A method is a frozen dataclass of its settings. It names what it needs and the networks that take part, says for each
step where in the training it is, and yields losses, which the loop back-propagates one by one, so that the graph of one
is in memory. It holds no optimiser, device, precision, average or file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guided import Guided
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.training.adapter import Adapter, is_change
from fewstep.training.draws import Draws, key_of
from fewstep.training.rows import new_weights, with_rows
from fewstep.training.scale import Scales, at_scale, takes_scale, with_scale

STUDENT, TEACHER = "student", "teacher"


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


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a step, or of a part of it.

    Attributes:
        data: (B, ..) clean states: images, or what the teacher made of the noise of pairs.
        noise: (B, ..) of pairs, unit; None where images are not paired with noise.
        condition, negative: keyword arguments of the network, with the batch first; without `negative` nothing guides.
        scales: (B,) of guidance, where each sample has its own.
        along: (B, levels, ..) states of the teacher's trajectories of which the data are the ends, where a method asks
            for them.
    """

    data: Tensor
    noise: Tensor | None = None
    condition: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Any] | None = None
    scales: tuple[float, ...] | None = None
    along: Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)

    def take(self, samples: Sequence[int]) -> Batch:
        """Some of the samples, by their places."""
        places = list(samples)
        return Batch(
            self.data[places],
            None if self.noise is None else self.noise[places],
            chosen(self.condition, places),
            None if self.negative is None else chosen(self.negative, places),
            None if self.scales is None else tuple(self.scales[place] for place in places),
            None if self.along is None else self.along[places],
        )


def chosen(condition: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The arguments of some samples of a batch, by their places."""
    return {name: value[list(places)] if isinstance(value, Tensor) else value for name, value in condition.items()}


@dataclass(frozen=True, eq=False)
class Role:
    """A network that takes part: one that is trained, or one that only answers.

    Attributes:
        network: as a denoiser, its condition still to be given.
        guidance: the scale at which it answers, as long as it is the original teacher; 1 is the conditional model.
        adapter: the low-rank change that is all that is trained of it, where its own weights are another's too;
            `whole`: but for these, by name, which are its own and trained as they are.
        rate: the learning rate of its weights at its peak; None is that of the settings.
        told: the interval of guidance scales that the network is told, None where it is told none.
    """

    network: Network
    trained: bool = True
    guidance: float = 1.0
    adapter: Adapter | None = None
    whole: tuple[str, ...] = ()
    rate: float | None = None
    told: Scales | None = None

    @property
    def module(self) -> nn.Module:
        """The module behind the network."""
        return module_of(self.network)

    @property
    def adapted(self) -> bool:
        """Whether a low-rank change is all that is trained of it."""
        return self.adapter is not None

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained of it, or was in an earlier stage, by name."""
        found = self.module.named_parameters()
        return {name: weight for name, weight in found if not self.adapted or is_change(name) or name in self.whole}

    def answering(self, batch: Batch, guided: bool = False) -> Denoiser:
        """The denoiser of a batch under its conditions, guided where asked and where there is something to guide by.

        It is guided at the scales of the batch, or else its own. A network that is told the scale is not guided.
        """
        if self.told is not None:
            told = {} if batch.scales is None else {"guidance": batch.data.new_tensor(batch.scales).float()}
            return self.network.given({**batch.condition, **told})
        scales = self.guidance if batch.scales is None else list(batch.scales)
        if guided and scales != 1.0:
            if batch.negative is None:
                raise InvalidInput(f"the teacher is asked to guide at {scales!s:.60}, and no batch has a negative")
            return Guided(self.network, batch.condition, batch.negative, scales)
        return self.network.given(batch.condition)

    def at(self, scale: float) -> Network:
        """The network, told a guidance scale where it is told one."""
        return self.network if self.told is None else at_scale(self.network, scale)

    def asked(self, batch: Batch, draws: Draws) -> Batch:
        """The batch with a guidance scale for each sample, drawn evenly from those that the network is told, if any."""
        if self.told is None:
            return batch
        low, high = self.told
        return replace(batch, scales=tuple(float(low + (high - low) * share) for share in draws.uniform("guidance")))


Roles = Mapping[str, Role]


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


def another(roles: Roles, rate: float | None = None) -> Role:
    """A network that is trained beside the student and begins as the teacher, without dropout.

    Where the student is a LoRA it is one too, and all of them share one copy of the weights that stay.
    """
    teacher, adapter = roles[TEACHER], roles[STUDENT].adapter
    role = Role(twin(teacher.network, adapter is not None), adapter=adapter, rate=rate)
    if adapter is not None:
        adapter.put_on(role.module, key_of("another"))
    for weight in role.weights.values():
        weight.requires_grad_(True)
    role.module.eval()
    return role


@contextmanager
def still(*roles: Role) -> Iterator[None]:
    """Within it the weights of some roles take no gradients; those of a loss through them go to others alone."""
    weights = [weight for role in roles for weight in role.weights.values()]
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, kept in zip(weights, before, strict=True):
            weight.requires_grad_(kept)


def student_of(
    teacher: Network,
    guidance: float = 1.0,
    succeeds: bool = False,
    *,
    adapter: Adapter | None = None,
    scales: Scales | None = None,
    rows: RowFacts = NO_ROW,
    seed: int = 0,
) -> dict[str, Role]:
    """The two roles of most methods: the teacher, in evaluation mode, and a copy of it that is trained.

    Where the student `succeeds` the teacher in later stages, the teacher is a copy too, and the caller's stays. With an
    `adapter` copies share the weights of the original, which nobody changes, and a low-rank change of them is trained,
    drawn by the seed. With `scales` the student is told the guidance scale; where no teacher is, it is a new input.
    `rows` is what the student knows of its rows; beside an adapter the layers that are new for that are trained whole.

    Raises `InvalidInput` where a scale as a new input would be trained by a LoRA or a network has no room for one.
    """
    shared, told = adapter is not None, scales if takes_scale(teacher) else None
    if scales is not None and told is None and (shared or succeeds):
        raise InvalidInput(
            "the guidance scale as a new input needs weights of its own: leave the LoRA out, or give it one scale"
        )
    student = with_scale(teacher) if scales is not None and told is None else twin(teacher, shared)
    if rows:
        if succeeds:
            raise InvalidInput(
                f"a student that {rows} has layers that its teacher has not, and cannot become the teacher of a next "
                "stage: use a method of one stage"
            )
        student = with_rows(student, rows, shared)
    whole = new_weights(module_of(student), module_of(teacher)) if rows and shared else ()
    roles = {
        STUDENT: Role(student, adapter=adapter, whole=whole, told=scales),
        TEACHER: Role(
            twin(teacher, shared) if succeeds else teacher, False, guidance, adapter if succeeds else None, told=told
        ),
    }
    for role in roles.values():
        if role.adapter is not None:
            role.adapter.put_on(role.module, key_of(seed, "adapter"), role.whole)
    roles[TEACHER].module.requires_grad_(False).eval()
    for weight in roles[STUDENT].weights.values():
        weight.requires_grad_(True)
    roles[STUDENT].module.train()
    return roles


def check_rows(method: str, own: int, rows: int | None) -> None:
    """Raise `InvalidInput` for other rows than a method's `own`, where its student knows the times of these alone."""
    if rows is not None and rows != own:
        raise InvalidInput(
            f"a student by {method} knows the times of its own {own} row{'s' * (own != 1)} alone: train one for {rows}"
        )


def module_of(network: Network) -> nn.Module:
    """The module behind a network. Raises `InvalidInput` where it is none."""
    if network.module is None:
        raise InvalidInput("only a network that is a torch.nn.Module can be trained, and this one is a function")
    return network.module


def schedule_of(network: Network) -> Schedule:
    """The noise schedule of a network. Raises `InvalidInput` where it has none."""
    if network.schedule is None:
        raise InvalidInput("a network is trained on its noise schedule, and this one has none")
    return network.schedule


def twin(network: Network, shared: bool = False) -> Network:
    """The same denoiser with modules of its own, and weights of its own unless they are `shared`."""
    module = network.module
    tensors = [*module.parameters(), *module.buffers()] if shared and module is not None else []
    return Network(
        copy.deepcopy(network.network, {id(tensor): tensor for tensor in tensors}),
        schedule_of(network),
        network.prediction,
        condition=network.condition,
        dtype=network.dtype,
        time_scale=network.time_scale,
        integer_time=network.integer_time,
        sigma_data=network.sigma_data,
        rows=network.rows,
    )
