"""Generation with pictures, written here: the source distribution leaves the library's own tests of it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from mm1.model import MM1ForConditionalGeneration
from tests.peers.variants import VARIANTS, Tester

NEW = 6


class TestGeneration:
    @pytest.fixture(autouse=True, params=["AveragePool", "CAbstractor", "Sparse"])
    def _set_up(self, request: pytest.FixtureRequest) -> None:
        torch.manual_seed(0)
        self.tester = Tester(self, **VARIANTS[request.param])
        config, self.inputs = self.tester.prepare_config_and_inputs_for_common()
        config.text_config.initializer_range = 0.2  # what is said then hangs on the picture
        self.model = MM1ForConditionalGeneration(config).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = config.text_config.pad_token_id
        self.settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}

    def _new(self, output: torch.Tensor) -> torch.Tensor:
        return output[:, self.inputs["input_ids"].shape[1] :]

    def _greedy(self, **changes: Any) -> Any:
        return self.model.generate(**self.inputs, **(self.settings | changes))

    def _row(self, row: int) -> dict[str, torch.Tensor]:
        return {name: tensor[row : row + 1] for name, tensor in self.inputs.items()}

    def _by_hand(self) -> torch.Tensor:
        """Greedy without a cache and without `generate`."""
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        pixels = self.inputs["pixel_values"]
        for _ in range(NEW):
            with torch.no_grad():
                logits = self.model(input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False).logits
            logits = logits[:, -1]
            logits[:, self.model.config.image_token_id] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            mask = torch.ones_like(ids)
        return ids

    def test_greedy_is_what_the_model_says(self) -> None:
        assert self._greedy().tolist() == self._by_hand().tolist()

    def test_without_a_cache(self) -> None:
        assert self._greedy(use_cache=False).tolist() == self._greedy().tolist()

    def test_static_cache(self) -> None:
        static = self._greedy(cache_implementation="static", disable_compile=True)
        assert static.tolist() == self._greedy().tolist()

    def test_outputs(self) -> None:
        self.model.set_attn_implementation("eager")
        out = self._greedy(
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            output_hidden_states=True,
            output_attentions=True,
        )
        rows, length = self.inputs["input_ids"].shape
        assert len(out.scores) == NEW
        assert len(out.logits) == NEW
        assert out.hidden_states[0][0].shape == (rows, length, self.tester.hidden_size)
        assert out.hidden_states[1][0].shape == (rows, 1, self.tester.hidden_size)
        assert out.attentions[0][0].shape == (rows, self.tester.num_attention_heads, length, length)

    def test_picture_matters(self) -> None:
        other = self.inputs | {"pixel_values": self.inputs["pixel_values"].flip(0)}
        with torch.no_grad():
            assert not torch.allclose(self.model(**self.inputs).logits, self.model(**other).logits, atol=0.0001)

    def test_sampling(self) -> None:
        torch.manual_seed(1)
        out = self._greedy(do_sample=True, num_return_sequences=2)
        assert len(out) == 2 * self.tester.batch_size
        assert not (self._new(out) == self.model.config.image_token_id).any()

    def test_beams(self) -> None:
        out = self._greedy(num_beams=2, num_return_sequences=2)
        assert len(out) == 2 * self.tester.batch_size

    def test_beams_row_by_row(self) -> None:
        together = self._greedy(num_beams=3)
        for row in range(self.tester.batch_size):
            alone = self.model.generate(**self._row(row), num_beams=3, **self.settings)
            assert alone[0].tolist() == together[row].tolist()

    def test_prompt_lookup(self) -> None:
        for row in range(self.tester.batch_size):
            looked_up = self.model.generate(**self._row(row), prompt_lookup_num_tokens=2, **self.settings)
            assert looked_up.tolist() == self.model.generate(**self._row(row), **self.settings).tolist()

    def test_assistant(self) -> None:
        assisted = self.model.generate(**self._row(0), assistant_model=self.model, **self.settings)
        assert assisted.tolist() == self.model.generate(**self._row(0), **self.settings).tolist()

    def test_left_padding(self) -> None:
        pad = 3
        padded = {
            "input_ids": torch.nn.functional.pad(self.inputs["input_ids"], (pad, 0), value=self.tester.pad_token_id),
            "attention_mask": torch.nn.functional.pad(self.inputs["attention_mask"], (pad, 0)),
            "pixel_values": self.inputs["pixel_values"],
        }
        with torch.no_grad():
            places = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            left = self.model(**padded, position_ids=places).logits[:, -1]
            torch.testing.assert_close(left, self.model(**self.inputs).logits[:, -1], atol=1e-4, rtol=1e-4)
        out = self.model.generate(**padded, **self.settings)
        assert out[:, -NEW:].tolist() == self._new(self._greedy()).tolist()

    def test_from_embeddings(self) -> None:
        """Both ways of the library: the words' embeddings with and without ids, pictures placed by the model."""
        ids = self.inputs["input_ids"]
        embeds = self.model.get_input_embeddings()(ids)
        rest = {name: self.inputs[name] for name in ("attention_mask", "pixel_values")}
        expected = self._new(self._greedy())
        both = self.model.generate(input_ids=ids, inputs_embeds=embeds, **rest, **self.settings)
        assert both[:, -NEW:].tolist() == expected.tolist()
        alone = self.model.generate(inputs_embeds=embeds, **rest, **self.settings)
        assert alone.tolist() == expected.tolist()

    def test_beams_from_embeddings(self) -> None:
        embeds = self.model.get_input_embeddings()(self.inputs["input_ids"])
        rest = {name: self.inputs[name] for name in ("attention_mask", "pixel_values")}
        out = self.model.generate(inputs_embeds=embeds, num_beams=2, **rest, **self.settings)
        assert out.tolist() == self._new(self._greedy(num_beams=2)).tolist()

    def test_goes_on_from_a_cache(self) -> None:
        first = self._greedy(max_new_tokens=3, return_dict_in_generate=True)
        rest = self.model.generate(
            input_ids=first.sequences,
            attention_mask=torch.ones_like(first.sequences),
            past_key_values=first.past_key_values,
            **(self.settings | {"max_new_tokens": NEW - 3}),
        )
        assert rest.tolist() == self._greedy().tolist()

    def test_prefill_in_chunks(self) -> None:
        for size in (2, 3, self.tester.num_image_tokens + 1):
            assert self._greedy(prefill_chunk_size=size).tolist() == self._greedy().tolist()

    def test_prefill_in_chunks_of_words(self) -> None:
        words = {n: self.inputs[n][:, self.tester.num_image_tokens :] for n in ("input_ids", "attention_mask")}
        chunks = self.model.generate(**words, prefill_chunk_size=3, **self.settings)
        assert chunks.tolist() == self.model.generate(**words, **self.settings).tolist()

    def test_saved_settings(self, tmp_path: Path) -> None:
        self.model.save_pretrained(tmp_path)
        again = MM1ForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert again.generation_config.suppress_tokens == self.model.generation_config.suppress_tokens
        assert again.generate(**self.inputs, **self.settings).tolist() == self._greedy().tolist()

    def test_own_generation_config(self) -> None:
        """A user's own settings; the picture's token must not be said under them either."""
        settings = GenerationConfig(
            max_new_tokens=40, do_sample=True, temperature=5.0, pad_token_id=self.tester.pad_token_id
        )
        torch.manual_seed(0)
        said = [self._new(self.model.generate(**self.inputs, generation_config=settings)) for _ in range(5)]
        assert not any((some == self.model.config.image_token_id).any() for some in said)

    def test_half_precision(self) -> None:
        self.model.bfloat16()
        assert self._greedy().shape[1] == self.inputs["input_ids"].shape[1] + NEW
