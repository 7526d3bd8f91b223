"""The networks that take part in a training, by name: the student, its teacher, and others that methods ask for."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guided import Guided
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.training.adapter import Adapter, is_change
from fewstep.training.batch import Batch
from fewstep.training.draws import Draws, key_of
from fewstep.training.rows import new_weights, with_rows
from fewstep.training.scale import Scales, at_scale, takes_scale, with_scale

STUDENT, TEACHER = "student", "teacher"


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
        decay: of one that is not trained but goes after the student: with each step of that one its weights become
            decay times their own and 1 - decay times the student's. None stays as it is.
    """

    network: Network
    trained: bool = True
    guidance: float = 1.0
    adapter: Adapter | None = None
    whole: tuple[str, ...] = ()
    rate: float | None = None
    told: Scales | None = None
    decay: float | None = None

    @property
    def moves(self) -> bool:
        """Whether its weights change from step to step."""
        return self.trained or self.decay is not None

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
        """What is trained of it, or was in an earlier stage, or goes after what is, by name."""
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


def another(roles: Roles, rate: float | None = None) -> Role:
    """A network that is trained beside the student and begins as the teacher, without dropout.

    Where the student is a LoRA it is one too, and all of them share one copy of the weights that stay.
    """
    teacher, adapter = roles[TEACHER], roles[STUDENT].adapter
    role = Role(twin(teacher.network, tensors_of(teacher.network, adapter is not None)), adapter=adapter, rate=rate)
    if adapter is not None:
        adapter.put_on(role.module, key_of("another"))
    for weight in role.weights.values():
        weight.requires_grad_(True)
    role.module.eval()
    return role


def follower(roles: Roles, decay: float) -> Role:
    """An average of the student that goes after it, as it begins; the weights that stay are shared."""
    student = roles[STUDENT]
    own = {id(weight) for weight in student.weights.values()}
    stay = [weight for weight in student.module.parameters() if id(weight) not in own]
    role = replace(student, network=twin(student.network, stay), trained=False, rate=None, decay=decay)
    role.module.requires_grad_(False)
    return role


@torch.no_grad()
def go_after(role: Role, student: Role) -> None:
    """What an average of the student makes of a step of that one. Buffers become the student's."""
    assert role.decay is not None
    theirs = student.weights
    for name, weight in role.weights.items():
        weight.lerp_(theirs[name], 1 - role.decay)
    for buffer, new in zip(role.module.buffers(), student.module.buffers(), strict=True):
        buffer.copy_(new)


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
    same = tensors_of(teacher, shared)
    if scales is not None and told is None and (shared or succeeds):
        raise InvalidInput(
            "the guidance scale as a new input needs weights of its own: leave the LoRA out, or give it one scale"
        )
    student = with_scale(teacher) if scales is not None and told is None else twin(teacher, same)
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
            twin(teacher, same) if succeeds else teacher, False, guidance, adapter if succeeds else None, told=told
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


def tensors_of(network: Network, shared: bool) -> list[Tensor]:
    """What copies of a network share, where they do: all weights and buffers."""
    module = network.module
    return [*module.parameters(), *module.buffers()] if shared and module is not None else []


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


def twin(network: Network, shared: Iterable[Tensor] = ()) -> Network:
    """The same denoiser with modules of its own, and weights and buffers of its own but for those that are `shared`."""
    return Network(
        copy.deepcopy(network.network, {id(tensor): tensor for tensor in shared}),
        schedule_of(network),
        network.prediction,
        condition=network.condition,
        dtype=network.dtype,
        time_scale=network.time_scale,
        integer_time=network.integer_time,
        sigma_data=network.sigma_data,
        rows=network.rows,
    )
