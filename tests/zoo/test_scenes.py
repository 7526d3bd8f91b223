"""Scenes: what is described is drawn, what is drawn is read, and the two agree."""

from dataclasses import replace

import numpy as np
import pytest

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.prompts import adherence, held_out_prompts
from fewstep.zoo.scenes.scene import (
    COLOURS,
    GAP,
    SHAPES,
    Description,
    Group,
    Scene,
    Thing,
    crowded,
    described,
    draw_description,
    placed,
)

RED_CIRCLE, BLUE_SQUARE = Group(1, "red", "circle", "large"), Group(1, "blue", "square", None)
PAIR = Description((RED_CIRCLE, BLUE_SQUARE), "left of", "white")


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    found = [described(rng) for _ in range(count)]
    return found, [placed(description, rng) for description in found]


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (PAIR, "a large red circle left of a blue square on a white background"),
        (Description((Group(3, "orange", "star", "small"),), None, None), "three small orange stars"),
        (Description((Group(1, "orange", None, None),), None, "gray"), "an orange shape on a gray background"),
        (Description((Group(1, None, "circle", None), BLUE_SQUARE), None, None), "a circle and a blue square"),
    ],
)
def test_the_plain_caption_says_what_is_described(description, text):
    assert caption(description) == text


def test_captions_vary_and_a_turned_relation_means_the_same():
    rng = np.random.default_rng(0)
    said = {caption(PAIR, rng) for _ in range(500)}
    assert len(said) > 60
    assert any("blue square to the right of" in text for text in said)
    assert not any("blue square to the left of" in text for text in said)


def test_drawn_scenes_are_read_as_described():
    descriptions, scenes = drawn(300)
    readings = [read_picture(picture(scene)) for scene in scenes]
    right = [adheres(reading, description) for reading, description in zip(readings, descriptions, strict=True)]
    assert np.mean(right) > 0.995
    others = [adheres(reading, descriptions[i - 7]) for i, reading in enumerate(readings)]
    assert np.mean(others) < 0.02


def test_a_reading_names_every_thing_and_its_place():
    scene = Scene("gray", (Thing("green", "star", 16.0, 20.0, 12.0), Thing("purple", "triangle", 45.0, 48.0, 7.0)))
    reading = read_picture(picture(scene))
    assert reading.background == "gray"
    things = {thing.colour: thing for thing in reading.things}
    assert (things["green"].shape, things["green"].size) == ("star", "large")
    assert (things["purple"].shape, things["purple"].size) == ("triangle", "small")
    assert things["green"].x == pytest.approx(16, abs=1)
    assert things["purple"].y == pytest.approx(46.5, abs=1.5)  # the middle of the box, not of the circle around


@pytest.mark.parametrize(
    "change",
    [
        {"groups": (replace(RED_CIRCLE, colour="green"), BLUE_SQUARE)},
        {"groups": (replace(RED_CIRCLE, shape="star"), BLUE_SQUARE)},
        {"groups": (replace(RED_CIRCLE, size="small"), BLUE_SQUARE)},
        {"groups": (RED_CIRCLE,), "relation": None},
        {"groups": (BLUE_SQUARE, RED_CIRCLE)},
        {"relation": "above"},
        {"background": "black"},
    ],
    ids=str,
)
def test_each_attribute_that_is_wrong_counts(change):
    scene = Scene("white", (Thing("blue", "square", 45.0, 30.0, 9.0), Thing("red", "circle", 16.0, 33.0, 12.5)))
    reading = read_picture(picture(scene))
    assert adheres(reading, PAIR)
    assert not adheres(reading, replace(PAIR, **change))


def test_noise_and_a_plain_picture_show_nothing():
    assert read_picture(np.full((64, 64, 3), 250, np.uint8)).things == ()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert not any(thing.shape in ("circle", "triangle", "star") for thing in read_picture(noise).things)


def test_a_scene_fits_its_description_with_things_apart():
    for description, scene in zip(*drawn(100, seed=1), strict=True):
        named = [group for group in description.groups for _ in range(group.count)]
        assert len(scene.things) == len(named)
        for thing, group in zip(scene.things, named, strict=True):
            assert group.colour in (None, thing.colour)
            assert group.shape in (None, thing.shape)
    full = crowded(np.random.default_rng(3))
    assert len(full.things) >= 3
    assert {t.colour for t in full.things} <= set(COLOURS)
    assert {t.shape for t in full.things} <= set(SHAPES)
    for i, a in enumerate(full.things):
        for b in full.things[:i]:
            assert np.hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius + GAP


def test_a_twentieth_is_held_out_whichever_thing_is_named_first():
    rng = np.random.default_rng(2)
    found = [described(rng) for _ in range(4000)]
    assert 0.03 < np.mean([d.held_out for d in found]) < 0.07
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: None}
    for d in found:
        assert replace(d, groups=d.groups[::-1], relation=turned[d.relation]).held_out == d.held_out
    assert not any(draw_description(rng, held_out=False).held_out for _ in range(200))


def test_held_out_prompts_are_the_same_each_time_and_grow_from_the_start():
    prompts = held_out_prompts(50)
    assert prompts == held_out_prompts(80)[:50]
    assert all(prompt.description.held_out for prompt in prompts)
    assert prompts != held_out_prompts(50, seed=1)


def test_adherence_is_the_share_of_right_pictures():
    prompts, rng = held_out_prompts(20), np.random.default_rng(0)
    pictures = [picture(placed(prompt.description, rng)) for prompt in prompts]
    assert adherence(pictures, prompts) == 1.0
    assert adherence([*pictures[:15], *[np.zeros((64, 64, 3), np.uint8)] * 5], prompts) == 0.75
    with pytest.raises(InvalidInput, match="19 pictures for 20 prompts"):
        adherence(pictures[:19], prompts)
    with pytest.raises(InvalidInput, match=r"uint8 of \(64, 64, 3\), got uint8 \(32, 64, 3\)"):
        adherence([p[:32] for p in pictures], prompts)


ARROW = ((0.0, -1.0), (0.8, 0.0), (0.25, 0.0), (0.25, 0.9), (-0.25, 0.9), (-0.25, 0.0), (-0.8, 0.0))
"""A shape that the scenes have not."""


def test_a_further_shape_is_painted_and_read_and_the_others_stay():
    _, scenes = drawn(40, seed=3)
    first = [scene.things[0]._replace(shape="arrow", x=32.0, y=32.0) for scene in scenes]
    things = [thing._replace(radius=radius) for thing in first for radius in (7.0, 12.0)]
    pictures = [picture(Scene("pink", (thing,)), {"arrow": ARROW}) for thing in things]
    found = [read_picture(pixels, {"arrow": ARROW}).things[0] for pixels in pictures]
    assert {one.shape for one in found} == {"arrow"}
    assert [one.size for one in found] == ["small", "large"] * 40
    assert {read_picture(pixels).things[0].shape for pixels in pictures} != {"arrow"}
    readings = [(read_picture(picture(scene)), read_picture(picture(scene), {"arrow": ARROW})) for scene in scenes]
    assert all(before == after for before, after in readings)
