"""Tokenizers: byte-level BPE trained on the corpora, or a pre-trained language model's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mm1.errors import UserError, in_one_line

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
        raise UserError(f"{folder}: no tokenizer could be loaded ({in_one_line(error)})") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-text token, which closes every document")
    complete(tokenizer)
    return tokenizer


def complete(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer the special tokens it lacks: `<image>`, and EOS in place of BOS and of padding."""
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _make_image_token_special(tokenizer)


def _make_image_token_special(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make `<image>` a special token, whether a tokenizer lacks it or has it as a word: no text becomes it then.

    If it is a word of the tokenizer's model, texts would still have it; they are cut after its first character.
    """
    if IMAGE_TOKEN not in tokenizer.all_special_tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    elif any(token.content == IMAGE_TOKEN and not token.special for token in tokenizer.added_tokens_decoder.values()):
        # Named among the special tokens, but its file says that it is a word.
        tokenizer.backend_tokenizer.add_special_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    as_text = tokenizer(IMAGE_TOKEN, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in as_text:
        backend: Any = tokenizer.backend_tokenizer
        cut = pre_tokenizers.Split(Regex(f"{IMAGE_TOKEN[0]}(?={IMAGE_TOKEN[1:]})"), "isolated")
        own = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, *own])


def keep_sides(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the sides on which a tokenizer pads and cuts be saved with it; a new one pads on the left.

    Prompts are continued at their right end, so rows of a batch must end together.
    """
    sides = ("padding_side", "truncation_side")
    if not tokenizer.init_kwargs.keys() >= set(sides):  # not saved by a processor, or by one that lost them
        tokenizer.padding_side = "left"
        # The library saves, of its attributes, those that it finds here.
        tokenizer.init_kwargs |= {side: getattr(tokenizer, side) for side in sides}


def begin_texts(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer put BOS before every text and nothing behind it, as documents of training begin.

    It is saved with the tokenizer. `add_special_tokens=False` leaves it out.
    """
    backend: Any = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    bos, bare, full = (
        tokenizer.bos_token,
        backend.encode("", add_special_tokens=False).ids,
        backend.encode("", add_special_tokens=True).ids,
    )
    if full == [tokenizer.bos_token_id, *bare]:
        return
    rule = processors.TemplateProcessing(
        single=[f"{bos}:0", "$A:0"],
        pair=[f"{bos}:0", "$A:0", "$B:1"],
        special_tokens=[(bos, tokenizer.bos_token_id)],
    )
    # What only makes offsets stays; what adds other tokens (EOS, say) goes.
    keep = backend.post_processor is not None and full == bare
    backend.post_processor = processors.Sequence([backend.post_processor, rule]) if keep else rule


def without_beginning(post_processor: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a saved post-processor as it was before `begin_texts`; another is returned as it is."""
    if post_processor is None or post_processor["type"] != "Sequence" or len(post_processor["processors"]) != 2:
        return post_processor
    before, rule = post_processor["processors"]
    pair = [next(iter(piece)) for piece in rule.get("pair", ())]
    return before if pair == ["SpecialToken", "Sequence", "Sequence"] else post_processor


@contextmanager
def texts_begin_alike(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """While it lasts, a text behind a special token begins as one at the beginning does.

    Training tokenizes each text on its own. Tokenizers of the SentencePiece kind put a space before a text, but some
    only before the first of a prompt.
    """
    own: Any = tokenizer.backend_tokenizer.pre_tokenizer
    several = isinstance(own, pre_tokenizers.Sequence)
    steps = list(own) if several else [own]
    first = [step for step in steps if isinstance(step, pre_tokenizers.Metaspace) and step.prepend_scheme == "first"]
    for step in first:
        step.prepend_scheme = "always"
    try:
        yield
    finally:
        for step in first:
            step.prepend_scheme = "first"
