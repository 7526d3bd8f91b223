"""The parts of a diffusers model, each loaded by its own library's class: networks, text encoders, tokenizers, VAE.

A part's class is chosen here, never by the files, so code that a folder brings along is not run. Before a part is
loaded its configuration is tried out on the meta device, which takes no memory: one that asks for other weights than
the files hold, however absurd, is refused there.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.models.folder import TEXT_LIMIT, Weights, find_weights, read_json

LIBRARIES = {
    "UNet2DModel": "diffusers",
    "UNet2DConditionModel": "diffusers",
    "SD3Transformer2DModel": "diffusers",
    "FluxTransformer2DModel": "diffusers",
    "DiTTransformer2DModel": "diffusers",
    "PixArtTransformer2DModel": "diffusers",
    "SanaTransformer2DModel": "diffusers",
    "AutoencoderKL": "diffusers",
    "AutoencoderDC": "diffusers",
    "CLIPTextModel": "transformers",
    "CLIPTextModelWithProjection": "transformers",
    "T5EncoderModel": "transformers",
    "Gemma2Model": "transformers",
}
"""Where the classes of parts live."""
TOKENIZERS = {
    "CLIPTokenizer": "CLIPTokenizer",
    "CLIPTokenizerFast": "CLIPTokenizer",
    "T5Tokenizer": "T5Tokenizer",
    "T5TokenizerFast": "T5TokenizerFast",
    "GemmaTokenizer": "GemmaTokenizerFast",
    "GemmaTokenizerFast": "GemmaTokenizerFast",
    "PreTrainedTokenizerFast": "PreTrainedTokenizerFast",
    "TokenizersBackend": "PreTrainedTokenizerFast",
}
"""The tokenizers that a folder may name, and the class that reads each."""
WORDS = {
    "CLIPTokenizer": ("vocab.json", "merges.txt"),
    "T5Tokenizer": ("spiece.model",),
    "T5TokenizerFast": ("spiece.model",),
    "GemmaTokenizerFast": ("tokenizer.model",),
}
"""The files of each class in which its words lie, where they are not in `WHOLE`."""
WHOLE = "tokenizer.json"
DEEPEST, LONGEST, LARGEST, MOST_POSITIONS = 256, 64, 10_000_000, 1 << 28
_LONG_LISTS = ("trained_betas",)
_CLIP, _UNUSED = "text_model.", "embeddings.position_ids"
"""Before transformers 5 all names of CLIP's tensors began so, and its files had a buffer that is counted out today."""


def checked_config(path: Path) -> dict[str, Any]:
    """The configuration in a file. Raises `InvalidInput` for numbers that no model has."""
    config = read_json(path)
    for key, value in _integers(config):
        most = DEEPEST if "layers" in key or "depth" in key else LARGEST
        if abs(value) > most:
            raise InvalidInput(f"{path}: {key} is {value!r}; no model has more than {most:,}. The file is damaged")
    for key, value in config.items():
        if isinstance(value, list) and len(value) > LONGEST and key not in _LONG_LISTS:
            raise InvalidInput(f"{path}: {key} has {len(value):,} entries; at most {LONGEST} are allowed")
    positions = _positions(config)
    if positions > MOST_POSITIONS:
        raise InvalidInput(
            f"{path}: sample_size {shown(config.get('sample_size'))} asks for a table of {positions:,} positions; at "
            f"most {MOST_POSITIONS:,} are allowed. The file is damaged"
        )
    return config


def on_device(module: Any, device: torch.device | str) -> Any:
    """The module on a device. On the CPU a UNet gets its channels last, in which convolutions are 4 to 10% faster."""
    last = torch.device(device).type == "cpu" and type(module).__name__.startswith("UNet2D")
    return module.to(device=device, **({"memory_format": torch.channels_last} if last else {}))


def load_part(
    folder: Path,
    kind: str,
    dtype: torch.dtype,
    *,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> tuple[Any, Weights]:
    """The module of a part, in eval mode and without gradients, and its weights' files.

    Args:
        folder: of the part, with config.json and the weights.
        kind: its class, a key of `LIBRARIES`.

    Raises:
        InvalidInput: a file is missing, damaged or does not fit the configuration.
    """
    if not folder.is_dir():
        raise InvalidInput(f"the part {folder.name!r} is missing: there is no folder {folder}; fetch or save it again")
    if kind not in LIBRARIES:
        raise unknown_name("part", kind, LIBRARIES)
    config = checked_config(folder / "config.json")
    weights = find_weights(folder, variant, allow_pickle)
    try:
        module = None if weights.pickled else _from_files(kind, config, weights, dtype)
        if module is None:
            module = _from_pretrained(kind, weights, dtype)
            convert(module, dtype)
        return module, weights
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"{folder} cannot be loaded as {kind}: {type(error).__name__}: {str(error)[:400]}"
        ) from error


def _from_files(kind: str, config: Mapping[str, Any], weights: Weights, dtype: torch.dtype) -> Any:
    """The module with the tensors of the files; None where they go by other names than the class's own today.

    Raises `InvalidInput` where the configuration asks for more numbers than the files hold.
    """
    with torch.device("meta"):
        skeleton = built(kind, config)
    wanted = sum(parameter.numel() for parameter in skeleton.parameters())
    if weights.elements is not None and wanted > weights.elements:
        raise InvalidInput(
            f"{weights.folder}: config.json asks for {wanted:,} weights, the files hold {weights.elements:,}; they do "
            "not belong together, or a file is not whole. Fetch or save it again"
        )
    tensors: dict[str, Tensor] = {}
    for file in weights.files:
        tensors |= load_file(file)
    if kind == "CLIPTextModel":
        tensors = {name.removeprefix(_CLIP): tensor for name, tensor in tensors.items() if not name.endswith(_UNUSED)}
    shapes = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
    same = shapes == {name: tensor.shape for name, tensor in tensors.items()}
    return filled(kind, config, tensors, dtype) if same else None


