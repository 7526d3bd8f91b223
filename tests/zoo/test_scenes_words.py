"""The words of the scenes: captions and keywords as tokens."""

import numpy as np
import pytest

pytest.importorskip("transformers")
from fewstep.zoo.scenes.caption import caption, keyword
from fewstep.zoo.scenes.scene import Description, Group, described
from fewstep.zoo.scenes.words import LENGTH, token_ids, tokenizer


def test_every_word_is_one_token_and_every_caption_fits():
    words = tokenizer()
    rng = np.random.default_rng(7)
    captions = [caption(described(rng), rng) for _ in range(2000)]
    for word in {word for text in captions for word in text.replace(",", " ").split()}:
        assert len(words.tokenize(word)) == 1, word
    assert max(len(ids) for ids in words(captions).input_ids) <= LENGTH
    assert words.decode(words("a purple dragon").input_ids, skip_special_tokens=True).strip() == "a purple dragon"
    ids = token_ids(words, ["a purple dragon", ""])
    assert ids.shape == (2, LENGTH)
    assert int(ids[1, 0]) == words.bos_token_id
    assert bool((ids[1, 1:] == words.eos_token_id).all())


def test_a_keyword_names_a_part_of_what_there_is():
    rng = np.random.default_rng(2)
    description = Description((Group(2, "red", "star", None),), None, "white")
    assert {keyword(description, rng) for _ in range(100)} == {"red", "stars", "red stars"}
    pair = Description((Group(1, "blue", None, None), Group(1, None, "circle", None)), "above", None)
    assert {keyword(pair, rng) for _ in range(100)} == {"blue", "circle"}
    assert keyword(Description((Group(1, None, None, "small"),), None, "white"), rng) == ""
