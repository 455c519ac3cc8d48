"""Tokenizers as MM1 trains them and as decoders bring them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mm1.processing.tokenizer import load_tokenizer, train_tokenizer
from tests.model.saved.make_saved import INSTRUCT

MARKS = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot_id|>", "<turn>", "</turn>", "<|user|>"]
TEXTS = ["a red bus on a street", "What is this? user assistant USER: ASSISTANT:"]


def own() -> PreTrainedTokenizerBase:
    """A tokenizer as MM1 trains them."""
    return train_tokenizer(TEXTS * 5, 330)


def chatty() -> PreTrainedTokenizerBase:
    """The same with the marks of ChatML."""
    tokenizer = own()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]})
    return tokenizer


def marked(special: bool = True) -> PreTrainedTokenizerBase:
    """The same with marks that only the vocabulary knows, special tokens or not."""
    tokenizer = own()
    tokenizer.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in [*MARKS, "\n\n"]])
    return tokenizer


def with_rule(single: str, folder: Path) -> PreTrainedTokenizerBase:
    """A decoder's tokenizer that puts tokens of its own around texts, without `<image>`."""
    trained = own()
    backend = trained.backend_tokenizer
    ends = [(token, trained.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=INSTRUCT
    )
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


def without_bos(folder: Path) -> PreTrainedTokenizerBase:
    """A decoder's tokenizer that has neither BOS nor padding."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own().backend_tokenizer, eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


def sentencepiece(folder: Path, word: str | None = None) -> PreTrainedTokenizerBase:
    """A decoder's tokenizer of the SentencePiece kind: a space is put before the first text of a prompt only.

    It may have one more word, `<image>` say.
    """
    characters = sorted({c for text in TEXTS for c in text} | set("<image>[]|\n"))
    vocabulary = {token: n for n, token in enumerate(["<unk>", "<s>", "</s>", "▁", *characters])}
    for a, b in (("r", "e"), ("▁", "a"), ("▁", "re"), ("b", "u")):
        vocabulary[a + b] = len(vocabulary)
    merges = [("r", "e"), ("▁", "a"), ("▁", "re"), ("b", "u")]
    for end in range(2, len(word or "") + 1):
        assert word is not None
        vocabulary.setdefault(word[:end], len(vocabulary))
        merges.append((word[: end - 1], word[end - 1]))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)
