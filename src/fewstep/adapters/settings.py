"""The arguments of a `PlanScheduler` from the configuration of a diffusers scheduler and what the caller gives.

Configurations are read as mappings. diffusers is asked for one thing only: the default settings of its classes, because
a configuration in memory marks those of its values that are only the defaults of the class it was made by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.adapters.hosts import check_host, host_of
from fewstep.adapters.peers import PEERS, defaults_of, options_of, peer_of, sampler_of
from fewstep.adapters.used import CLIPPING, KNOWN, SPACING, Use, check_used
from fewstep.core import GRIDS, BetaSchedule, InvalidInput, Plan, Schedule, unknown_name
from fewstep.solvers import SAMPLERS, solver_of

Settings = Mapping[str, Any]

OWN = ("sampler", "options", "grid", "grid_options", "plan", "init_noise", "round_times", "shift_sigmas", "coordinates")
HOST = ("host", "defaulted", "chosen")
CLASS = "PlanScheduler"


@dataclass(frozen=True)
class _Source:
    """What a configuration says: settings of the host, its class, those that are only defaults, and own arguments."""

    base: dict[str, Any]
    host: str | None
    defaulted: frozenset[str]
    chosen: frozenset[str]
    own: dict[str, Any]


def _source(config: Settings) -> _Source:
    """Own arguments count in a `PlanScheduler`'s own configuration only: others may carry left-overs of one."""
    base = {name: v for name, v in config.items() if name not in (*OWN, *HOST) and not name.startswith("_")}
    if config.get("_class_name") == CLASS:
        own = {name: config[name] for name in OWN if name in config}
        return _Source(base, config["host"], frozenset(config["defaulted"]), frozenset(config["chosen"]), own)
    plain = {**base, **({"_class_name": config["_class_name"]} if "_class_name" in config else {})}
    defaulted = frozenset(config.get("_use_default_values", ()))
    return _Source(base, host_of(plain), defaulted, frozenset(), {})


def arguments_of(
    config: Settings,
    sampler: str | None,
    grid: str | None,
    grid_options: Mapping[str, Any] | None,
    given: dict[str, Any],
) -> dict[str, Any]:
    """The arguments of a `PlanScheduler` from a configuration, another's or its own, and what the caller has `given`.

    `given` holds arguments, settings to change, and options of the sampler. A name that the diffusers class of the
    sampler has as a setting means what it means there; else it is an option of the sampler, or a setting. `options`,
    also an empty mapping, are the sampler's own: with them its other options do not follow the host's settings.

    Raises:
        InvalidInput: for a name that nothing here would read, for settings that contradict the sampler, and for a
            class whose times are not understood.
    """
    source = _source(config)
    check_host(source.host)
    own = {name: given[name] for name in OWN if name in given}
    rest = {name: value for name, value in given.items() if name not in own}
    verbatim = own.pop("options", None)
    options = dict(verbatim or {})
    planned = own.get("plan") is not None
    kept: dict[str, Any] = {}
    if source.own:
        if sampler is None and not planned:
            sampler, own["plan"] = source.own["sampler"], source.own["plan"]
        if sampler is not None and sampler == source.own["sampler"]:
            kept = dict(source.own["options"])
        if grid is None and not planned:
            grid, grid_options = source.own["grid"], grid_options or source.own["grid_options"]
        own = {name: source.own[name] for name in OWN[5:] if name in source.own} | own
    planned = own.get("plan") is not None
    if not planned and sampler is None:
        sampler, _ = sampler_of(source.host, {**defaults_of(source.host or ""), **source.base, **rest})
    settings, more = _sorted(rest, None if planned else sampler, source)
    check_used(settings, Use(source.base, source.host, None if planned else sampler, grid if settings else None))
    base, defaulted = source.base | settings, source.defaulted - settings.keys()
    if planned:
        if more or options:
            raise InvalidInput(f"options {sorted({*more, *options})} are for a sampler, and a plan has its own")
    else:
        alone = bool(kept) or verbatim is not None
        explicit = settings.keys() if alone else base.keys() - defaulted
        derived = options_of(str(sampler), source.host, base, explicit, whole=not alone)
        options = (kept if verbatim is None else {}) | derived | more | options
        if sampler == "sa":
            base.pop("tau_func", None)  # options say it now, and no file can hold a function
    memory = {"host": source.host, "defaulted": sorted(defaulted), "chosen": sorted(source.chosen | settings.keys())}
    named = {"sampler": sampler, "options": options, "grid": grid, "grid_options": grid_options}
    return {**base, **own, **memory, **named}


