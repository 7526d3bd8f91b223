"""Inputs that mean harm, or come from an accident: words of a command, and files that are edited, cut or none at all.

`strategies` has one for each kind; each gives the words of one command, and writes the files that they name.
"""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import fewstep as fs

Words = list[str]
Draw = Any

TINY, TEXT = "tiny.safetensors", "sd"
CHEAP = ["--steps", "2"]
SMALL = ["--height", "16", "--width", "16", "--steps", "2"]
COMMANDS: dict[str, Words] = {
    "generate": [TINY, "--count", "1", *CHEAP],
    "generate words": [TEXT, "a star", *SMALL],
    "batch": [TINY, "--labels", "1", *CHEAP, "--output", "many"],
    "compare": [TINY, "--labels", "1", "--count", "1", "--steps", "2", "--samplers", "ddim", "--reference-steps", "20"],
    "img2img": [TEXT, "in.png", "a star", *SMALL],
    "inpaint": [TEXT, "in.png", "in.png", "a star", *SMALL],
    "edit": [TEXT, "in.png", "lion", "a star", *SMALL],
    "invert": [TEXT, "in.png", "a star", *SMALL],
    "interpolate": [TEXT, "lion", "a star", "--frames", "2", *SMALL],
    "redraw": ["drawn.png", TINY],
    "plan": ["ddim", *CHEAP],
    "samplers": [],
    "grids": [],
    "doctor": [TINY, "--images", "2"],
}
LONG = "9" * 5000
ODD = st.one_of(
    st.sampled_from(
        [
            "", " ", "-", "--", "0", "-1", "1", "2", "3", "0.5", "1e308", "-1e308", "1e400", "nan", "inf", "-inf",
            "1e-320", LONG, LONG[:400], f"-{LONG[:4000]}", f"eta={LONG}", f"eta={LONG[:400]}", "eta=1", "eta=", "=",
            "a=b=c", "eta=nan", "rho=1e308", "rho=0", ",", ",,,", "1,2", "2-1", "1-", "none", "0.9,1e308", "0.9,nan",
            "1e308,0", "/dev/zero", "/dev/null", "/dev/full/x.png", "/proc/x.png", "pipe", "pipe/x.png", "folder",
            "plan.json", "in.png", "a.png", "x" * 5000, "x" * 300 + ".png", "\udcff", "\ud800", "\udcff.png", "a\0b",
            "\u2028", "\r\n", "\x1b[31m", "ü", "../../x", "cuda", "cuda:99", "meta", "mps", "float16", "int8", "ddim",
            "karras", "unipc-3", "best", "linear:1,1e308", "cosine:nan,1", "cfg", "pag", "apg", "exact", "noise",
            "fp16", "none.png",
        ]
    ),
    st.text(max_size=12),
    st.integers(-(10**30), 10**30).filter(lambda n: not 3 < n < 10**6).map(str),
    st.floats().map(repr),
)  # fmt: skip
"""Words in place of a value: numbers that are no or too large ones, files that are none, characters that are none."""
NUMBERS = [
    None, True, False, 0, 1, -1, 2, 0.5, 1e9, -1e9, 1e308, -1e308, 1e-320, 10**400, -(10**20), 2**63, float("nan"),
    float("inf"), "", "x", "1", "\ud800", "\0", [], {}, [[]], [1], [1.0, 2.0], {"a": 1}, "x" * 5000,
]  # fmt: skip
"""Values in place of one in a JSON document."""


@st.composite
def option(draw: Draw, options: dict[str, list[str]]) -> Words:
    """A command with one to three of its options, each with a word that may be none of its values."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = [name.partition(" ")[0], *COMMANDS[name]]
    for _ in range(draw(st.integers(1, 3))):
        words.append(draw(st.sampled_from(options[words[0]])))
        words += [draw(ODD)] if draw(st.integers(0, 9)) else []
    return words


@st.composite
def argument(draw: Draw) -> Words:
    """A command with a word in the place of another."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = list(COMMANDS[name]) or ["x"]
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(words) - 1))
        words[place] = draw(ODD)
    return [name.partition(" ")[0], *words]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value but the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in items for place in ((*path, key), *places(part, (*path, key)))]


@st.composite
def document(draw: Draw, value: Any) -> Any:
    """A JSON value with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        known = places(value)
        if not known:
            break
        *way, last = draw(st.sampled_from(known))
        place = value
        for key in way:
            place = place[key]
        if draw(st.integers(0, 4)):
            place[last] = copy.deepcopy(draw(st.sampled_from(NUMBERS)))  # which the next change may change
        elif isinstance(place, dict) and draw(st.booleans()):
            place[draw(st.sampled_from(["x", "seed", "plan", "options", "\ud800"]))] = place.pop(last)
        else:
            del place[last]
    return value


def signed(content: dict[str, Any]) -> str:
    """A plan whose digest fits its content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "digest": hashlib.sha256(text.encode()).hexdigest()[:16]})


