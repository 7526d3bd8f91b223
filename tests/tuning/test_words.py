"""Certificates in words: what the seconds are of, what was searched, and how many images were for what."""

import pytest

from fewstep.tuning.words import CUT, learned, searched, timed, used


def test_seconds_are_named_in_the_order_of_the_work() -> None:
    assert list(timed({"twice": None, "total": 3.0, "teacher": 1.25})) == [
        ("converged solutions, by the teacher", "1.2 s"),
        ("in all", "3.0 s"),
        ("until a plan had half the error of the best untuned sampler", "never"),
    ]
    assert list(timed({"another": 2.0})) == [("another", "2.0 s")]


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"untuned": 10}, "10 pairs of an untuned sampler and a grid were compared"),
        (
            {"untuned": 247, "variants": 40, "cut": False, "layouts": 9},
            "247 pairs of an untuned sampler and a grid were compared; 40 variants of the best grids were tried; "
            "9 ways to choose the rows that are guided (layouts) were fitted; the search came to its end",
        ),
        ({"untuned": 3, "cut": True}, f"3 pairs of an untuned sampler and a grid were compared; {CUT}"),
    ],
)
def test_what_was_searched_is_a_sentence(search: dict[str, int], said: str) -> None:
    assert searched(search) == said


def test_images_and_learning_are_said_by_their_use() -> None:
    sizes = {"train": 256, "validation": 128, "held_out": 256, "pilot": 16, "rungs": (8, 32)}
    assert used(sizes) == "256 to learn from, 128 to choose by, 256 held out, to compare on"
    assert (
        learned({"iterations": 900, "at_most": 1500, "best": 850})
        == "900 iterations of at most 1500, the best after 850"
    )
