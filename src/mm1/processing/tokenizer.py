"""Tokenizers: byte-level BPE trained on the corpora, or a pre-trained language model's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mm1.errors import UserError

IMAGE_TOKEN = "<image>"  # noqa: S105


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ("<pad>", "<bos>", "<eos>", IMAGE_TOKEN)
) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE, so that any text can be written and nothing is unknown.

    Args:
        texts: What to train on.
        vocab_size: Size of the vocabulary, the four special tokens included.
        special_tokens: Those four, in the order of their ids, which begin at 0.
    """
    tokenizer = Tokenizer(models.BPE())
    # Digits one by one and no added space: " two" and "two" are told apart, numbers are read digit by digit.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        bos_token="<bos>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        additional_special_tokens=[IMAGE_TOKEN],
        clean_up_tokenization_spaces=False,
    )


def train_caption_tokenizer(texts: Iterable[str], vocab_size: int, max_tokens: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer for a text tower: lower case, begin and end put around every text, long ones cut.

    As CLIP's (arXiv 2103.00020 sec. 2.4), which knows the end of a text as the place of its features.

    Args:
        texts: What to train on.
        vocab_size: Size of the vocabulary, special tokens included.
        max_tokens: Length that `truncation=True` cuts to, begin and end included.
    """
    # transformers' CLIP reads the features of another token than the end if the end's id is 2.
    tokenizer = train_tokenizer((text.lower() for text in texts), vocab_size, ("<pad>", "<bos>", IMAGE_TOKEN, "<eos>"))
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=ends
    )
    tokenizer.model_max_length = max_tokens
    return tokenizer


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """Load a tokenizer and add `<image>` if it lacks it.

    Raises:
        UserError: If there is no tokenizer, or it has no end-of-text token.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no tokenizer could be loaded (there is no such folder): make it first")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no tokenizer could be loaded ({' '.join(str(error).split())[:200]})") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-text token, which closes every document")
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    return tokenizer
