"""What is said of negative prompts."""

from __future__ import annotations

import pytest
import torch

from fewstep.benchmark.negative import Negative, Negatives, bootstrap_of, usual_negatives
from fewstep.measure import mean_score
from fewstep.measure.figure import Difference
from fewstep.measure.standing import advantage


@pytest.mark.parametrize(("flips", "most"), [(0.05, 0.05), (0.3, 0.05)])
def test_prompts_that_change_nothing_on_average_are_hardly_ever_offered(flips: float, most: float) -> None:
    """Of 4 that were tried, each turns as many right pictures wrong as wrong ones right; 100 draws of 64 images."""
    bootstrap, offered = bootstrap_of(4), 0
    for seed in range(100):
        draw = torch.Generator().manual_seed(seed)
        base = (torch.rand(64, generator=draw) < 0.5).double()
        without = mean_score("adherence", base, bootstrap=bootstrap)
        tried = []
        for _ in range(4):
            flipped = (torch.rand(64, generator=draw) < flips).double()
            figure = mean_score("adherence", (base - flipped).abs(), bootstrap=bootstrap)
            tried.append(Negative("text", 64, figure, advantage(figure, without)))
        offered += Negatives("adherence", tried).text is not None
    assert offered / 100 <= most


def test_of_several_that_help_the_one_that_gains_most_is_taken() -> None:
    tried = [
        Negative("a", 64, None, Difference(0.1, 0.01, 0.2, True)),
        Negative("b", 64, None, Difference(0.2, 0.05, 0.3, True)),
        Negative("c", 64, None, Difference(0.3, -0.1, 0.6, False)),
        Negative("lost", 64, None, None),
    ]
    found = Negatives("adherence", tried, 0.9875)
    assert found.text == "b"
    assert found.words == [
        'The negative prompt "b" helps: adherence is better by 20.0% (5.0% to 30.0%, at 98.75% as 4 were tried), on '
        "the same 64 images"
    ]
    assert [one["helps"] for one in found.to_json()["tried"]] == [True, True, False, False]
    alone = Negatives("clip", tried[2:3])
    assert alone.words == ["No negative prompt helps: the interval of its gain does not lie above 0, at 95%"]
    cut = Negatives("clip", tried[2:3], cut="20 of 64 images")
    assert cut.words[0] == "Not all negative prompts were measured: 20 of 64 images"


def test_the_usual_ones_of_scenes_are_words_that_their_training_knew() -> None:
    from fewstep.zoo.scenes.scene import COLOURS, SHAPES

    known = {*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES)}
    assert all(set(text.split()) <= known for text in usual_negatives("scenes"))
    assert 2 <= len(usual_negatives("words")) <= 8
