"""The room is told to forms and commands that have to be quick: it loads no torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["fewstep.drawing", "fewstep.denoise.methods"])
def test_torch_stays_unimported(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'safetensors'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_drawings_are_made_read_and_checked_without_torch() -> None:
    code = (
        "import sys, fewstep.drawing as d\n"
        "made = d.Drawing(labels=[1], height=4, width=4, sampling=d.Sampling('ddim', steps=2, grid='trailing'),\n"
        "    guidance=d.Guidance(2.0, method='apg', eta=0.5))\n"
        "stamp = d.Stamp(drawing=made, layout=d.Layout.fitting(1, 4),\n"
        "    made=d.Made(model='m', model_digest='0' * 16, plan='0' * 16, batch=1))\n"
        "assert d.Stamp.read(stamp.text) == stamp\n"
        "print('torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
