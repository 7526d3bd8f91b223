"""The user's configuration: defaults that are used, shown, and never in the way of what is given."""

from pathlib import Path

import pytest

from fewstep.drawing import read
from models import tiny_diffusers

from .conftest import Call

QUICK = ("--steps", 1, "--output", "a.png")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


@pytest.fixture
def config(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = here / "home/fewstep/config.toml"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "home"))
    return path


def test_a_default_negative_prompt_is_used_and_said(call: Call, config: Path, model: Path) -> None:
    config.write_text('[generate]\nnegative = "blue"\nguidance = 3\nbatch-size = 2\n')
    result = call("generate", model, "lion", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert f"from {config}: negative='blue' guidance=3.0 batch=2" in result.stderr
    stamp = read("a.png")
    assert (stamp.drawing.negative, stamp.drawing.guidance.scale, stamp.made.batch) == (("blue",), 3.0, 2)
    result = call("generate", model, "lion", "--negative", "red", *QUICK)
    assert read("a.png").drawing.negative == ("red",)
    assert f"from {config}: guidance=3.0 batch=2" in result.stderr
    result = call("generate", model, "lion", "--no-config", *QUICK)
    assert read("a.png").drawing.negative == (None,)
    assert str(config) not in result.stderr


def test_many_images_have_the_defaults_too(call: Call, config: Path, model: Path) -> None:
    config.write_text('[generate]\nnegative = "blue"\nbatch-size = "auto"\n')
    result = call("batch", model, "lion", "--seeds", "0-1", "--steps", 1, "--output", "a")
    assert result.exit_code == 0, result.stderr
    assert Path("a/manifest.jsonl").read_text().count('"negative": ["blue"]') == 2
    assert "2 images in batches of 2" in result.stderr
    assert call("generate", model, "lion", *QUICK).exit_code == 0  # for one image auto means nothing
    assert read("a.png").made.batch == 4


def test_a_negative_prompt_that_cannot_act_is_said(call: Call, config: Path, model: Path) -> None:
    config.write_text('[generate]\nnegative = "blue"\n')
    result = call("generate", model, "lion", "--guidance", 1, *QUICK)
    assert "the negative prompt has no effect" in result.stderr


def test_a_model_of_classes_takes_what_it_can_and_says_what_not(call: Call, config: Path) -> None:
    config.write_text('[generate]\nnegative = "blue"\nsteps = 2\npreset = "best"\nheight = 8\n')
    result = call("generate", "tiny.safetensors", "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    assert f"from {config}: steps=2 preset='best'\n" in result.stderr
    assert "not used by a model of classes: negative, height" in result.stderr
    assert read("a.png").drawing.sampling.steps == 2


def test_what_a_picture_a_plan_a_preset_or_times_decide_stays(call: Call, config: Path, model: Path) -> None:
    call("generate", "tiny.safetensors", *QUICK)
    call("plan", "ddim", "--steps", 3, "--output", "plan.json")
    config.write_text('[generate]\nsampler = "heun"\nsteps = 7\ngrid = "karras"\n')
    assert call("redraw", "a.png", "tiny.safetensors", "--output", "b.png").exit_code == 0
    assert read("b.png").drawing == read("a.png").drawing
    result = call("generate", "tiny.safetensors", "--times", "900,300,-1", "--output", "b.png")
    assert result.exit_code == 0, result.stderr
    assert (len(read("b.png").drawing.sampling.times), read("b.png").drawing.sampling.sampler) == (3, "heun")
    result = call("generate", "tiny.safetensors", "--plan", "plan.json", "--output", "b.png")
    assert result.exit_code == 0, result.stderr
    assert str(config) not in result.stderr
    assert (read("b.png").drawing.sampling.plan.steps) == 3
    result = call("generate", model, "lion", "--preset", "realtime", "--output", "b.png")
    assert result.exit_code == 0, result.stderr
    assert (read("b.png").drawing.sampling.steps, read("b.png").drawing.sampling.sampler) == (4, "ddim")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[generate]\nnegativ = 'x'", "unknown key of [generate]"),
        ("[generate]\nnegativ = 'x'", "did you mean 'negative'"),
        ("[genrate]\n", "did you mean 'generate'"),
        ("generate = 3", "generate has to be a table"),
        ("[generate]\nsteps = 0", "steps: 0 is not in the range 1<=x<=10000"),
        ("[generate]\nsteps = 8.5", "steps has to be a whole number, got 8.5"),
        ("[generate]\nsteps = true", "steps has to be a whole number, got True"),
        ("[generate]\nnegative = 3", "negative has to be a text, got 3"),
        ("[generate]\nbatch-size = 'many'", "batch-size: 'many' is neither auto nor"),
        ("[generate", "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_named(call: Call, config: Path, text: str, message: str) -> None:
    config.write_text(text)
    result = call("generate", "tiny.safetensors", *QUICK)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("a.png").exists()
    assert call("generate", "tiny.safetensors", "--no-config", *QUICK).exit_code == 0


def test_the_variable_names_another_file(call: Call, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[generate]\nsteps = 5\n")
    Path("mine.toml").write_text("[generate]\nsteps = 4\n")
    monkeypatch.setenv("FEWSTEP_CONFIG", "mine.toml")
    assert "from mine.toml: steps=4" in call("generate", "tiny.safetensors", "--output", "a.png").stderr
    monkeypatch.setenv("FEWSTEP_CONFIG", "absent.toml")
    result = call("generate", "tiny.safetensors", "--output", "a.png")
    assert (result.exit_code, "FEWSTEP_CONFIG names 'absent.toml'" in result.stderr) == (2, True)
