"""Help under headings: every option on purpose under one, in one order, and what commands share said once."""

from collections.abc import Iterator

import click
import pytest

import fewstep as fs
from fewstep.cli.app import COMMANDS, app
from fewstep.cli.headings import FIRST, LAST, ORDER, Command, Option

SHARED = {
    "--json", "--force", "--prompts", "--device", "--dtype", "--variant", "--model-config", "--prediction",
    "--zero-snr", "--lora", "--allow-pickle", "--cache", "--overlap", "--negative", "--sampler", "--grid",
    "--height", "--width", "--guidance-method", "--true-cfg", "--rescale", "--weak", "--preset", "--timings", "--each",
    "--scale", "--save-every", "--no-figure", "--data",
}  # fmt: skip
"""Options that mean one thing wherever they are."""
OWN = {
    ("batch", "--prompts"): "its file may be .jsonl",
    ("autoencoder", "--device"): "it is where training runs",
    ("scenes", "--device"): "it is where training runs",
    ("choose", "--negative"): "it is tried, and taken only where it helps",
    ("choose", "--data"): "it is real pictures, where `show` writes numbers",
    ("compare", "--data"): "it is real pictures, where `show` writes numbers",
    ("distill", "--data"): "it is real pictures to learn from, where `show` writes numbers",
}
"""Those that say more in one command, and why."""
SEEDS = {"tune", "bench", "doctor"}
"""What measures on noise of its own, which a seed names."""


def commands(group: click.Group = app) -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            found = group.get_command(ctx, name)
            assert found is not None
            if isinstance(found, click.Group):
                yield from commands(found)
            else:
                yield name, found


EVERY = dict(commands())


def options(name: str) -> list[Option]:
    """Those of a command; arguments are not options."""
    found = [param for param in EVERY[name].params if isinstance(param, click.Option)]
    assert all(isinstance(param, Option) for param in found), name
    return found  # type: ignore[return-value]


def headings(text: str) -> list[str]:
    """The headings of a help text, in its order."""
    return [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]


def test_every_command_is_here() -> None:
    assert len(EVERY) == len(COMMANDS) - 2 + 7 + 5  # `show` and `train` are groups


@pytest.mark.parametrize("name", EVERY)
def test_every_option_stands_under_a_heading_on_purpose_and_in_one_order(name: str) -> None:
    command = EVERY[name]
    assert isinstance(command, Command)
    assert {param.heading for param in options(name)} <= set(ORDER)
    with click.Context(command, info_name=name, terminal_width=100, **app.context_settings) as ctx:
        text = command.get_help(ctx)
    found = headings(text.split("Options:")[-1])
    assert found == [heading for heading in ORDER if heading in found]
    assert found[-1] == LAST
    if len(options(name)) > 4:
        assert found[0] == FIRST
    assert text.count("[default:") == sum("[default:" in (p.get_help_record(ctx) or ("", ""))[1] for p in options(name))
    assert not [p.opts[0] for p in options(name) if (p.get_help_record(ctx) or ("", ""))[1].count("[default:") > 1]
    assert "INTEGER" not in text
    assert "RANGE" not in text


@pytest.mark.parametrize("name", EVERY)
def test_no_option_is_there_twice(name: str) -> None:
    words = [word for param in options(name) for word in (*param.opts, *param.secondary_opts)]
    assert len(words) == len(set(words))
    names = [param.name for param in EVERY[name].params]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", EVERY)
def test_what_is_most_used_is_an_option_of_some_command(name: str) -> None:
    command = EVERY[name]
    assert isinstance(command, Command)
    everywhere = {param.name for one in EVERY.values() for param in one.params}
    assert set(command.most_used) <= everywhere


def facts(param: Option) -> tuple[object, ...]:
    kind = param.type
    return param.help, type(kind), getattr(kind, "min", None), getattr(kind, "max", None), param.metavar, param.heading


@pytest.mark.parametrize("word", sorted(SHARED))
def test_an_option_that_commands_share_is_said_in_one_way(word: str) -> None:
    found = {
        name: facts(param)
        for name in EVERY
        for param in options(name)
        if word in param.opts and (name, word) not in OWN
    }
    assert len(found) > 1
    assert len(set(found.values())) == 1, found


def test_what_measures_takes_the_same_seeds_and_batches() -> None:
    for name in SEEDS:
        seed = next(param for param in options(name) if param.name == "seed")
        assert (seed.help, seed.type.min, seed.type.max) == ("Seed of the noise.", 0, 2**20 - 1)  # type: ignore[attr-defined]
    helps = {param.help for name in ("generate", "tune", "bench") for param in options(name) if param.name == "batch"}
    assert helps == {"Images that the network sees at once."}


def test_the_defaults_in_the_help_of_bench_are_those_of_a_sweep() -> None:
    usual = {param.name: param.usual for param in options("bench")}
    sweep = fs.benchmark.Sweep()
    assert (usual["samplers"], usual["grids"]) == (",".join(sweep.samplers), ",".join(sweep.grids))
    steps = next(param for param in options("bench") if param.name == "steps")
    assert list(steps.type.convert(usual["steps"], steps, None)) == list(sweep.counts)
    settings = fs.tuning.TuningSettings()
    found = {param.name: param.default for param in options("tune")}
    assert (found["seconds"], found["iterations"]) == (settings.seconds, settings.iterations)


def test_an_option_without_a_heading_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="heading"):
        Option(["--some"])  # type: ignore[call-arg]