@st.composite
def plan(draw: Draw) -> Words:
    """A plan that somebody edited, and gave a digest that fits."""
    schedule = fs.schedules.linear()
    name = draw(st.sampled_from(["ddim", "ddpm", "dpmpp-2m", "heun", "lcm", "unipc-3"]))
    content = json.loads(fs.compile(name, schedule=schedule, steps=draw(st.integers(1, 3))).to_json())
    del content["digest"]
    Path("edited.json").write_text(signed(draw(document(content))))
    return ["generate", TINY, "--count", "1", "--plan", "edited.json"]


@st.composite
def recipe(draw: Draw) -> Words:
    """A picture whose recipe somebody edited."""
    with Image.open("drawn.png") as image:
        text, copy_of = image.info["fewstep"], image.copy()
    info = PngInfo()
    info.add_text("fewstep", json.dumps(draw(document(json.loads(text)))))
    copy_of.save("edited.png", pnginfo=info)
    return ["redraw", "edited.png", TINY, "--output", "again.png"]


@st.composite
def damaged(draw: Draw) -> Words:
    """A file of which some bytes are others, or missing, in the place of a picture, a plan, prompts or a model."""
    name = draw(st.sampled_from(["in.png", "in.jpg", "drawn.png", "plan.json", "prompts.jsonl", "prompts.txt", TINY]))
    content = bytearray(Path(name).read_bytes())
    for _ in range(draw(st.integers(1, 8))):
        content[draw(st.integers(0, min(len(content) - 1, 2000)))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    other = f"damaged{Path(name).suffix}"
    Path(other).write_bytes(content)
    whole = {
        "in.png": ["img2img", TEXT, other, "a star", *SMALL],
        "in.jpg": ["inpaint", TEXT, "in.png", other, "a star", *SMALL],
        "drawn.png": ["redraw", other, TINY, "--output", "again.png"],
        "plan.json": ["generate", TINY, "--count", "1", "--plan", other],
        "prompts.jsonl": ["batch", TINY, "--prompts", other, "--output", "many", *CHEAP],
        "prompts.txt": ["batch", TEXT, "--prompts", other, "--output", "texts", *SMALL],
        TINY: ["generate", other, "--count", "1", *CHEAP],
    }
    return whole[name]


@st.composite
def prompts(draw: Draw) -> Words:
    """A line of a file of prompts that says what it may not."""
    line = {
        "label": 1,
        "negative": 0,
        "seed": [1, 2],
        "guidance": {"scale": 2.0, "method": "cfg", "options": {"rescale": 0.5}},
        "sampler": "ddim",
        "steps": 2,
        "grid": "trailing",
        "sampling": {"options": {"eta": 0.5}},
        "estimate": {"clip": True},
    }
    text = json.dumps(draw(document(line)), ensure_ascii=draw(st.booleans()))
    kind = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]))
    Path("edited.jsonl").write_bytes(text.encode(kind, "surrogatepass"))
    return ["batch", TINY, "--prompts", "edited.jsonl", "--output", "many"]


@st.composite
def configuration(draw: Draw) -> Words:
    """A user's own configuration with keys and values of all kinds."""
    values = [
        '"x"',
        "1",
        "-1",
        "1e308",
        "nan",
        "inf",
        "true",
        "[]",
        "{}",
        "1979-05-27",
        LONG,
        '"\\u0000"',
        '"/dev/zero"',
        "'",
    ]
    keys = ["steps", "negative", "sampler", "device", "guidance", "option", "cache", "plan", "weak", "clip", "x", "a b"]
    lines = [f"{draw(st.sampled_from(keys))} = {draw(st.sampled_from(values))}" for _ in range(draw(st.integers(1, 3)))]
    head = draw(st.sampled_from(["[generate]", "[generate]", "[generate]", "", "[x]", "generate = 3"]))
    Path("config.toml").write_text("\n".join([head, *lines]))
    return ["generate", TINY, "--count", "1", "--labels", "1"]


@st.composite
def model(draw: Draw) -> Words:
    """A model whose small files somebody edited."""
    name = draw(st.sampled_from(["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]))
    link = Path("edited")
    if not link.exists():
        for source in sorted(Path(TEXT).rglob("*")):
            target = link / source.relative_to(TEXT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                os.symlink(source.resolve(), target)
    for other in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        (link / other).unlink(missing_ok=True)
        content = (Path(TEXT) / other).read_text()
        (link / other).write_text(json.dumps(draw(document(json.loads(content)))) if other == name else content)
    return ["generate", "edited", "a star", *SMALL]


def strategies(options: dict[str, list[str]]) -> dict[str, st.SearchStrategy[Words]]:
    """One for each kind, by name."""
    return {
        "option": option(options),
        "argument": argument(),
        "plan": plan(),
        "recipe": recipe(),
        "damaged": damaged(),
        "prompts": prompts(),
        "configuration": configuration(),
        "model": model(),
    }


def write_files() -> None:
    """The good files, and the pipe and the folder, in the current folder. The models are there already."""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    picture = Image.effect_noise((24, 16), 50).convert("RGB")
    picture.save("in.png")
    picture.save("in.jpg")
    fs.compile("ddim", schedule=fs.schedules.linear(), steps=2).save("plan.json")
    Path("prompts.jsonl").write_text('{"label": 1, "seed": 3}\n{"label": 2, "steps": 3}\n')
    Path("prompts.txt").write_text("a star\nlion\n")
