"""The page: whole by itself, right with few rows and with many, and what no row beats."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from fewstep.benchmark import Loading, Measured
from fewstep.benchmark.commands import generate_command
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.page import page_of
from fewstep.benchmark.pareto import front_of, table
from fewstep.benchmark.plots import Axis, Marks, scatter
from fewstep.tuning.certificate import ConfidenceInterval

from .made_up import MODEL, figure, row


class Tags(HTMLParser):
    """The tags of a page, and whether each is closed where it has to be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self.open[-1] != "p":
            return
        assert self.open.pop() == tag


def page_with(folder: Path, measured: list[Measured], pictures: int = 0) -> str:
    own = Folder(folder, MODEL)
    for one in measured:
        own.results.append(one)
    for one in measured[:pictures]:
        Image.new("L", (16, 8), 90).save(own.picture(one.key))
    own.note("fewstep bench digits --steps 4")
    return page_of(own)


def many(count: int) -> list[Measured]:
    grids = ("trailing", "quadratic", "karras", "exponential")
    return [
        row(
            f"sampler-{i % 25}",
            1 + i // 25,
            10.0 ** -(i / count) * (1 + i % 7),
            grid=grids[i % 4],
            precision="float32" if i % 2 else "bfloat16",
        )
        for i in range(count)
    ]


def test_less_error_at_more_evaluations_and_nothing_else_is_on_the_front() -> None:
    rows = [row(steps=4, error=0.5), row(steps=4, error=0.4), row(steps=8, error=0.2), row(steps=16, error=0.3)]
    assert front_of(rows).nfe == {rows[1].key, rows[2].key}
    twins = [row("a", 4, 0.5), row("b", 4, 0.5)]
    assert front_of(twins).nfe == {one.key for one in twins}


def test_in_seconds_only_a_row_that_is_surely_slower_may_have_more_error() -> None:
    exact = row("exact", error=0.1, seconds=0.010)  # 0.009 to 0.011
    near = row("near", error=0.2, seconds=0.0099)  # 0.0089 to 0.0109
    quick = row("quick", error=0.3, seconds=0.008)  # to 0.0088
    front = front_of([exact, near, quick])
    assert front.seconds == {exact.key, quick.key}


def test_rows_without_an_error_and_rows_that_lost_images_are_on_no_front() -> None:
    noisy = row("ddpm", figures={"diversity": figure(3.0, "more")})
    lost = row("heun", error=1e-9, lost=1)
    good = row("ddim")
    assert front_of([noisy, lost, good]).nfe == {good.key}
    assert front_of([noisy]).nfe == frozenset()


def test_other_guidance_noise_and_devices_are_compared_apart() -> None:
    rows = [row(), row(guidance=3.0, error=0.1), row(seed=1, error=0.2), row(images=32, error=0.1)]
    assert [[one.key for one in best] for _, best, _ in table(rows)] == [[one.key] for one in rows]


@pytest.mark.parametrize("count", [1, 5, 500])
def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path, count: int) -> None:
    page = page_with(tmp_path, many(count), pictures=count)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert not re.search(r"url\(|@import", page)
    assert tags.seen["img"] <= 8
    assert f"All {count} plans" in page
    assert "fewstep bench digits --steps 4" in page
    assert len(page) < 20_000 + 3_000 * count


def test_a_page_without_rows_says_so(tmp_path: Path) -> None:
    assert "Nothing is measured yet" in page_with(tmp_path, [])


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    page = page_with(tmp_path, [row(evil, grid=evil, machine=row().machine._replace(processor=evil))])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_plot_is_sound_and_joins_the_front_in_order() -> None:
    rows = [row(steps=n, error=1 / n**2) for n in (16, 4, 8)]
    svg = scatter(
        rows,
        Marks.of(rows),
        {one.key for one in rows},
        ("NFE", lambda one: one.nfe),
        ("error", lambda one: one.figures["error"].value),
        figure="error",
    )
    tree = ElementTree.fromstring(svg)
    front = next(each for each in tree.iter() if each.get("class") == "front")
    points = [tuple(map(float, point.split())) for point in str(front.get("d"))[1:].split("L")]
    assert points == sorted(points)  # to the right, and down
    assert [b for _, b in points] == sorted(b for _, b in points)
    assert len([each for each in tree.iter() if each.get("class") == "ring"]) == 3


@pytest.mark.parametrize(
    ("low", "high", "logarithmic"),
    [(0.004, 3.0, True), (8, 40, True), (1e-9, 5, True), (0.2, 0.9, False), (2, 2, True)],
)
def test_an_axis_has_a_few_round_ticks_inside(low: float, high: float, logarithmic: bool) -> None:
    axis = Axis.over([low, high], 10, 500, logarithmic)
    assert 10 < axis.place(low) <= axis.place(high) < 500
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(axis.low <= tick <= axis.high for tick in ticks)


def test_commands_draw_what_was_measured() -> None:
    assert generate_command(row(steps=6, grid_options={}), "out") == (
        "fewstep generate digits --sampler ddim --steps 6 --grid quadratic --guidance 2"
    )
    tuned = row("learned", kind="tuned", file="plans/p.json", tuned_for=MODEL.digest, guidance=None)
    assert generate_command(row(), "out", prompted=True).startswith("fewstep generate digits PROMPT --sampler ")
    assert generate_command(tuned, "out/b d") == "fewstep generate digits --plan 'out/b d/plans/p.json'"
    for precision, end in (("float32", ""), ("bfloat16", " --dtype bfloat16")):
        own = replace(tuned, precision=precision)
        assert generate_command(own, "out") == f"fewstep generate digits --plan out/plans/p.json{end}"
    foreign = row("learned", kind="tuned", file="plans/p.json", tuned_for="f" * 16, precision="bfloat16")
    assert generate_command(foreign, "out").endswith("--plan out/plans/p.json --force --guidance 2 --dtype bfloat16")
    options = row("ddim", options={"eta": 0.5}, grid_options={"bias": 0.5}, guidance=None)
    assert "--grid-option bias=0.5 --option eta=0.5" in generate_command(options, "out")
    elsewhere = replace(row(), model=replace(MODEL, loading=Loading("cuda")))
    assert generate_command(elsewhere, "out").endswith(" --device cuda")


def test_commands_load_the_model_as_it_was_measured(tmp_path: Path) -> None:
    loading = Loading("cpu", "fp16; ls", "con figs/$HOME", True)
    one = row(grid_options={}, model=replace(MODEL, loading=loading))
    command = generate_command(one, "out")
    assert command.endswith(" --guidance 2 --variant 'fp16; ls' --model-config 'con figs/$HOME' --allow-pickle")
    assert escape(command) in page_with(tmp_path, [one])


def test_seconds_are_shown_with_their_interval(tmp_path: Path) -> None:
    one = replace(row(), seconds=ConfidenceInterval(0.0125, 0.011, 0.019))
    assert "12.5<small> 11 to 19</small>" in page_with(tmp_path, [one])
