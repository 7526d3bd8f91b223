"""Trainings of modules that are not denoisers, such as an autoencoder or a classifier."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.training import Needs, Phase, Role, one_stage


def role_of(module: nn.Module) -> Role:
    """The role of a module that is not a denoiser: its method calls the module itself."""
    network = Network(module, schedules.flow(), "sample")
    network.schedule = None  # so that nothing takes it for a denoiser
    return Role(network)


class OfModule:
    """What the methods of such trainings share: one stage, and no plan."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs(images=True)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        raise InvalidInput(f"{self.name} trains no denoiser: there is no plan to sample it with")
