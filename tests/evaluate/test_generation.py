import pytest
import torch

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.models.generator import ContextTooShort
from mm1.evaluate.models.mm1 import MM1Generator

from .conftest import COLORS, question, square

STOP = ["\n"]


def prompts(count: int = 24) -> list[Document]:
    """Prompts with 0 to 2 shots, some sharing their shots, of several lengths."""
    shots = [question("shots", 50 + n).parts for n in range(4)]
    made = []
    for number in range(count):
        query = question("test", number).parts[:2]
        before = [(), shots[0], shots[1] + shots[2], shots[number % 4]][number % 4]
        made.append(Document(f"p/{number}", "interleaved", (*before, *query)))
    return made


def plain_greedy(model, processor, prompt: Document, max_new_tokens: int) -> str:
    """Whole forward passes over pixels and tokens, one prompt, no cache: what generation must equal."""
    encoded = processor.encode(prompt, close=False)
    ids = torch.from_numpy(encoded.input_ids)[None]
    pixels = processor.normalize(torch.from_numpy(processor.pixel_values(encoded.images)))
    written: list[int] = []
    with torch.no_grad():
        for _ in range(max_new_tokens):
            logits = model(input_ids=ids, pixel_values=pixels).logits
            logits[..., processor.image_token_id] = -torch.inf
            token = int(logits[0, -1].argmax())
            written.append(token)
            if token == processor.tokenizer.eos_token_id or "\n" in processor.tokenizer.decode(written):
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return processor.tokenizer.decode(written, skip_special_tokens=True).split("\n")[0].strip()


def test_equals_a_plain_loop_for_any_batch_size_with_and_without_sharing(model, processor):
    asked = prompts()
    expected = [plain_greedy(model, processor, prompt, 6) for prompt in asked]
    assert len(set(expected)) > 4  # else the test could not tell prompts apart
    for batch_size in (1, 3, 64):
        for share in (True, False):
            generator = MM1Generator(model, processor, batch_size=batch_size, share_prefixes=share)
            assert generator.generate(asked, max_new_tokens=6, stop=STOP) == expected


def test_does_not_depend_on_order(model, processor):
    asked = prompts()
    generator = MM1Generator(model, processor, batch_size=4)
    forward = generator.generate(asked, max_new_tokens=5, stop=STOP)
    assert generator.generate(asked[::-1], max_new_tokens=5, stop=STOP) == forward[::-1]


def test_a_picture_is_encoded_once(model, processor):
    generator = MM1Generator(model, processor, batch_size=4)
    asked = prompts()
    generator.generate(asked, max_new_tokens=2, stop=STOP)
    generator.generate(asked, max_new_tokens=2, stop=STOP)
    assert generator.images_encoded == len({image for prompt in asked for image in prompt.images})


def test_little_memory_for_features_changes_nothing(model, processor):
    asked = prompts()
    rich = MM1Generator(model, processor, batch_size=4)
    poor = MM1Generator(model, processor, batch_size=4, cache_bytes=1)
    for _ in range(2):
        answers = rich.generate(asked, max_new_tokens=4, stop=STOP)
        assert poor.generate(asked, max_new_tokens=4, stop=STOP) == answers
    assert poor.images_encoded > rich.images_encoded


def test_damaged_picture_is_that_prompts_error_alone(model, processor):
    broken = Image(b"not a picture")
    asked = prompts(8)
    shot = (broken, Text(" x\n"))
    spoilt = [
        Document("alone", "caption", (broken,)),
        Document("shot 1", "interleaved", (*shot, square(COLORS[0]))),
        Document("shot 2", "interleaved", (*shot, square(COLORS[1]))),
    ]
    generator = MM1Generator(model, processor, batch_size=4)
    answers = generator.generate([*spoilt, *asked], max_new_tokens=4, stop=STOP)
    assert all(isinstance(answer, UserError) for answer in answers[:3])
    assert answers[3:] == generator.generate(asked, max_new_tokens=4, stop=STOP)


