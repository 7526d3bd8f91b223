"""`--device`, `--dtype` and the rest reach the loading of every command that has them."""

import pytest

import fewstep.pipeline
from fewstep.core.errors import InvalidInput

from .conftest import Call

WORDS = {
    "generate": [],
    "compare": ["--steps", "2"],
    "compare, over scales": ["--guidance", "1,2"],
    "tune": ["--nfe", "4"],
}


@pytest.mark.parametrize("command", WORDS)
def test_where_a_model_runs_is_for_loading(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    seen = {}

    def load(source: str, **given: object) -> None:
        seen.update(given, source=source)
        raise InvalidInput("seen")

    monkeypatch.setattr(fewstep.pipeline, "load", load)
    where = ["--device", "cuda:1", "--dtype", "float16", "--variant", "fp16", "--model-config", "a/b", "--allow-pickle"]
    result = call(command.split(",")[0], "model", *WORDS[command], *where)
    assert (result.exit_code, "seen" in result.stderr) == (2, True)
    seen.pop("cache", None)
    assert seen == {
        "source": "model", "device": "cuda:1", "dtype": "float16", "variant": "fp16", "config": "a/b",
        "allow_pickle": True,
    }  # fmt: skip


@pytest.mark.parametrize("command", ["compare", "tune"])
def test_an_unknown_dtype_is_refused(call: Call, command: str) -> None:
    result = call(command, *WORDS[command], "--dtype", "float61")
    assert result.exit_code == 2
    assert "did you mean 'float16'" in result.stderr