def filled(kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """The module of a configuration with these tensors, by the names of its class, in a dtype; see `convert`."""
    with _Unfilled():
        module = built(kind, config)
    convert(module, dtype)
    mapped = LIBRARIES[kind] == "transformers" and all(t.dtype is torch.float32 is dtype for t in tensors.values())
    module.load_state_dict(tensors, strict=False, assign=mapped)  # mapped: left in the file, as transformers does
    return module.eval().requires_grad_(False)


def convert(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Bring the parameters and buffers of a module that a file holds into a dtype, whatever its library made of them.

    Two kinds stay in float32, as both libraries leave them: what the class says to overflow in float16, and the tables
    that it computes itself, such as positions and rotary frequencies, whose steps are finer than bfloat16.
    """
    saved = set(module.state_dict())
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ()) if dtype is torch.float16 else set()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and name in saved:
            tensor.data = tensor.data.to(torch.float32 if kept & set(name.split(".")) else dtype)


class _Unfilled(TorchFunctionMode):
    """Modules that are made in it, in this thread, are not filled with random numbers: their weights come next."""

    FILLS = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_")
    """By name, as transformers puts functions of its own in the place of those of torch.nn.init."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILLS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_tokenizer(folder: Path, kind: str) -> Any:
    """The tokenizer in a folder; `kind` is the class that the model's index names."""
    if kind not in TOKENIZERS:
        raise unknown_name("tokenizer", kind, TOKENIZERS)
    if not folder.is_dir():
        raise InvalidInput(f"the part {folder.name!r} is missing: there is no folder {folder}; fetch or save it again")
    for file in folder.iterdir():
        if file.is_file() and file.stat().st_size > TEXT_LIMIT:
            raise InvalidInput(
                f"{file} has {file.stat().st_size:,} bytes; files of tokenizers have at most {TEXT_LIMIT:,}"
            )
    _check_words(folder, TOKENIZERS[kind])
    try:
        return _class("transformers", TOKENIZERS[kind]).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise InvalidInput(
            f"the tokenizer in {folder} cannot be loaded: {type(error).__name__}: {str(error)[:400]}"
        ) from error


def _check_words(folder: Path, kind: str) -> None:
    """Raise `InvalidInput` where no file has the words: the libraries make a tokenizer that knows none, and go on."""
    files = WORDS.get(kind, ())
    if (folder / WHOLE).is_file() or (files and all((folder / name).is_file() for name in files)):
        return
    needed = WHOLE + (f", or {' and '.join(files)}" if files else "")
    there = ", ".join(sorted(file.name for file in folder.iterdir() if file.is_file())[:6]) or "no files"
    raise InvalidInput(f"the tokenizer in {folder} lacks its words: it needs {needed}, and has {there}. Fetch it again")


def _class(library: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(library), name)
    except ImportError as error:
        raise InvalidInput(f"this model needs {library}: pip install 'fewstep[diffusers]'") from error


def _from_pretrained(kind: str, weights: Weights, dtype: torch.dtype) -> Any:
    """The module as its library loads it: from pickles, and from files that an earlier version of it wrote."""
    model, folder = _class(LIBRARIES[kind], kind), weights.folder
    options: dict[str, Any] = {"use_safetensors": not weights.pickled, "local_files_only": True}
    if weights.variant is not None:
        options["variant"] = weights.variant
    if LIBRARIES[kind] == "diffusers":  # its pickles are always loaded with weights_only=True
        options |= {"low_cpu_mem_usage": False, "torch_dtype": dtype}
    else:
        options |= {"dtype": dtype, "weights_only": True}
    module, info = model.from_pretrained(str(folder), output_loading_info=True, **options)
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise InvalidInput(
            f"{folder}: {len(missing)} tensors of {kind} are missing, such as {missing[:3]}; the weights do not fit "
            "config.json. Fetch or save it again"
        )
    return module.eval().requires_grad_(False)


def built(kind: str, config: Mapping[str, Any]) -> Any:
    """A module of a configuration as its class makes it, before any weights are loaded; `kind` of `LIBRARIES`."""
    model = _class(LIBRARIES[kind], kind)
    if LIBRARIES[kind] == "diffusers":
        return model.from_config(config)
    return model(model.config_class.from_dict(dict(config)))


def _integers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    if depth > 8:
        raise InvalidInput(f"a configuration is nested {depth} deep at {key!r}; the file is damaged")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _integers(inner, str(name), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _integers(inner, key, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _positions(config: Mapping[str, Any]) -> int:
    """Numbers in the table of positions that a transformer of this configuration computes when it is built."""
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    if not isinstance(heads, int) or not isinstance(width, int) or config.get("patch_size") is None:
        return 0
    sides = [config.get(name) for name in ("sample_size", "pos_embed_max_size")]
    largest = max((side for side in sides if isinstance(side, int)), default=0)
    return largest**2 * heads * width
