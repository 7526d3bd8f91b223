"""Original checkpoints of tiny models: the parts of a diffusers pipeline by the names of their authors' code.

The inverse of what diffusers' converters do, for the few layers that the tiny models have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = name.replace(new, old)
    return name


def unet(module: Any) -> Tensors:
    """Of a UNet2DConditionModel, after `model.diffusion_model.`: input_blocks, middle_block, output_blocks, out."""
    ends = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    layers, state = module.config.layers_per_block + 1, module.state_dict()
    attended = {name.split(".")[1] for name in state if name.startswith("up_blocks.") and ".attentions." in name}

    def place(name: str) -> str:
        words = name.split(".")
        if words[0] == "mid_block":
            number = 2 * int(words[2]) + (words[1] == "attentions")
            return ".".join([f"middle_block.{number}", *words[3:]])
        if words[0] not in ("down_blocks", "up_blocks"):
            start = next(start for start in ends if name.startswith(f"{start}."))
            return name.replace(start, ends[start], 1)
        first, kind, number = int(words[1]) * layers, words[2], int(words[3])
        if words[0] == "down_blocks":
            if kind == "downsamplers":
                return f"input_blocks.{first + layers}.0.op.{words[-1]}"
            return ".".join([f"input_blocks.{1 + first + number}.{int(kind == 'attentions')}", *words[4:]])
        if kind == "upsamplers":
            return f"output_blocks.{first + layers - 1}.{1 + (words[1] in attended)}.conv.{words[-1]}"
        return ".".join([f"output_blocks.{first + number}.{int(kind == 'attentions')}", *words[4:]])

    return {
        renamed(place(name), RESNET if ".resnets." in name else {}): tensor.contiguous()
        for name, tensor in state.items()
    }


def vae(module: Any) -> Tensors:
    """Of an AutoencoderKL, after `first_stage_model.`, whose attention is in convolutions of 1 x 1."""
    levels, result = len(module.config.block_out_channels), {}
    for name, tensor in module.state_dict().items():
        words = name.split(".")
        if words[1] == "down_blocks":
            words[1:3] = ["down", words[2]]
        elif words[1] == "up_blocks":
            words[1:3] = ["up", str(levels - 1 - int(words[2]))]
        place = ".".join(words).replace("samplers.0.conv", "sample.conv").replace("conv_shortcut", "nin_shortcut")
        place = place.replace("conv_norm_out", "norm_out")
        if ".attentions." in name:
            place = renamed(place.replace("mid_block.attentions.0", "mid.attn_1"), ATTENTION)
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        elif "mid_block.resnets." in place:
            head, _, tail = place.partition("mid_block.resnets.")
            place = f"{head}mid.block_{int(tail[0]) + 1}{tail[1:]}"
        result[place.replace(".resnets.", ".block.")] = tensor.contiguous()
    return result


def clip(module: Any) -> Tensors:
    """Of a CLIP text encoder, by the names that transformers had when the checkpoints were made."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in module.state_dict().items()}
    return {name if name.startswith("text_projection") else f"text_model.{name}": t for name, t in bare.items()}


def open_clip(module: Any) -> Tensors:
    """Of the same by the names of OpenCLIP, whose query, key and value are one tensor."""
    state, result = {name.removeprefix("text_model."): t for name, t in module.state_dict().items()}, {}
    for name, tensor in state.items():
        if name == "text_projection.weight":
            result["text_projection"] = tensor.T.contiguous()
        elif name.startswith("embeddings."):
            end = "positional_embedding" if "position" in name else "token_embedding.weight"
            result[end] = tensor
        elif name.startswith("final_layer_norm."):
            result[name.replace("final_layer_norm", "ln_final")] = tensor
        elif ".q_proj." in name:
            three = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
            place = name.replace("encoder.layers", "transformer.resblocks").replace(
                "self_attn.q_proj.", "attn.in_proj_"
            )
            result[place] = three
        elif ".k_proj." not in name and ".v_proj." not in name:
            place = renamed(name, OPEN_CLIP).replace("encoder.layers", "transformer.resblocks")
            result[place.replace("self_attn", "attn")] = tensor
    return result


