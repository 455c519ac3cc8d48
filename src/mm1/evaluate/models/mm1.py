"""Greedy generation for many prompts; a prompt's answer depends only on the prompt.

    prompts -> tokens -> grouped by shared beginning -> batches of equal length -> prefill -> one token at a time
                            (cached once per group)         (no padding)

The beginning that few-shot prompts share is computed once, and so is a picture that several prompts show.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.distributed import own_group
from mm1.evaluate.models.generator import Advance, Answer, ContextTooShort, Likelihood
from mm1.evaluate.models.stops import Stops
from mm1.model.ends import end_with_turns
from mm1.processing.answers import following
from mm1.processing.images import ImageError


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of a prompt: int64 token ids (T,) and the pictures of its image tokens."""

    ids: np.ndarray
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Prompts with a shared beginning (None: nothing is shared), and the rest of each with its index."""

    prefix: _Piece | None
    queries: list[tuple[int, _Piece]]


class MM1Generator:
    """Greedy generation with our own model.

    Args:
        model: An `MM1ForConditionalGeneration`; it is put into evaluation mode on `device`, and its `generate`
            stops at the same tokens.
        processor: The model's `MM1Processor`.
        batch_size: Prompts per forward pass.
        device: The device to compute on.
        share_prefixes: Whether shared beginnings are computed once; it doesn't affect the answers.
        cache_bytes: Memory for the features of encoded pictures.
        quantization: How the model's weights were quantized, for the protocol; None: they were not.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        share_prefixes: bool = True,
        cache_bytes: int = 1 << 30,
        quantization: str | None = None,
    ) -> None:
        self.model = model.eval().to(device)
        self.processor = processor
        end_with_turns(model, processor)
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.share_prefixes = share_prefixes
        self._quantization = quantization
        self._group = own_group()
        self.images_encoded = 0
        self._features: OrderedDict[Image, torch.Tensor | UserError] = OrderedDict()
        self._cache_bytes = cache_bytes

    @property
    def takes_turns(self) -> bool:
        """Whether the model was fine-tuned on conversations; see `Generator`."""
        return bool(self.processor.takes_turns)

    @property
    def protocol(self) -> dict[str, str]:
        """The keys of a result's protocol that describe the model."""
        quantized = {} if self._quantization is None else {"quantization": self._quantization}
        return {"adapter": "mm1", "dtype": str(self.model.dtype), **quantized}

    @property
    def max_context(self) -> int:
        """Tokens that the decoder has positions for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def count_tokens(self, prompt: Document) -> int:
        """Return the number of tokens of a prompt, including image tokens."""
        return len(self.processor.encode(prompt, close=False).input_ids)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Document],
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        advance: Advance | None = None,
        heed: Callable[[list[int]], None] | None = None,
    ) -> list[Answer]:
        """Return each prompt's greedy continuation; see `Generator`.

        `heed` gets the tokens so far of the first prompt of each batch, after each of them: a chat shows them.
        """
        answers: list[Answer] = [""] * len(prompts)
        for group in self._groups(prompts, self.max_context - max_new_tokens):
            cache = self._prefill(group.prefix) if group.prefix else None
            for batch in self._batches(group.queries):
                if isinstance(cache, UserError):
                    generated: list[Answer] = [cache] * len(batch)
                else:
                    generated = self._answer([piece for _, piece in batch], cache, max_new_tokens, stop, heed)
                for (index, _), answer in zip(batch, generated, strict=True):
                    answers[index] = answer
                if advance:
                    advance(len(batch))
        return answers

    @torch.inference_mode()
    def log_likelihoods(
        self, prompts: Sequence[Document], continuations: Sequence[str], *, advance: Advance | None = None
    ) -> list[Likelihood]:
        """Return the likelihood of each continuation after its prompt; see `Generator`."""
        likelihoods = [Likelihood(-np.inf, False)] * len(prompts)
        queries: list[tuple[int, _Piece]] = []
        lengths: dict[int, int] = {}
        for index, (prompt, text) in enumerate(zip(prompts, continuations, strict=True)):
            encoded = self.processor.encode(prompt, close=False)
            answer = following(self.processor, prompt, text)
            ending = self.processor.tokenizer(answer, add_special_tokens=False, split_special_tokens=True)
            ids = np.concatenate([encoded.input_ids, np.array(ending["input_ids"], dtype=np.int64)])
            if len(ids) > self.max_context:
                raise ContextTooShort(index, len(ids), self.max_context)
            queries.append((index, _Piece(ids, encoded.images)))
            lengths[index] = len(ids) - len(encoded.input_ids)
        for batch in self._batches(queries):
            for index, likelihood in self._likelihoods(batch, lengths):
                likelihoods[index] = likelihood
            if advance:
                advance(len(batch))
        return likelihoods

    def _likelihoods(
        self, batch: list[tuple[int, _Piece]], lengths: dict[int, int]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Yield the likelihoods of the last tokens of pieces of equal length."""
        features = self._encode([piece for _, piece in batch])
        for (index, _), encoded in zip(batch, features, strict=True):
            if isinstance(encoded, UserError):
                yield index, Likelihood(-np.inf, False, encoded)
        valid = [query for query, encoded in zip(batch, features, strict=True) if isinstance(encoded, torch.Tensor)]
        if not valid:
            return
        ids = torch.from_numpy(np.stack([piece.ids for _, piece in valid])).to(self.device)
        pictures = torch.cat([encoded for encoded in features if isinstance(encoded, torch.Tensor)])
        keep = max(lengths[index] for index, _ in valid) + 1
        logits = self._logits(ids, pictures, None, keep)[:, :-1]
        log_probabilities = logits.log_softmax(dim=-1)
        targets = ids[:, ids.shape[1] - keep + 1 :]
        by_token = log_probabilities.gather(-1, targets[..., None])[..., 0].double()
        likeliest = logits.argmax(dim=-1) == targets
        for row, (index, _) in enumerate(valid):
            own = slice(keep - 1 - lengths[index], None)
            yield index, Likelihood(float(by_token[row, own].sum()), bool(likeliest[row, own].all()))

    @torch.inference_mode()
    def embed(self, images: Sequence[Image]) -> np.ndarray:
        """Return features for finding similar pictures: the mean of a picture's image tokens, scaled to length 1.

        Args:
            images: N pictures.

        Returns:
            (N, hidden) float32; zeros for a picture that can't be decoded.
        """
        features = self._encode([_Piece(np.empty(0, dtype=np.int64), (image,)) for image in images])
        width = self.model.config.get_text_config().hidden_size
        rows = [torch.zeros(width) if isinstance(f, UserError) else f.float().mean(dim=0).cpu() for f in features]
        # Shots are chosen by them, so all ranks of a group must have the same ones.
        return self._group.first_ranks(torch.nn.functional.normalize(torch.stack(rows), dim=-1)).numpy()

    def _groups(self, prompts: Sequence[Document], room: int) -> list[_Group]:
        """Group prompts that are equal up to their last picture, where the query begins."""
        unshared = _Group(None, [])
        by_prefix: defaultdict[tuple[bytes, tuple[Image, ...]], list[tuple[int, Any]]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            encoded = self.processor.encode(prompt, close=False)
            if len(encoded.input_ids) > room:
                needed = len(encoded.input_ids) + self.max_context - room
                raise ContextTooShort(index, needed, self.max_context)
            if self.share_prefixes and len(encoded.images) > 1:
                start = int(encoded.image_starts[-1])
                by_prefix[encoded.input_ids[:start].tobytes(), encoded.images[:-1]].append((index, encoded))
            else:
                unshared.queries.append((index, _Piece(encoded.input_ids, encoded.images)))
        groups = []
        for (ids, images), queries in by_prefix.items():
            if len(queries) == 1:
                ((index, encoded),) = queries
                unshared.queries.append((index, _Piece(encoded.input_ids, encoded.images)))
                continue
            prefix = _Piece(np.frombuffer(ids, dtype=np.int64), images)
            rest = [(i, _Piece(e.input_ids[len(prefix.ids) :], e.images[-1:])) for i, e in queries]
            groups.append(_Group(prefix, rest))
        return [*groups, unshared]

    def _batches(self, queries: list[tuple[int, _Piece]]) -> Iterator[list[tuple[int, _Piece]]]:
        by_length: defaultdict[int, list[tuple[int, _Piece]]] = defaultdict(list)
        for query in queries:
            by_length[len(query[1].ids)].append(query)
        for _, same_length in sorted(by_length.items()):
            for start in range(0, len(same_length), self.batch_size):
                yield same_length[start : start + self.batch_size]

    def _prefill(self, piece: _Piece) -> DynamicCache | UserError:
        """Return the key-value cache of a shared beginning (batch of 1)."""
        features = self._encode([piece])[0]
        if isinstance(features, UserError):
            return features
        cache = DynamicCache(config=self.model.config)
        self._forward(torch.from_numpy(piece.ids.copy())[None], features, cache)
        return cache

    def _answer(
        self,
        pieces: list[_Piece],
        shared: DynamicCache | None,
        max_new_tokens: int,
        stop: Sequence[str],
        heed: Callable[[list[int]], None] | None,
    ) -> list[Answer]:
        """Return the answers to pieces of equal length that follow the same cache."""
        features = self._encode(pieces)
        answers: list[Answer] = [f if isinstance(f, UserError) else "" for f in features]
        rows = [row for row, encoded in enumerate(features) if not isinstance(encoded, UserError)]
        if not rows:
            return answers
        cache = self._repeat(shared, len(rows))
        ids = torch.from_numpy(np.stack([pieces[row].ids for row in rows]))
        pictures = torch.cat([encoded for encoded in features if not isinstance(encoded, UserError)])
        tokens = self._forward(ids, pictures, cache)
        texts = self._continue(tokens, cache, max_new_tokens, stop, heed)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text
        return answers

    def _continue(
        self,
        tokens: torch.Tensor,
        cache: DynamicCache,
        max_new_tokens: int,
        stop: Sequence[str],
        heed: Callable[[list[int]], None] | None,
    ) -> list[str]:
        """Generate from the first token of each row (B,) until all rows have ended."""
        stops, ends = Stops(self.processor.tokenizer, stop), self.processor.end_token_ids
        written: list[list[int]] = [[] for _ in range(len(tokens))]
        ended = [False] * len(tokens)
        for step in range(max_new_tokens):
            for row, token in enumerate(tokens.tolist()):
                if not ended[row]:
                    written[row].append(token)
                    ended[row] = token in ends or stops.found(written[row])
                    if heed and row == 0:
                        heed(written[row])
            if all(ended) or step == max_new_tokens - 1:
                break
            tokens = self._forward(tokens[:, None], None, cache)
        # An end token that isn't special would stay in the decoded text.
        words = [ids[:-1] if ids and ids[-1] in ends else ids for ids in written]
        return [stops.text(ids) for ids in words]

    def _forward(self, ids: torch.Tensor, pictures: torch.Tensor | None, cache: DynamicCache) -> torch.Tensor:
        """Extend the cache by `ids` (B, L) and return the likeliest next tokens (B,)."""
        tokens = self._logits(ids.to(self.device), pictures, cache, 1)[:, -1].argmax(dim=-1)
        return self._group.first_ranks(tokens)

    def _logits(
        self, ids: torch.Tensor, pictures: torch.Tensor | None, cache: DynamicCache | None, keep: int
    ) -> torch.Tensor:
        """Return the logits (B, keep, vocabulary) after the last `keep` of `ids` (B, L).

        `pictures` holds the features (tokens, hidden) of the image tokens, in the order of `ids`.
        """
        embeddings = self.model.get_input_embeddings()(ids)
        if pictures is not None and pictures.numel():
            embeddings[ids == self.processor.image_token_id] = pictures.to(embeddings.dtype)
        output = self.model(
            inputs_embeds=embeddings, past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep
        )
        logits = output.logits.float()
        logits[..., self.processor.image_token_id] = -torch.inf  # the model can't write pictures
        return logits

    def _repeat(self, shared: DynamicCache | None, count: int) -> DynamicCache:
        """Return a cache of `count` rows that begins with the shared one, which doesn't change."""
        layers = [
            (keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1)) for keys, values, _ in shared or ()
        ]
        return DynamicCache(layers, config=self.model.config)

    def _encode(self, pieces: Sequence[_Piece]) -> list[torch.Tensor | UserError]:
        """Return the features (image tokens of all its pictures, hidden) of each piece, or the error of a picture."""
        needed = dict.fromkeys(image for piece in pieces for image in piece.images)
        known = {image: self._features[image] for image in needed if image in self._features}
        for image in known:
            self._features.move_to_end(image)
        missing = [image for image in needed if image not in known]
        for start in range(0, len(missing), self.batch_size):
            known |= self._encode_new(missing[start : start + self.batch_size])
        return [self._concatenate([known[image] for image in piece.images]) for piece in pieces]

    def _concatenate(self, features: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
        tensors = []
        for encoded in features:
            if isinstance(encoded, UserError):
                return encoded
            tensors.append(encoded)
        width = self.model.config.get_text_config().hidden_size
        return torch.cat(tensors) if tensors else torch.empty(0, width, dtype=self.model.dtype, device=self.device)

    def _encode_new(self, images: Sequence[Image]) -> dict[Image, torch.Tensor | UserError]:
        results: dict[Image, torch.Tensor | UserError] = {}
        pixels: list[np.ndarray] = []
        for image in images:
            try:
                pixels.append(self.processor.pixel_values([image]))
            except (ImageError, UserError) as error:
                results[image] = UserError(str(error))
        self._features |= results
        if pixels:
            values = self.processor.normalize(torch.from_numpy(np.concatenate(pixels)).to(self.device))
            features = torch.cat(
                [
                    self.model.get_image_features(batch, return_dict=True).pooler_output
                    for batch in values.split(self.batch_size)
                ]
            )
            by_picture = [tokens.flatten(0, 1) for tokens in features.split([len(own) for own in pixels])]
            encoded = dict(zip((image for image in images if image not in results), by_picture, strict=True))
            self.images_encoded += len(encoded)
            self._features |= encoded
            while len(self._features) > max(1, self._cache_bytes // max(tokens.nbytes for tokens in by_picture)):
                self._features.popitem(last=False)
            results |= encoded
        return results