def test_stops_before_the_first_stop_string(model, processor):
    generator = MM1Generator(model, processor)
    (whole,) = generator.generate(prompts(1), max_new_tokens=8, stop=[])
    assert isinstance(whole, str)
    assert len(whole) > 3
    mark = whole[2]
    (cut,) = generator.generate(prompts(1), max_new_tokens=8, stop=[mark])
    assert cut == whole.split(mark)[0].strip()


def test_prompt_without_pictures(model, processor):
    asked = [Document("t", "text", (Text("Question: is it red? Short answer:"),))]
    generator = MM1Generator(model, processor)
    assert isinstance(generator.generate(asked, max_new_tokens=3, stop=STOP)[0], str)


def test_prompts_with_and_without_pictures_of_equal_length_are_batched(model, processor):
    """Some benchmarks have rows without a picture."""
    generator = MM1Generator(model, processor)
    shown = Document("with", "caption", (square(COLORS[0]), Text("a")))
    tokens = generator.count_tokens(shown)
    alone = Document("without", "text", (Text("0" * (tokens - 1)),))  # a digit is a token
    asked = [shown, alone, Document("both", "caption", (square(COLORS[1]), Text("b")))]
    assert {generator.count_tokens(prompt) for prompt in asked} == {tokens}
    each = [generator.generate([prompt], max_new_tokens=4, stop=STOP)[0] for prompt in asked]
    assert generator.generate(asked, max_new_tokens=4, stop=STOP) == each
    likely = [generator.log_likelihoods([prompt], ["x"])[0].total for prompt in asked]
    together = [found.total for found in generator.log_likelihoods(asked, ["x"] * 3)]
    assert together == pytest.approx(likely, abs=1e-4)


def test_too_long_a_prompt_is_named(model, processor):
    long = Document("long", "text", (Text("red " * (model.config.get_text_config().max_position_embeddings)),))
    with pytest.raises(ContextTooShort) as caught:
        MM1Generator(model, processor).generate([*prompts(2), long], max_new_tokens=3, stop=STOP)
    assert caught.value.index == 2


def test_embedding_is_of_length_one_and_nothing_for_a_damaged_picture(model, processor):
    generator = MM1Generator(model, processor, batch_size=2)
    pictures = [square(color) for color in COLORS]
    found = generator.embed([*pictures, Image(b"not a picture")])
    lengths = (found**2).sum(axis=1) ** 0.5
    assert lengths[:-1] == pytest.approx([1.0] * len(pictures), abs=1e-5)
    assert lengths[-1] == 0.0
    likeness = found[:-1] @ found[:-1].T
    assert (likeness.argmax(axis=1) == range(len(pictures))).all()


def test_prompts_with_and_without_pictures_share_a_batch(model, processor):
    """Of equal length, so that they do: an image's tokens in some, as many words in the others."""
    generator = MM1Generator(model, processor, batch_size=8)
    pictures = [question("test", n).parts[0] for n in range(2)]
    asked = [Document(f"p/{n}", "caption", (picture, Text("ab", target=False))) for n, picture in enumerate(pictures)]
    length = generator.count_tokens(asked[0])
    words = "".join("abcdefghijklmnopqrstuvwxyz"[n % 26] for n in range(length))
    for end in range(1, length):
        plain = Document(f"t/{end}", "text", (Text(words[:end], target=False),))
        if generator.count_tokens(plain) == length:
            break
    assert generator.count_tokens(plain) == length
    two = Document("two", "interleaved", (pictures[0], pictures[1], Text("ab", target=False)))
    for batch in ([asked[0], plain, asked[1]], [plain, plain], [plain, asked[0]], [two, plain, asked[0]]):
        alone = [generator.generate([prompt], max_new_tokens=4, stop=STOP)[0] for prompt in batch]
        assert generator.generate(batch, max_new_tokens=4, stop=STOP) == alone
        found = generator.log_likelihoods(batch, ["xy"] * len(batch))
        single = [generator.log_likelihoods([prompt], ["xy"])[0] for prompt in batch]
        assert [some.total for some in found] == pytest.approx([some.total for some in single], abs=1e-4)