def sd3(module: Any) -> Tensors:
    """Of an SD3Transformer2DModel without norms of queries: joint_blocks with one tensor for query, key and value."""
    state, result = module.state_dict(), {}
    ends = {
        "pos_embed.proj.": "x_embedder.proj.",
        "time_text_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
        "time_text_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
        "time_text_embed.text_embedder.linear_1.": "y_embedder.mlp.0.",
        "time_text_embed.text_embedder.linear_2.": "y_embedder.mlp.2.",
        "proj_out.": "final_layer.linear.",
        "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    }
    blocks = {
        "attn.to_out.0.": "x_block.attn.proj.",
        "attn.to_add_out.": "context_block.attn.proj.",
        "norm1.linear.": "x_block.adaLN_modulation.1.",
        "norm1_context.linear.": "context_block.adaLN_modulation.1.",
        "ff.net.0.proj.": "x_block.mlp.fc1.",
        "ff.net.2.": "x_block.mlp.fc2.",
        "ff_context.net.0.proj.": "context_block.mlp.fc1.",
        "ff_context.net.2.": "context_block.mlp.fc2.",
    }
    fused = {"attn.to_q.": ("x_block", "to_{}"), "attn.add_q_proj.": ("context_block", "add_{}_proj")}
    last = f"transformer_blocks.{module.config.num_layers - 1}.norm1_context."
    for name, tensor in state.items():
        if name == "pos_embed.pos_embed":
            result["pos_embed"] = tensor
            continue
        if name.startswith(("norm_out.", last)):  # scale and shift in the other order
            tensor = torch.cat(tensor.chunk(2)[::-1])
        if not name.startswith("transformer_blocks."):
            result[renamed(name, ends)] = tensor.contiguous()
            continue
        _, number, rest = name.split(".", 2)
        kind, end = rest.rpartition(".")[0] + ".", rest.rpartition(".")[2]
        if kind in fused:
            block, form = fused[kind]
            three = [state[f"transformer_blocks.{number}.attn.{form.format(letter)}.{end}"] for letter in "qkv"]
            result[f"joint_blocks.{number}.{block}.attn.qkv.{end}"] = torch.cat(three)
        elif kind in blocks:
            result[f"joint_blocks.{number}.{blocks[kind]}{end}"] = tensor.contiguous()
    return result


def flux(module: Any) -> Tensors:
    """Of a FluxTransformer2DModel: double_blocks and single_blocks, query, key and value in one tensor."""
    state, result = module.state_dict(), {}
    ends = {
        "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
        "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
        "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.",
        "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer.",
        "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
        "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
        "context_embedder.": "txt_in.",
        "x_embedder.": "img_in.",
        "proj_out.": "final_layer.linear.",
        "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    }
    double = {
        "norm1.linear.": "img_mod.lin.",
        "norm1_context.linear.": "txt_mod.lin.",
        "attn.norm_q.": "img_attn.norm.query_norm.",
        "attn.norm_k.": "img_attn.norm.key_norm.",
        "attn.norm_added_q.": "txt_attn.norm.query_norm.",
        "attn.norm_added_k.": "txt_attn.norm.key_norm.",
        "ff.net.0.proj.": "img_mlp.0.",
        "ff.net.2.": "img_mlp.2.",
        "ff_context.net.0.proj.": "txt_mlp.0.",
        "ff_context.net.2.": "txt_mlp.2.",
        "attn.to_out.0.": "img_attn.proj.",
        "attn.to_add_out.": "txt_attn.proj.",
    }
    single = {
        "norm.linear.": "modulation.lin.",
        "attn.norm_q.": "norm.query_norm.",
        "attn.norm_k.": "norm.key_norm.",
        "proj_out.": "linear2.",
    }
    fused = {
        "transformer_blocks": {
            "attn.to_q.": ("img_attn.qkv.", ["attn.to_q.", "attn.to_k.", "attn.to_v."]),
            "attn.add_q_proj.": ("txt_attn.qkv.", ["attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."]),
        },
        "single_transformer_blocks": {
            "attn.to_q.": ("linear1.", ["attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp."]),
        },
    }
    places = {"transformer_blocks": ("double_blocks", double), "single_transformer_blocks": ("single_blocks", single)}
    for name, tensor in state.items():
        kind = name.partition(".")[0]
        if kind not in places:
            tensor = torch.cat(tensor.chunk(2)[::-1]) if name.startswith("norm_out.") else tensor
            start, _, end = name.rpartition(".")
            result[ends[f"{start}."] + end] = tensor
            continue
        (place, names), (_, number, rest) = places[kind], name.split(".", 2)
        start, _, end = rest.rpartition(".")
        if f"{start}." in fused[kind]:
            into, several = fused[kind][f"{start}."]
            result[f"{place}.{number}.{into}{end}"] = torch.cat([state[f"{kind}.{number}.{s}{end}"] for s in several])
        elif f"{start}." in names:
            into = names[f"{start}."]
            result[f"{place}.{number}.{into}{'scale' if '_norm.' in into else end}"] = tensor
    return result


def write(path: Path, **parts: Tensors) -> Path:
    """A file with the tensors of each part, whose prefix is its name with dots for double underscores."""
    tensors = {
        f"{prefix.replace('__', '.')}{name}": tensor.clone()
        for prefix, part in parts.items()
        for name, tensor in part.items()
    }
    safetensors.torch.save_file(tensors, path)
    return path


def sd_parts(own: Any) -> dict[str, Tensors]:
    """All of Stable Diffusion 1, for `write`."""
    return {
        "model__diffusion_model__": unet(own.unet),
        "first_stage_model__": vae(own.vae),
        "cond_stage_model__transformer__": clip(own.text_encoder),
    }
