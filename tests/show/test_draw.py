"""Pictures: both kinds of file, the same bytes for the same numbers, and what they say."""

import sys
from xml.etree import ElementTree

import pytest
from PIL import Image

import fewstep as fs
from fewstep.show.convergence import convergence
from fewstep.show.data import content
from fewstep.show.draw import check_suffix, picture
from fewstep.show.effort import effort
from fewstep.show.levels import levels
from fewstep.show.mixture import ring
from fewstep.show.strategy import Strategy
from fewstep.show.trajectories import trajectories

SCHEDULE, MIXTURE = fs.schedules.linear(), ring(3)
TWO = [Strategy("euler"), Strategy("dpmpp-2m")]


@pytest.fixture(scope="module")
def results():
    return {
        "trajectories": trajectories(MIXTURE, SCHEDULE, [*TWO, Strategy("euler-a")], nfe=4, count=2),
        "solver-error": convergence(MIXTURE, SCHEDULE, TWO, nfes=(4, 8), count=2),
        "schedules": levels({"flow": fs.schedules.flow()}, ["karras", "trailing"], grid_schedule=SCHEDULE, steps=4),
        "steps": effort(MIXTURE, SCHEDULE, TWO, target=0.3, limit=8, count=2),
    }


FIGURES = ["trajectories", "solver-error", "schedules", "steps"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_whole_svg_and_the_same_each_time(results, name):
    drawn = picture(results[name], ".svg")
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert drawn == picture(results[name], ".svg")


def test_a_png_is_light_and_as_wide_as_asked(results, tmp_path):
    (tmp_path / "f.png").write_bytes(picture(results["steps"], ".PNG"))
    with Image.open(tmp_path / "f.png") as image:
        assert image.format == "PNG"
        assert image.width == round(8.6 * 110)
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_legend_names_fitted_orders(results):
    from fewstep.show.draw.errors import figure_of

    found = results["solver-error"]
    legend = figure_of(found).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{c.strategy.name}: {c.fitted:.2f} ({c.strategy.order})" for c in found.curves
    ]


def test_no_words_of_a_figure_lie_on_one_another(results):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from fewstep.show.draw.bars import figure_of

    figure = figure_of(results["steps"])
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("path", ["figure", "figure.jpg", "figure.svg.gz"])
def test_other_kinds_of_files_are_refused(path):
    with pytest.raises(fs.InvalidInput, match=r"a figure is written as \.svg or \.png"):
        check_suffix(path)


def test_without_matplotlib_the_error_says_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(fs.InvalidInput, match=r"pip install 'fewstep\[show\]'"):
        picture(results["steps"])


@pytest.mark.parametrize("name", FIGURES)
def test_data_are_json_or_csv(results, name):
    assert content(results[name]).startswith(b'{"figure": "' + name.encode())
    columns, rows = results[name].table()
    lines = content(results[name], ".csv").decode().splitlines()
    assert lines[0] == ",".join(columns)
    assert len(lines) == 1 + len(rows)
    with pytest.raises(fs.InvalidInput, match=r"data are written as \.json or \.csv"):
        content(results[name], ".txt")
