"""What a checkpoint says of itself is read, and what contradicts it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import fewstep as fs
from fewstep.models.statements import Claims, Scheduler, settled
from fewstep.pipeline import load
from fewstep.zoo import container

from . import originals
from .tiny_diffusers import SD_SCHEDULER, Twins

Models = Callable[..., Twins]
OTHERS = {"weight": torch.zeros(2)}
ALPHAS = torch.tensor(fs.schedules.scaled_linear().alphas_cumprod)
ENDS_AT_ZERO = torch.tensor(fs.schedules.scaled_linear(zero_snr=True).alphas_cumprod)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[str, bool]]:
    """(prediction, zero_snr) of a file with some metadata and tensors."""

    def found(
        metadata: dict[str, str] | None = None,
        tensors: dict[str, torch.Tensor] | None = None,
        scheduler: dict[str, Any] | None = None,
        own: bool = True,
        **claims: Any,
    ) -> tuple[str, bool]:
        path = tmp_path / "one.safetensors"
        save_file({**OTHERS, **(tensors or {})}, path, metadata=metadata)
        config = {**SD_SCHEDULER, **(scheduler or {})}
        schedule, prediction = settled(
            Scheduler(config, "config.json", own), [container.inspect(path)], Claims(**claims), "give another config"
        )
        return prediction, schedule.spec.get("zero_snr", False)

    return found


@pytest.mark.parametrize(
    ("metadata", "tensors", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, {}, ("v_prediction", False)),
        ({"modelspec.prediction_type": "epsilon"}, {}, ("epsilon", False)),
        ({"ss_v_parameterization": "True"}, {}, ("v_prediction", False)),
        ({"ss_v_parameterization": "False", "modelspec.prediction_type": "epsilon"}, {}, ("epsilon", False)),
        ({"ss_v_parameterization": "None"}, {}, ("epsilon", False)),
        ({"ss_zero_terminal_snr": "True", "ss_v_parameterization": "True"}, {}, ("v_prediction", True)),
        ({}, {"v_pred": torch.zeros(0)}, ("v_prediction", False)),
        ({}, {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}, ("v_prediction", True)),
        ({}, {"alphas_cumprod": ALPHAS.float()}, ("epsilon", False)),
        ({}, {"alphas_cumprod": ENDS_AT_ZERO.half()}, ("epsilon", True)),
        ({}, {"alphas_cumprod": ALPHAS, "ztsnr": torch.zeros(1)}, ("epsilon", True)),
    ],
)
def test_a_file_is_what_it_says(read: Any, metadata: Any, tensors: Any, expected: tuple[str, bool]) -> None:
    assert read(metadata, tensors) == expected
    # a scheduler that is only usual for the kind of the file does not contradict it
    usual = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    assert read(metadata, tensors, usual, own=False) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"metadata": {"modelspec.prediction_type": "v"}, "scheduler": {"prediction_type": "epsilon"}},
            r"one\.safetensors, in its metadata modelspec\.prediction_type, says prediction 'v_prediction', and "
            r"config\.json says 'epsilon': give another config, or give prediction='v_prediction'",
        ),
        (
            {"tensors": {"ztsnr": torch.zeros(1)}, "scheduler": {"rescale_betas_zero_snr": False}},
            r"a tensor ztsnr, which says zero_snr True, and config\.json says False: .* give zero_snr=True",
        ),
        (
            {"metadata": {"ss_v_parameterization": "False"}, "tensors": {"v_pred": torch.zeros(1)}},
            r"a tensor v_pred, which says prediction 'v_prediction', and .* ss_v_parameterization, says 'epsilon': "
            "give prediction= the one that is right",
        ),
        (
            {"metadata": {"modelspec.prediction_type": "v"}, "prediction": "epsilon"},
            r"prediction is given as 'epsilon', and .* says 'v_prediction': leave prediction out",
        ),
        (
            {"tensors": {"alphas_cumprod": ENDS_AT_ZERO}, "zero_snr": False},
            "zero_snr is given as False, and .* ends at 0, which says True",
        ),
        ({"metadata": {"modelspec.prediction_type": "x0-ish"}}, r"'x0-ish', and known are .*: give prediction="),
        ({"metadata": {"ss_zero_terminal_snr": "maybe"}}, r"'maybe', and known are .*: give zero_snr="),
        ({"tensors": {"alphas_cumprod": ALPHAS**2}}, "of another noise schedule than that of config.json"),
        ({"tensors": {"alphas_cumprod": ALPHAS[:500]}}, "of another noise schedule than that of config.json"),
        ({"tensors": {"alphas_cumprod": ALPHAS * float("nan")}}, "of another noise schedule"),
        ({"tensors": {"alphas_cumprod": torch.zeros(2, 3)}}, r"of shape \(2, 3\), which is not a noise schedule"),
        ({"tensors": {"edm_vpred.sigma_max": torch.zeros(1)}}, "as CosXL does: fewstep does not know such a model"),
        ({"prediction": "v"}, "unknown prediction type 'v'"),
        ({"zero_snr": 1}, "zero_snr is True, False or None, got 1"),
    ],
)
def test_contradictions_and_what_is_not_understood_are_refused(read: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        read(**given)


def test_the_caller_decides_between_a_file_and_its_configuration(read: Any) -> None:
    epsilon = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    v = {"modelspec.prediction_type": "v"}
    assert read(v, {}, epsilon, prediction="v_prediction") == ("v_prediction", False)
    assert read({}, {}, epsilon, prediction="v_prediction", zero_snr=True) == ("v_prediction", True)
    assert read({}, {}, {"rescale_betas_zero_snr": True}, zero_snr=False) == ("epsilon", False)
    assert read({"modelspec.prediction_type": "?"}, {}, epsilon, prediction="sample") == ("sample", False)
    both = {"v_pred": torch.zeros(1)}
    assert read({"ss_v_parameterization": "False"}, both, prediction="epsilon") == ("epsilon", False)


def test_a_flow_is_known_by_its_tensors(read: Any) -> None:
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "beta_schedule": None}
    assert read({"modelspec.prediction_type": "epsilon"}, {}, flow)[0] == "flow"
    assert read({}, {}, flow, prediction="flow")[0] == "flow"
    for claim in ({"prediction": "epsilon"}, {"zero_snr": False}):
        with pytest.raises(fs.InvalidInput, match=f"the noise schedule 'flow'.*leave out {next(iter(claim))}"):
            read({}, {}, flow, **claim)


def test_an_original_checkpoint_is_drawn_as_its_metadata_say(models: Models, tmp_path: Path) -> None:
    whole, own, folder = models("sd2")
    path = originals.write(tmp_path / "v.safetensors", **originals.sd_parts(own))
    tensors = container.inspect(path).tensors()
    save_file(tensors, path, metadata={"modelspec.prediction_type": "v"})
    found = load(path, config=models("sd").folder, prediction="v_prediction", zero_snr=True)
    assert (found.model.prediction, found.model.schedule) == ("v_prediction", whole.model.schedule)
    assert load(path, config=folder).model.prediction == "v_prediction"
    with pytest.raises(fs.InvalidInput, match=r"says prediction 'v_prediction', and .* says 'epsilon': give a config"):
        load(path, config=models("sd").folder)


def test_the_usual_configuration_of_a_kind_does_not_contradict_a_file(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    _, own, folder = models("sd")
    assert json.loads((folder / "scheduler/scheduler_config.json").read_text())["prediction_type"] == "epsilon"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(folder))
    more = {"": {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}}
    path = originals.write(tmp_path / "v.safetensors", **originals.sd_parts(own), **more)
    model = load(path).model
    assert (model.prediction, model.schedule.spec["zero_snr"]) == ("v_prediction", True)
    with pytest.raises(fs.InvalidInput, match="says 'epsilon': give a config that agrees"):
        load(path, config="org/other")


def test_the_files_of_a_folder_are_read_too(models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(models("sd").folder, tmp_path / "sd")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(container.inspect(file).tensors(), file, metadata={"ss_v_parameterization": "True"})
    with pytest.raises(fs.InvalidInput, match=r"says 'epsilon': correct it, or give prediction='v_prediction'"):
        load(folder)
    scheduler = folder / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "prediction_type": "v_prediction"}))
    assert load(folder).model.prediction == "v_prediction"
    assert load(models("ddpm").folder / "unet", prediction="sample").model.prediction == "sample"


def test_claims_about_a_model_that_needs_none_are_refused() -> None:
    with pytest.raises(fs.InvalidInput, match="prediction: the shipped model 'digits' knows its own"):
        load("digits", prediction="epsilon")
    with pytest.raises(fs.InvalidInput, match=r"prediction and zero_snr: a callable has them in spec=.*leave them out"):
        load(lambda x, t: x, prediction="epsilon", zero_snr=False)
    with pytest.raises(fs.InvalidInput, match="unknown argument 'predicton': did you mean 'prediction'"):
        load("digits", predicton="epsilon")  # type: ignore[call-arg]
