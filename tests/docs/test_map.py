"""The map of CONTRIBUTING.md is the order of the layers that `make check` enforces."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def layers():
    """The rooms of each layer, top first, without those that may be absent."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    house = next(each for each in contracts if each.get("containers") == ["fewstep"])
    rooms = [[room.strip() for room in layer.split("|")] for layer in house["layers"]]
    there = [[room for room in layer if not room.startswith("(")] for layer in rooms]
    return [layer for layer in there if layer]


def mapped():
    """(room, what is in it) of the map, top first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- begin map -->\n(.*?)<!-- end map -->", text, re.DOTALL)
    return re.findall(r"^ {4}(\w+) +(\S.*)$", block[1], re.MULTILINE)


def test_the_map_names_the_rooms_in_the_order_of_the_layers():
    assert [room for room, _ in mapped()] == list(chain(*layers()))


def test_every_room_of_the_map_is_there_and_says_what_is_in_it():
    for room, words in mapped():
        path = ROOT / "src" / "fewstep" / room
        assert path.is_dir() or path.with_suffix(".py").is_file(), room
        assert len(words) > 10, room
