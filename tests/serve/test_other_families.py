"""Models of other families: their own processors, one request at a time, the words that `mm1 evaluate` would score."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mm1.document import Document, Image, Text
from mm1.evaluate.models.loading import load_generator
from tests.evaluate.test_any_model import CHAT, idefics3
from tests.serve.conftest import data_url, make_service, png, serving, shown


@pytest.mark.parametrize("template", [CHAT, None])
def test_another_family_is_served(tmp_path: Path, template: str | None) -> None:
    model, processor = idefics3(template)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    parts = (Image(png("red")), Text("is it red?", target=False))
    (expected,) = load_generator(tmp_path).generate([Document("a", "caption", parts)], max_new_tokens=9, stop=["zz"])
    with serving(make_service(tmp_path)) as served:
        if template is None:
            assert "mm1 sft" in served.chat(shown("a")).json()["error"]["message"]
            body: dict[str, Any] = {"prompt": "<image>is it red?", "images": [data_url(png("red"))], "max_tokens": 9}
            answer = served.http.post("/v1/completions", json=body).json()
            assert answer["choices"][0]["text"].strip() == expected
            return
        with ThreadPoolExecutor(3) as pool:
            asked = [shown(png("red"), "is it red?")] * 3
            answers = list(pool.map(lambda one: served.chat(one, max_tokens=9).json(), asked))
        assert [answer["choices"][0]["message"]["content"] for answer in answers] == [expected] * 3
        rounds = [*shown(png("red"), "is it red?"), {"role": "assistant", "content": "yes"}, *shown("is it blue?")]
        more = served.chat(rounds, max_tokens=2).json()["usage"]["prompt_tokens"]
        assert more > answers[0]["usage"]["prompt_tokens"]
        assert served.chat(shown(png("red")[:60])).status_code == 400
