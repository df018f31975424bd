"""Log-likelihoods are those of lm-evaluation-harness' own backend `hf`, on five families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from sirl.errors import ModelError
from sirl.generation.likelihoods import split, windows
from sirl.generation.transformers import TransformersGenerator

WINDOW = 48
LONG = "A long tale of trees, told on. "
PAIRS = [
    ("one plus one is", " two"),
    ("one plus one is ", "two"),
    ("one plus one is\n\n", "two"),
    ("", "three"),
    ("", "<bos>three"),
    ("<bos>said already", " four"),
    ("   ", "four"),
    ("Äpfel und", " Birnen, 梨"),
    (LONG * 2, " the end"),
    (LONG * 9, " the end"),
    (LONG * 9 + "x" * (WINDOW - 1), "y"),
    ("", "z" * WINDOW),
    ("a", "b" * (WINDOW - 2)),
]
LETTERS = "".join(chr(97 + n * n * n % 26) for n in range(WINDOW * 2))
TEXTS = ["a", "one plus one", LONG, LONG * 2, LONG * 9, LETTERS[: WINDOW - 1], LETTERS]
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": WINDOW}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZE),
    "gemma": ("Gemma2Config", {**SIZE, "head_dim": 8, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", SIZE),
    "gpt2": ("GPT2Config", GPT2),
    "mistral": ("MistralConfig", {**SIZE, "sliding_window": 16}),
}


def tokenizer(bos: str | None, first: bool) -> Any:
    """Over bytes. Its words are joined across spaces, so that where a text is cut matters.

    Args:
        bos: A token that may begin a text.
        first: Whether the tokenizer itself puts it there.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("Ġt", "w"), ("Ġ", "Ġ")]
    words = ["<eos>", "<bos>", *alphabet, *(a + b for a, b in merges)]
    made = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<eos>", "<bos>"])
    if first:
        made.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<eos>", pad_token="<eos>", bos_token=bos
    )


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    name, size = FAMILIES[request.param]
    config = getattr(transformers, name)(
        **size, vocab_size=270, bos_token_id=1, eos_token_id=0, pad_token_id=0
    )
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                weight.mul_(4.0)  # so that it has preferences
    return made


@pytest.mark.parametrize(
    ("bos", "first"), [("<bos>", True), ("<bos>", False), (None, False)], ids=str
)
def test_they_are_those_of_lm_eval(model: Any, bos: str | None, first: bool) -> None:
    words = tokenizer(bos, first)
    ours = TransformersGenerator(model, words, batch_tokens=400, context=WINDOW)
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=4, device="cpu")
    # One that lm-eval itself refuses: it has nothing to predict from.
    pairs = [pair for pair in PAIRS if first or pair[0] != "   "]
    asked = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    told = theirs.loglikelihood(asked, disable_tqdm=True)
    for pair, (own, greedy), (score, also) in zip(
        pairs, ours.loglikelihoods(pairs), told, strict=True
    ):
        assert own == pytest.approx(score, abs=1e-3), pair
        assert greedy == also
    asked = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(TEXTS)]
    whole = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.rolling(TEXTS) == pytest.approx(whole, abs=1e-3)


def test_what_is_scored_must_fit_the_window(model: Any) -> None:
    ours = TransformersGenerator(model, tokenizer(None, False), 400, context=WINDOW)
    with pytest.raises(ModelError, match="49 tokens cannot be scored: the context window is of 48"):
        ours.loglikelihoods([("a", "b"), ("a", "b" * 49)])


def test_split_by_hand() -> None:
    words = tokenizer("<bos>", True)
    a, b = words.convert_tokens_to_ids(["a", "b"])
    space, joined = words.convert_tokens_to_ids(["Ġ", "Ġtw"])
    assert split(words, "a", "b") == ([1, a, b], 1)
    assert split(words, "<bos>a", "b") == ([1, a, b], 1)
    assert split(words, "a ", "tw") == ([1, a, joined], 1)
    assert split(words, "", "b") == ([1, b], 1)
    assert split(words, " ", "b") == ([1, space, b], 2)
    bare = tokenizer(None, False)
    assert split(bare, "a", "b") == ([a, b], 1)
    assert split(bare, "", "b") == ([0, b], 1)
    assert split(bare, " ", "b") == ([0, space, b], 2)


def test_windows_score_every_id_once() -> None:
    assert list(windows([5, 6, 7, 8, 9], 1, 2)) == [([1, 5, 6], 2), ([6, 7, 8], 2), ([7, 8, 9], 1)]
    assert list(windows([5], 1, 2)) == [([1, 5], 1)]
    assert list(windows([], 1, 2)) == []
