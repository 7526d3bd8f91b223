"""A sample that cannot be read is named, replaced by the next one, and counted; too many stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from PIL import Image

from fewstep import InvalidInput
from fewstep.data import Sample, Skipped, Told, Tolerant, Unreadable


class Holes:
    """Samples of which some cannot be read."""

    told: ClassVar[Told] = "labels"
    classes: ClassVar[int] = 2
    identity: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, count: int, holes: set[int]) -> None:
        self.count, self.holes = count, holes
        self.asked: list[int] = []

    def name(self, number: int) -> str:
        return f"file {number}"

    def read(self, number: int) -> Sample:
        self.asked.append(number)
        if number in self.holes:
            raise Unreadable(f"file {number} is damaged")
        return Sample(Image.new("L", (2, 2)), number)


def test_the_next_one_that_can_be_read_takes_its_place() -> None:
    found = Tolerant(Holes(10, {3, 4, 9}))
    with pytest.warns(Skipped) as said:
        assert found.read(3).subject == 5
    assert [str(one.message) for one in said] == [
        f"left out, the next one takes its place: file {number} is damaged" for number in (3, 4)
    ]
    with pytest.warns(Skipped, match="file 9"):
        assert found.read(9).subject == 0  # round the end
    assert sorted(found.lost) == [3, 4, 9]


def test_each_is_named_once_and_not_read_again() -> None:
    source = Holes(10, {3})
    found = Tolerant(source)
    with pytest.warns(Skipped):
        found.read(3)
    assert found.read(3).subject == 4  # of which no warning comes, which would be an error here
    assert source.asked.count(3) == 1


def test_what_takes_its_place_does_not_depend_on_what_was_met_before() -> None:
    with pytest.warns(Skipped):
        late = [Tolerant(Holes(30, {3, 4})).read(number).subject for number in (4, 3)]
    with pytest.warns(Skipped):
        early = [Tolerant(Holes(30, {3, 4})).read(number).subject for number in (3, 4)]
    assert late == early == [5, 5]


@pytest.mark.parametrize(("count", "most"), [(100, 10), (2000, 20)])
@pytest.mark.filterwarnings("ignore::fewstep.data.Skipped")
def test_more_than_ten_and_more_than_a_hundredth_stop(count: int, most: int) -> None:
    found = Tolerant(Holes(count, set(range(0, 2 * count, 2))))
    for number in range(0, 2 * most, 2):
        found.read(number)
    with pytest.raises(
        InvalidInput, match=rf"{most + 1} of {count} samples cannot be read \(file 0, file 2, .* \.\.\)"
    ):
        found.read(2 * most)


@pytest.mark.filterwarnings("ignore::fewstep.data.Skipped")
def test_where_none_can_be_read_it_stops() -> None:
    with pytest.raises(InvalidInput, match="none of 3 samples can be read: file 1 is damaged"):
        Tolerant(Holes(3, {0, 1, 2})).read(1)
