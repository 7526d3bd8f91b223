from pathlib import Path

import pytest

from fewstep.pipeline import Pipeline, load

from .tiny import write


@pytest.fixture
def pipe(tmp_path: Path) -> Pipeline:
    return load(write(tmp_path / "tiny.safetensors"))
