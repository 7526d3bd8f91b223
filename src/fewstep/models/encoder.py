"""From a text to the tensors that a network is conditioned on, each family of models in its own way.

    sd      the last hidden state of one CLIP text encoder (Rombach et al. 2022, arXiv 2112.10752)
    sdxl    the last hidden state but one of two, side by side, and the pooled one of the second (arXiv 2307.01952)
    sd3     as sdxl, padded, followed by the states of T5, or by zeros where T5 was left out (arXiv 2403.03206)
    flux    the states of T5, and the pooled one of CLIP
    pixart  the states of T5 and the mask of its padding (arXiv 2310.00426)
    sana    the same of Gemma 2, without the instruction that its authors may put before a prompt (arXiv 2410.10629)

Each text is encoded alone, so that its tensors depend on nothing but itself, and kept in a `TensorCache` by a digest
of the encoders' files, the text and the settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.models.cache import TensorCache, key_of


class TruncatedPrompt(UserWarning):
    """A prompt was longer than an encoder reads; the message quotes what was cut."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A text encoder with its tokenizer; `length` is how many tokens it reads, the special ones included."""

    name: str
    tokenizer: Any
    model: Any
    length: int
    lock: Lock = field(default_factory=Lock)

    def tokens(self, text: str) -> tuple[Tensor, Tensor]:
        """(ids, mask) of a text, (1, length) each, cut or padded to the length."""
        with self.lock:  # a fast tokenizer keeps its padding and truncation as state
            found = self.tokenizer(
                text,
                padding="max_length",
                padding_side="right",
                max_length=self.length,
                truncation=True,
                return_attention_mask=True,
                return_tensors="pt",
            )
        return found.input_ids, found.attention_mask

    def cut(self, text: str) -> str:
        """The end of the text that the encoder does not read, as its tokenizer spells it; empty where all is read."""
        with self.lock:
            whole = self.tokenizer(text, truncation=False, verbose=False).input_ids
        if len(whole) <= self.length:
            return ""
        special = set(self.tokenizer.all_special_ids)
        kept = [token for token in self.tokens(text)[0][0].tolist() if token not in special]
        words = [token for token in whole if token not in special]
        return self.tokenizer.decode(words[len(kept) :]).strip() or "words that its tokenizer does not know"

    def clip(self, text: str) -> Any:
        """What a CLIP text encoder returns for a text, with all hidden states."""
        ids, mask = self.tokens(text)
        uses_mask = getattr(self.model.config, "use_attention_mask", False)
        device = self.model.device
        return self.model(
            ids.to(device), attention_mask=mask.to(device) if uses_mask else None, output_hidden_states=True
        )

    def states(self, text: str, masked: bool) -> tuple[Tensor, Tensor]:
        """(states, mask) of a T5 encoder, or of Gemma, whose attention sees the padding unless `masked`."""
        ids, mask = self.tokens(text)
        device = self.model.device
        return self.model(ids.to(device), attention_mask=mask.to(device) if masked else None)[0], mask


Readers = Mapping[str, Reader]


def read_sd(readers: Readers, text: str, skip: int | None) -> dict[str, Tensor]:
    """`skip`: how many of the last layers to leave out; None leaves out none."""
    reader = readers["text_encoder"]
    result = reader.clip(text)
    if skip is None:
        return {"text": result[0]}
    states = result.hidden_states[-(skip + 1)]
    inner = getattr(reader.model, "text_model", reader.model)
    return {"text": inner.final_layer_norm(states)}


def read_sdxl(readers: Readers, text: str, skip: int | None) -> dict[str, Tensor]:
    """`skip` counts from the last layer but one."""
    results = [readers[name].clip(text) for name in ("text_encoder", "text_encoder_2") if name in readers]
    states = [result.hidden_states[-2 if skip is None else -(skip + 2)] for result in results]
    return {"text": torch.cat(states, dim=-1), "pooled": results[-1][0]}


def read_sd3(readers: Readers, text: str, skip: int | None, *, width: int, tokens: int) -> dict[str, Tensor]:
    """`width` of the joint attention, and `tokens` of zeros where there is no third encoder."""
    results = [readers[name].clip(text) for name in ("text_encoder", "text_encoder_2")]
    clip = torch.cat([result.hidden_states[-2 if skip is None else -(skip + 2)] for result in results], dim=-1)
    third = readers.get("text_encoder_3")
    t5 = clip.new_zeros(1, tokens, width) if third is None else third.states(text, masked=False)[0]
    clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    return {"text": torch.cat([clip, t5], dim=1), "pooled": torch.cat([result[0] for result in results], dim=-1)}


def read_flux(readers: Readers, text: str, skip: int | None) -> dict[str, Tensor]:
    """T5's states, with its padding in sight, and CLIP's pooled one."""
    return {
        "text": readers["text_encoder_2"].states(text, masked=False)[0],
        "pooled": readers["text_encoder"].clip(text).pooler_output,
    }


def read_pixart(readers: Readers, text: str, skip: int | None) -> dict[str, Tensor]:
    """The states of T5, or in Sana of Gemma, and the mask of its padding."""
    states, mask = readers["text_encoder"].states(text, masked=True)
    return {"text": states, "mask": mask.to(states.device)}


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """All text encoders of a model.

    Attributes:
        readers: by part.
        read: (readers, text, clip_skip) -> tensors (1, ..), one of the functions here.
        digest: over the encoders' files and what else their output depends on.
        cache: for the tensors.
        skips: whether `clip_skip` means something to the model.
        lower: whether the text is read in lower case and without space around it.
    """

    readers: Readers
    read: Callable[[Readers, str, int | None], dict[str, Tensor]]
    digest: str
    cache: TensorCache
    skips: bool = True
    lower: bool = False

    def __call__(self, text: str, clip_skip: int | None = None) -> dict[str, Tensor]:
        """The tensors of a text, (1, ..) each, on the host; shared, so nobody may write to them."""
        text = text.lower().strip() if self.lower else text

        def make() -> dict[str, Tensor]:
            with torch.no_grad():
                return {name: t.cpu() for name, t in self.read(self.readers, text, clip_skip).items()}

        return dict(self.cache.get_or_make(key_of("text", self.digest, text, clip_skip), make))

    def check(self, clip_skip: int | None) -> None:
        """Raise `InvalidInput` where so many layers cannot be skipped."""
        if clip_skip is None:
            return
        if not self.skips:
            raise InvalidInput("clip_skip means nothing to this model, whose prompt is not read by CLIP: leave it out")
        configs = [reader.model.config for reader in self.readers.values()]
        layers = min(config.num_hidden_layers for config in configs if config.model_type.startswith("clip"))
        if type(clip_skip) is not int or not 1 <= clip_skip < layers:
            raise InvalidInput(f"clip_skip must be a whole number from 1 to {layers - 1}, got {clip_skip!r}")

    def cut(self, text: str) -> dict[str, str]:
        """What each encoder that cannot read all of a text leaves out, by part."""
        text = text.lower().strip() if self.lower else text
        cuts = {name: reader.cut(text) for name, reader in self.readers.items()}
        return {name: words for name, words in cuts.items() if words}

    def warn(self, text: str) -> None:
        """Warn with `TruncatedPrompt` where a text is longer than an encoder reads."""
        for name, words in self.cut(text).items():
            warnings.warn(
                f"the prompt {text[:40]!r}.. is longer than the {self.readers[name].length} tokens that {name} reads; "
                f"it does not see the end: {words[:500]!r}",
                TruncatedPrompt,
                stacklevel=4,
            )
