"""The tokenizer of the scenes: CLIP's byte-pair encoding, with the captions' own words as tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.scene import described

LENGTH = 24
"""Tokens of a prompt, its start and end among them."""
START, END = "<|startoftext|>", "<|endoftext|>"
CORPUS, TOKENS = 20_000, 720


def tokenizer() -> Any:
    """A transformers CLIPTokenizer: every word of the captions is one token, other words are spelt."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    rng = np.random.default_rng(0)
    corpus = [caption(described(rng), rng) for _ in range(CORPUS)]
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    learned = json.loads(bpe.to_str())["model"]["merges"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    pairs: Any = merges
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=LENGTH)


def token_ids(tokens: Any, texts: Sequence[str]) -> Tensor:
    """Tokens (B, LENGTH) of texts, as StableDiffusionPipeline makes them."""
    return tokens(list(texts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
