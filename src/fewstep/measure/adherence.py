"""Does a picture show what its prompt says? Means of a score for each image, with an interval.

Any score will do, such as 1 where a reader of scenes finds all that was named and 0 where not. The CLIP score is the
cosine between CLIP's embeddings of image and prompt, times 100, and 0 where that is negative (Hessel et al. 2021, arXiv
2104.08718, section 3, with 100 for their factor 2.5), from weights on disk.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure.backbones import CLIP_SCALE, Preparation, check_folder, from_folder
from fewstep.measure.features import module_digest
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of

TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""The files that a tokenizer may lie in."""


def mean_score(
    measure: str,
    scores: Tensor | Sequence[float],
    *,
    better: str = "more",
    settings: str = "",
    features: str = "",
    feature_digest: str = "",
    reference: str = "",
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Figure:
    """The mean of one score an image, (n,), as a `Figure`; `reference` names what they were scored for, such as
    `prompts_digest(prompts)`.

    Raises:
        InvalidInput: for fewer than 2 scores, other shapes, and scores that are not finite.
    """
    values = torch.as_tensor(scores, dtype=torch.float64).cpu()
    if values.ndim != 1 or len(values) < 2 or not bool(torch.isfinite(values).all()):
        raise InvalidInput(f"scores are 2 or more finite numbers, one an image, got shape {tuple(values.shape)}")
    return figure_of(
        measure,
        float(values.mean()),
        bootstrap.weights(len(values)) @ values,
        n=len(values),
        better=better,
        settings=settings,
        features=features,
        feature_digest=feature_digest,
        reference=reference,
        **bootstrap.facts,
    )


def prompts_digest(prompts: Sequence[str]) -> str:
    """16 hexadecimal digits over the prompts, in order."""
    return hashlib.sha256("\0".join(prompts).encode()).hexdigest()[:16]


class ClipScore:
    """CLIP's score of images under prompts, `score(images, prompts)` (B,) from 0 to 100.

    Args:
        path: a folder of transformers with a whole CLIP model and its tokenizer: config.json, model.safetensors,
            vocab.json and merges.txt, or tokenizer.json.
        device: where to run it.

    Raises:
        InvalidInput: where the folder is none, and where transformers is not installed. Nothing is downloaded.
    """

    name = "clip score"

    def __init__(self, path: str | os.PathLike[str], *, device: torch.device | str | None = None):
        folder = Path(path)
        check_folder(folder, "clip", ("clip",))
        self.network = from_folder("CLIPModel", folder).eval().requires_grad_(False).to(device)
        self.prepare = Preparation.of(folder, self.network.config.vision_config.image_size, CLIP_SCALE)
        # Without its files the library makes a tokenizer that knows no words, and says nothing.
        if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
            raise InvalidInput(
                f"{folder} holds no tokenizer of CLIP: it needs tokenizer.json, or vocab.json and merges.txt"
            )
        try:
            from transformers import CLIPTokenizer

            self.tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{folder} holds a damaged tokenizer of CLIP: {error}") from error
        words, known = len(self.tokenizer), self.network.config.text_config.vocab_size
        if words > known:
            raise InvalidInput(f"the tokenizer in {folder} has {words} words, its model knows {known}: they do not fit")
        self.digest = f"{module_digest(self.network)}-{self.prepare.size}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) from images (B, 3 or 1, H, W) in [-1, 1] and a prompt for each. Warns of prompts that had to be cut."""
        if len(images) != len(prompts):
            raise InvalidInput(f"give a prompt for each image, got {len(prompts)} for {len(images)}")
        limit = self.network.config.text_config.max_position_embeddings
        long = [p for p in prompts if len(self.tokenizer(p).input_ids) > limit]
        if long:
            warnings.warn(
                f"{len(long)} prompts are longer than CLIP's {limit} tokens and were cut, the first is {long[0]!r}",
                stacklevel=2,
            )
        words = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        like = next(self.network.parameters())
        with torch.no_grad():
            found = self.network(
                input_ids=words.input_ids.to(like.device),
                attention_mask=words.attention_mask.to(like.device),
                pixel_values=self.prepare(images, like),
            )
        cosine = torch.nn.functional.cosine_similarity(found.image_embeds.double(), found.text_embeds.double())
        return 100 * cosine.clamp_min(0).cpu()

    def figure(self, scores: Tensor, prompts: Sequence[str]) -> Figure:
        """The mean of `scores` (n,) of all batches, as a `Figure` that is compared only with the same prompts'."""
        return mean_score(
            self.name, scores, features=self.name, feature_digest=self.digest, reference=prompts_digest(prompts)
        )
