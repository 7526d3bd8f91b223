"""What is imported when: heavy packages only by those who ask for them."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = {"diffusers", "transformers", "sklearn", "scipy", "k_diffusion", "matplotlib", "ray", "fastapi", "gradio"}
SCREEN = {"click", "rich", "typer", "tqdm"}


def loaded_by(code):
    """The top-level packages that a fresh interpreter has loaded after `code`."""
    report = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_import_fewstep_loads_nothing_heavy():
    assert not loaded_by("import fewstep") & (EXTRAS | SCREEN | {"torch", "numpy", "PIL", "safetensors"})


def test_the_ground_floors_need_no_torch():
    code = (
        "import pkgutil, importlib, fewstep.core, fewstep.solvers, fewstep.schedules\n"
        "for package in (fewstep.core, fewstep.solvers):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "import fewstep as fs\n"
        "for name in fs.SAMPLERS:\n"
        "    fs.compile(name, schedule=fs.schedules.linear(), steps=3)\n"
    )
    packages = loaded_by(code)
    assert "numpy" in packages
    assert not packages & (EXTRAS | SCREEN | {"torch", "PIL", "safetensors"})


def test_sampling_needs_torch_and_numpy_only():
    code = (
        "import fewstep as fs\n"
        "plan = fs.compile('ddim', schedule=fs.schedules.edm(), steps=2)\n"
        "fs.sample(plan, fs.clip(fs.Network(lambda x, t: x, fs.schedules.edm())), shape=(1, 2))\n"
    )
    packages = loaded_by(code)
    assert {"torch", "numpy"} <= packages
    assert not packages & (EXTRAS | {"click", "typer", "PIL", "safetensors"})


def test_a_room_is_there_before_others_have_loaded_it():
    assert "torch" in loaded_by(
        "import fewstep as fs; fs.scenes.held_out_prompts(1); assert fs.scenes is fs.zoo.scenes"
    )


def test_every_public_name_is_there_and_no_other():
    import fewstep as fs

    assert sorted(fs.__all__) == sorted(set(fs.__all__)) == sorted(dir(fs))
    for name in fs.__all__:
        assert getattr(fs, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'sampel'; it has APG, "):
        fs.sampel  # noqa: B018


@pytest.mark.parametrize("package", ["fewstep", "fewstep.core", "fewstep.denoise", "fewstep.run"])
def test_editors_and_python_find_the_same_names_in_the_same_places(package):
    """Type checkers read the imports under TYPE_CHECKING and a plain `__all__`, Python the homes of names."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    rooms = getattr(module, "_ROOMS", {})
    seen = {name.name: f"{one.module}.{name.name}" for one in checked.body for name in one.names}
    homes = {name: f"{home}.{name}" for name, home in module._HOME.items()} | rooms
    assert seen == homes
    plain = {name.name for one in tree.body if isinstance(one, ast.ImportFrom) for name in one.names}
    assert set(homes) <= set(module.__all__) <= set(homes) | plain
