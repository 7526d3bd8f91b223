"""Values as they are typed."""

from typing import Any

import click
import pytest

from fewstep import schedules
from fewstep.cli.values import LABELS, ScheduleName, Span, mapping, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-0.5", -0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("none", None), ("bh2", "bh2")],
)
def test_a_scalar_is_what_it_looks_like(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_labels_may_be_ranges_and_none() -> None:
    assert LABELS.convert("3, 0-2,none,7", None, None) == (3, 0, 1, 2, None, 7)


@pytest.mark.parametrize(("text", "span"), [("0.2,5", (0.2, 5.0)), (",5", (0.0, 5.0)), ("1,", (1.0, float("inf")))])
def test_a_span_may_lack_an_end(text: str, span: tuple[float, float]) -> None:
    assert Span().convert(text, None, None) == span


def test_a_schedule_has_parameters_after_a_colon() -> None:
    assert ScheduleName().convert("flow:shift=3", None, None) == schedules.flow(shift=3)
    given = ScheduleName().convert("linear:beta-end=0.03,zero_snr=true", None, None)
    assert given == schedules.linear(beta_end=0.03, zero_snr=True)


def test_a_key_given_twice_is_refused() -> None:
    assert mapping([("a", 1), ("b", 2)], "--option") == {"a": 1, "b": 2}
    with pytest.raises(click.UsageError, match="--option a is given twice"):
        mapping([("a", 1), ("a", 2)], "--option")