def _sorted(rest: Settings, sampler: str | None, source: _Source) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, options of the sampler) among the other arguments of a call."""
    theirs = defaults_of(peer_of(sampler, source.host) or "") if sampler else {}
    ours = solver_of(sampler)[1] if sampler in SAMPLERS else {}
    known = source.base.keys() | KNOWN
    settings = {n: v for n, v in rest.items() if n in theirs or (n not in ours and n in known)}
    return settings, {name: value for name, value in rest.items() if name not in settings}


def as_peer(
    config: Settings,
    sampler: str,
    host: str | None,
    schedule: Schedule,
    defaulted: Iterable[str],
    chosen: Iterable[str],
) -> tuple[str | None, dict[str, Any]]:
    """(class, settings) by which `sampler` is spaced and clipped under the configuration of `host`, as diffusers' own.

    Another class made from a configuration ignores the values that were only defaults of the first (`defaulted`), so
    they are replaced by its own; those that the caller has `chosen` stay. EDM schedules, samplers that diffusers lacks,
    and on flow schedules those that it has for beta schedules only, keep the configuration's own class.
    """
    peer, theirs = PEERS.get(sampler), defaults_of(PEERS.get(sampler) or "")
    if isinstance(schedule, BetaSchedule):
        own = not theirs
    else:
        own = not config.get("use_flow_sigmas") or "use_flow_sigmas" not in theirs
    if own or peer_of(sampler, host) == host:
        peer, theirs, defaulted = host, defaults_of(host or ""), ()
    if peer is None or not theirs:
        return host, dict(config)
    settings = dict(config)
    for name in {*SPACING, *CLIPPING} - set(chosen):
        if name not in theirs:
            settings.pop(name, None)
        elif name not in config or name in defaulted:
            settings[name] = theirs[name]
    return peer, settings


def check_arguments(
    sampler: str | None, plan: str | None, grid: str | None, grid_options: Mapping[str, Any] | None
) -> None:
    """Raise `InvalidInput` for unknown names, and for arguments of a `PlanScheduler` that do not go together."""
    if (sampler is None) == (plan is None):
        raise InvalidInput("a PlanScheduler has either a sampler or a plan: use from_config or from_plan")
    if sampler is not None and sampler not in SAMPLERS:
        raise unknown_name("sampler", str(sampler), SAMPLERS)
    if grid is not None and grid not in GRIDS:
        raise unknown_name("grid", str(grid), GRIDS)
    if grid is None and grid_options:
        raise InvalidInput(f"grid_options {sorted(grid_options)} need a grid, such as grid='karras'")


def check_fit(plan: Plan, schedule: Schedule) -> None:
    """Raise `InvalidInput` where the plan was compiled for another noise schedule, or guides by row."""
    if plan.recipe.schedule_fingerprint != schedule.fingerprint:
        raise InvalidInput(
            f"the plan was compiled for the noise schedule {json.dumps(dict(plan.recipe.schedule))[:100]}, this "
            f"configuration has {schedule.kind!r} ({schedule.fingerprint}): compile it with "
            "schedule=fewstep.schedules.from_diffusers(pipe.scheduler.config)"
        )
    if plan.guidance_factors is not None:
        raise InvalidInput(
            f"the plan {plan.digest} was tuned with guidance by row, and a scheduler cannot set the guidance of its "
            "pipeline: use fewstep.adapters.byrow.GuidanceByRow, a callback of pipelines that does; tune with "
            "`fewstep tune --constant-guidance`; or draw with fewstep.load"
        )
