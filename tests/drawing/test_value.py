"""Values: nothing is coerced, errors name the field, and JSON reads back to the same bits."""

import copy
import json
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewstep as fs
from fewstep.drawing import Drawing, Estimate, Guidance, Sampling, Source

SAMPLERS = {"ddim": {"eta": 0.5}, "unipc-3": {}, "edm": {"s_churn": 10.0}}


def drawing(**changes: Any) -> Drawing:
    fields = {
        "prompts": ("a red circle",),
        "height": 64,
        "width": 64,
        "sampling": Sampling("ddim", steps=4, grid="trailing", eta=0.5),
        "guidance": Guidance(5.0, method="apg", norm_limit=2.5),
    }
    return Drawing(**{**fields, **changes})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"height": True}, "height has to be a valid integer, got True"),
    ({"height": 64.0}, "height has to be a valid integer, got 64.0"),
    ({"height": "64"}, "height has to be a valid integer, got '64'"),
    ({"height": None}, "height has to be a valid integer, got None"),
    ({"count": 0}, "count has to be greater than or equal to 1, got 0"),
    ({"count": math.nan}, "count has to be a valid integer, got nan"),
    ({"seed": -1}, "seed .*got -1"),
    ({"seed": 2**64}, "seed .*got 18446744073709551616"),
    ({"seed": (1, True)}, r"seed\.1 has to be a valid integer, got True"),
    ({"prompts": "a red circle"}, "prompts has to be a valid tuple, got 'a red circle'"),
    ({"prompts": ("a", None)}, r"prompts\.1 has to be a valid string, got None"),
    ({"prompts": (b"a",)}, r"prompts\.0 has to be a valid string"),
    ({"prompts": ()}, "prompts has to have at least 1 item"),
    ({"promts": ("a",)}, r"unknown field of the drawing 'promts': did you mean 'prompts'\?"),
    ({"guidance": 5.0}, r"guidance has to be .*Guidance, got 5\.0"),
    ({"guidance": None}, "guidance has to be .*Guidance, got None"),
    ({"guidance": {"scale": 5.0, "method": ["cfg"]}}, "guidance.*unknown guidance method"),
    ({"guidance": {"scale": 5.0, "options": 0}}, "guidance.*mapping"),
    ({"guidance": {"scale": 5.0, "options": {"rescale": True}}}, "guidance.*rescale is a finite number, got True"),
    ({"sampling": "ddim"}, "sampling has to be .*Sampling, got 'ddim'"),
    ({"guidance": {"scale": "5"}}, r"guidance\.scale has to be a valid number, got '5'"),
    ({"guidance": {"scale": True}}, r"guidance\.scale has to be a valid number, got True"),
    ({"guidance": {"scale": math.nan}}, r"guidance\.scale has to be a finite number, got nan"),
    ({"guidance": {"scale": math.inf}}, r"guidance\.scale has to be a finite number, got inf"),
    ({"guidance": {"scale": (1.0, -math.inf)}}, r"guidance\.scale\.1 has to be a finite number, got -inf"),
    ({"guidance": {"scale": 5.0, "interval": (math.nan, 1.0)}}, r"guidance\.interval\.0 has to be a finite number"),
    ({"guidance": {"scale": 5.0, "interval": (0.0, math.nan)}}, r"guidance\.interval"),
    ({"guidance": {"scale": 5.0, "interval": (0.0, -math.inf)}}, r"guidance\.interval: it needs 0 <= low < high"),
    ({"guidance": {"scale": 5.0, "interval": (math.inf, math.inf)}}, r"guidance\.interval"),
    ({"guidance": {"scale": 5.0, "eta": 1.0}}, "unknown option of the guidance method cfg 'eta'"),
    ({"guidance": {"scale": 5.0, "metod": "apg"}}, "unknown option of the guidance method cfg 'metod'"),
    ({"guidance": {"scale": 5.0, "weaker": "../../etc"}}, r"guidance\.weaker"),
    ({"guidance": {}}, r"guidance\.scale"),
    ({"sampling": {"sampler": "ddim", "steps": 4.0, "grid": "trailing"}}, r"sampling\.steps .*got 4\.0"),
    ({"sampling": {"sampler": "ddim", "steps": 4, "grid": "trailling"}}, "did you mean 'trailing'"),
    ({"sampling": {"sampler": "ddin", "steps": 4, "grid": "trailing"}}, "did you mean 'ddim'"),
    ({"sampling": {"sampler": "ddim", "times": (1.0,)}}, r"sampling\.times .*at least 2"),
    ({"sampling": {"sampler": "ddim", "times": (math.inf, 1.0)}}, r"sampling\.times\.0 has to be a finite number"),
    ({"sampling": {"sampler": "ddim", "steps": 4, "grid": "trailing", "eta": math.nan}}, "options are .*finite"),
    ({"estimate": {"clip": 1}}, r"estimate\.clip has to be a valid boolean, got 1"),
    ({"estimate": {"clip": "yes"}}, r"estimate\.clip has to be a valid boolean, got 'yes'"),
    ({"estimate": {"clop": True}}, "unknown field of the estimate 'clop': did you mean 'clip'"),
    ({"decode": {"tild": True}}, "unknown field of the decoding 'tild': did you mean 'tiled'"),
    ({"source": {"task": "img2img", "picture": "0" * 15}}, r"source\.picture"),
    ({"source": {"task": "img2img", "picture": "0" * 16, "strength": 0.0}}, r"source\.strength .*got 0\.0"),
    ({"source": {"task": "img2img", "picture": "0" * 16, "strength": True}}, r"source\.strength .*got True"),
    ({"source": {"task": "inpaint", "picture": "0" * 16}}, "a mask is for inpaint"),
    ({"source": {"task": "edit", "picture": "0" * 16}}, "a prompt of the picture for edit"),
    ({"labels": (1,)}, "prompts, or labels, and not both"),
    ({"prompts": None}, "prompts, or labels, and not both"),
    ({"negative": ("a", "b")}, "one negative, or one for each of the 1 subjects, got 2"),
    ({"count": 10_000, "prompts": ("a", "b")}, "1 to 10,000 images, got 20,000: use a lower count"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_nothing_is_coerced_and_errors_name_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        drawing(**changes)


def test_whole_numbers_are_numbers_and_lists_and_arrays_are_several() -> None:
    made = drawing(guidance={"scale": 5, "interval": [0, 2]}, seed=range(1), prompts=["a"])
    assert (made.guidance.scale, type(made.guidance.scale)) == (5.0, float)
    assert (made.guidance.interval, made.seed, made.prompts) == ((0.0, 2.0), (0,), ("a",))
    labels = Drawing(**{**dict(drawing()), "prompts": None, "labels": torch.tensor([2, 0])})
    assert (labels.labels, type(labels.subjects[0])) == ((2, 0), int)


def test_an_infinite_number_is_written_out_where_it_is_allowed() -> None:
    made = drawing(estimate=Estimate(threshold=(0.9, math.inf)))
    document = made.to_json()
    assert (document["guidance"]["interval"], document["estimate"]["threshold"]) == ([0.0, "inf"], [0.9, "inf"])
    assert Drawing.read(made.text) == made
    for wrong in ("Infinity", "NaN", "-Infinity"):
        with pytest.raises(fs.InvalidInput, match=f"the drawing is not JSON .*{wrong} is not JSON"):
            Drawing.read(made.text.replace('"inf"', wrong))
    with pytest.raises(fs.InvalidInput, match=r"interval\.1 has to be a valid number, got '-inf'"):
        Drawing.read(made.text.replace('"inf"', '"-inf"'))


def test_text_that_is_no_object_is_refused() -> None:
    for text, message in (("[]", r"the drawing is \[\]; it has to be an object"), ("{", "is not JSON"), ("7", "is 7;")):
        with pytest.raises(fs.InvalidInput, match=message):
            Drawing.read(text)
    with pytest.raises(fs.InvalidInput, match="is not JSON"):
        Drawing.read("[" * 100_000)


def test_a_value_cannot_be_changed_nor_what_is_in_it() -> None:
    made = drawing()
    for change in (
        lambda: setattr(made, "seed", 3),
        lambda: setattr(made.guidance, "scale", 3.0),
        lambda: made.guidance.options.__setitem__("eta", 1.0),
        lambda: made.sampling.options.update(eta=1.0),  # type: ignore[attr-defined]
        lambda: made.prompts.__setitem__(0, "b"),  # type: ignore[union-attr]
        lambda: delattr(made, "seed"),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            change()
    layers = ["mid", "up"]
    guided = Guidance(1.0, method="pag", layers=layers)
    layers.append("down")
    assert guided.options["layers"] == ("mid", "up")
    assert hash(guided) == hash(Guidance(1.0, method="pag", options={"layers": ("mid", "up")}))


def test_values_are_pickled_and_copied() -> None:
    made = drawing(estimate=Estimate(threshold=(0.9, math.inf)))
    plan = fs.compile("ddim", schedule=fs.schedules.linear(), steps=3)
    for value in (made, made.guidance, Sampling(plan=plan), Source(task="img2img", picture="0" * 16)):
        for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
            assert again == value
            assert again.digest == value.digest


def test_changes_are_validated_again() -> None:
    assert drawing().but(seed=3).seed == 3
    with pytest.raises(fs.InvalidInput, match="seed has to be"):
        drawing().but(seed="3")
    with pytest.raises(fs.InvalidInput, match="unknown field of the drawing 'sed': did you mean 'seed'"):
        drawing().but(sed=3)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SEEDS = st.integers(0, 2**64 - 1)
INTERVALS = st.tuples(st.floats(0, 1e6), st.floats(1e6, exclude_min=True, allow_nan=False))
METHODS = st.one_of(
    st.builds(lambda eta, limit: {"method": "apg", "eta": eta, "norm_limit": limit}, NUMBERS, st.floats(1e-9, 1e9)),
    st.builds(lambda rescale: {"method": "cfg", "rescale": rescale}, st.floats(0, 1)),
    st.builds(
        lambda layers: {"method": "pag", "layers": layers},
        st.lists(st.sampled_from(["mid", "up"]), min_size=1, max_size=32),
    ),
)
GUIDANCES = st.builds(
    lambda scale, interval, method: Guidance(scale, interval=interval, **method),
    NUMBERS | st.lists(NUMBERS, min_size=1, max_size=5).map(tuple),
    INTERVALS,
    METHODS,
)
SAMPLINGS = st.builds(
    lambda name, times: Sampling(name, times=times, options=SAMPLERS[name]),
    st.sampled_from(sorted(SAMPLERS)),
    st.lists(NUMBERS, min_size=2, max_size=5),
) | st.builds(
    lambda name, steps: Sampling(name, steps=steps, grid="karras", grid_options={"rho": 7.0}),
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 10_000),
)
TEXTS = st.text(max_size=40)


@st.composite
def drawings(draw: Any) -> Drawing:
    prompts = tuple(draw(st.lists(TEXTS, min_size=1, max_size=3)))
    count = draw(st.integers(1, 3))
    several = st.lists(SEEDS, min_size=len(prompts) * count, max_size=len(prompts) * count).map(tuple)
    alike = draw(st.booleans())
    return Drawing(
        prompts=prompts,
        negative=tuple(draw(st.lists(st.none() | TEXTS, min_size=1, max_size=1))) * (1 if alike else len(prompts)),
        height=draw(st.integers(1, 16_384)),
        width=draw(st.integers(1, 16_384)),
        seed=draw(SEEDS | several),
        count=count,
        clip_skip=draw(st.none() | st.integers(1, 100)),
        sampling=draw(SAMPLINGS),
        guidance=draw(GUIDANCES),
        estimate=draw(st.sampled_from([Estimate(), Estimate(clip=True), Estimate(threshold=(0.9, math.inf))])),
    )


@settings(max_examples=60, deadline=None)
@given(drawings())
def test_any_drawing_reads_back_to_the_same_bits(made: Drawing) -> None:
    again = Drawing.read(made.text)
    assert again == made
    assert again.text == made.text
    assert made.text.isascii()
    assert json.loads(made.text) == made.to_json()
    assert Drawing.of(made.to_json()).digest == made.digest
    assert hash(again) == hash(made)


@settings(max_examples=60, deadline=None)
@given(drawings(), drawings())
def test_digests_are_equal_where_drawings_are(one: Drawing, other: Drawing) -> None:
    assert (one.digest == other.digest) == (one == other)
    assert one.digest != one.but(seed=(one.seeds[0] + 1) % 2**64).digest


@settings(max_examples=40, deadline=None)
@given(drawings())
def test_each_image_is_a_valid_drawing_of_one(made: Drawing) -> None:
    images = list(made.each)
    assert len(images) == len(made) == len(made.seeds)
    for i, image in enumerate(images):
        assert Drawing.read(image.text) == image
        assert (len(image), image.seeds) == (1, (made.seeds[i],))
        assert image.subjects == (made.subjects[i // made.count],)
        assert image.negative == (made.negative[i // made.count % len(made.negative)],)
        assert (image.sampling, image.guidance) == (made.sampling, made.guidance)
