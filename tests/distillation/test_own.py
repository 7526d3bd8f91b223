"""A method of somebody's own, by the path of its file and the name of its class."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewstep import InvalidInput
from fewstep.distillation import is_path, method_class
from fewstep.training import Memory, memory_of, one_stage

MIMIC = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
import fewstep as fs
from fewstep.training import Needs, one_stage

@dataclass(frozen=True)
class Mimic:
    name: ClassVar[str] = "mimic"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)
    rows: int = 8

    def phase(self, step, steps):
        return one_stage(step, steps)

    def losses(self, roles, batch, phase, draws):
        yield from ()

    def plan(self, network):
        return fs.compile("ddim", schedule=network.schedule, steps=self.rows)

class Half:
    name = "half"
    def phase(self, step, steps):
        return None
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "method.py"
    found.write_text(MIMIC)
    return found


def test_a_class_in_a_file_is_a_method(path: Path) -> None:
    method = method_class(f"{path}:Mimic")(rows=3)  # type: ignore[call-arg]
    assert (method.name, method.rows) == ("mimic", 3)  # type: ignore[attr-defined]
    assert method.phase(4, 10) == one_stage(4, 10)
    assert memory_of(method) == Memory(graphs=1, copies=0)


@pytest.mark.parametrize(("name", "whether"), [("regression", False), ("a/b.py:C", True), ("b.py", True)])
def test_only_the_name_of_a_file_is_taken_for_one(name: str, whether: bool) -> None:
    assert is_path(name) is whether


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("method.py", r"name the class too, as .*method.py:Mimic; .* has Mimic, Half"),
        ("method.py:Mimik", "did you mean 'Mimic'"),
        ("method.py:Needs", "unknown class of .*method.py"),
        (
            "method.py:Half",
            r"is not a method, as it has no @dataclass\(frozen=True\) above it, no needs, a ClassVar\[Needs\], no "
            "function losses, no function plan",
        ),
        ("none.py:Mimic", "none.py is not a file"),
        ("broken.py:Mimic", r"broken.py cannot be run \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_what_is_not_a_method_is_refused_in_words(path: Path, name: str, words: str) -> None:
    (path.parent / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InvalidInput, match=words):
        method_class(str(path.parent / name))
