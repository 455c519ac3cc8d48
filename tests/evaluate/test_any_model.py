"""Other families' models, tiny and random, through the adapter: batches of any size answer alike."""

import json

import pytest
import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.model.resolve import model_hash
from mm1.processing.tokenizer import train_tokenizer

from .conftest import question
from .test_evaluate_model import BASE
from .test_generation import STOP, prompts

CHAT = (
    "{% for message in messages %}User:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %} Assistant:{% endfor %}"
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tokenizer(*extra):
    trained = train_tokenizer([question("train", n).text for n in range(12)] * 3, 400)
    trained.add_special_tokens({"additional_special_tokens": list(extra)})
    return trained


class WithoutVideo:
    """The processors of these families insist on a video processor, which needs torchvision."""

    def check_argument_for_proper_class(self, name, argument):
        return None


class QwenProcessor(WithoutVideo, Qwen2VLProcessor):
    pass


class OnevisionProcessor(WithoutVideo, LlavaOnevisionProcessor):
    pass


def idefics3(chat_template=None):
    rows = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    words = tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *rows)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    processor = Idefics3Processor(images, words, image_seq_len=4, chat_template=chat_template)
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    config = Idefics3Config(
        image_token_id=processor.image_token_id,
        scale_factor=2,
        vision_config={**vision, "num_attention_heads": 2, "intermediate_size": 32},
        text_config={"model_type": "llama", "vocab_size": len(words), **SIZES},
    )
    config.pad_token_id = 0
    torch.manual_seed(0)
    return Idefics3ForConditionalGeneration(config), processor


def qwen2_vl():
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28, patch_size=14, merge_size=2)
    processor = QwenProcessor(images, words, None)
    ids = {f"{kind}_token_id": words.convert_tokens_to_ids(f"<|{kind}|>") for kind in ("vision_start", "vision_end")}
    config = Qwen2VLConfig(
        text_config={
            **SIZES,
            "vocab_size": len(words),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2},
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        **ids,
    )
    return Qwen2VLForConditionalGeneration(config), processor


def llava_onevision():
    words = tokenizer("<image>", "<video>")
    images = LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=[[16, 16]])
    processor = OnevisionProcessor(images, words, None, num_image_tokens=4, vision_feature_select_strategy="full")
    processor.image_token_id = words.convert_tokens_to_ids("<image>")
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 16,
            "patch_size": 8,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vision_use_head": False,
        },
        text_config={"model_type": "qwen2", "vocab_size": len(words), **SIZES},
        image_token_index=processor.image_token_id,
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[16, 16]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


@pytest.mark.parametrize("build", [idefics3, qwen2_vl, llava_onevision])
def test_any_batch_size_gives_the_same_answers(build):
    model, processor = build()
    for parameter in model.parameters():
        parameter.data.mul_(4.0)
    asked = prompts(8)
    one = TransformersGenerator(model, processor, batch_size=1)
    alone = one.generate(asked, max_new_tokens=4, stop=STOP)
    assert TransformersGenerator(model, processor, batch_size=4).generate(asked, max_new_tokens=4, stop=STOP) == alone
    assert len(set(alone)) > 2
    assert one.count_tokens(asked[2]) > one.count_tokens(asked[1]) > one.count_tokens(asked[0])


def test_damaged_picture_and_stop():
    model, processor = idefics3()
    generator = TransformersGenerator(model, processor)
    broken = Document("broken", "caption", (Image(b"not a picture"),))
    error, whole = generator.generate([broken, prompts(1)[0]], max_new_tokens=6, stop=[])
    assert isinstance(error, UserError)
    assert isinstance(whole, str)
    mark = whole[1]
    (cut,) = generator.generate(prompts(1), max_new_tokens=6, stop=[mark])
    assert cut == whole.split(mark)[0].strip()


def test_chat_template_and_plain_prompt():
    model, processor = idefics3(CHAT)
    chat = TransformersGenerator(model, processor)
    plain = TransformersGenerator(model, processor, chat=False)
    (prompt,) = prompts(1)
    seen = [generator._inputs([prompt])["input_ids"][0] for generator in (chat, plain)]
    image = processor.tokenizer.decode(seen[1]).removesuffix(prompt.text)
    assert image.count("<image>") == processor.image_seq_len
    assert processor.tokenizer.decode(seen[0]) == f"User:{image}{prompt.text} Assistant:"
    assert (chat.protocol["adapter"], plain.protocol["adapter"]) == ("chat template", "plain prompt")


def test_saved_and_loaded(tmp_path):
    model, processor = idefics3()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path, batch_size=2, device="cpu")
    assert isinstance(loaded, TransformersGenerator)
    expected = TransformersGenerator(model, processor).generate(prompts(3), max_new_tokens=3, stop=STOP)
    assert loaded.generate(prompts(3), max_new_tokens=3, stop=STOP) == expected
    assert len(model_hash(tmp_path)) == 32


def test_a_plain_task_is_not_laid_into_another_family_s_template(squares, tmp_path):
    model, processor = idefics3(CHAT)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    file = tmp_path / "squares.yaml"
    file.write_text(json.dumps({key: value for key, value in {**BASE, "plain": True}.items() if key != "name"}))
    settings = {"tasks": [str(file)], "shots": [0], "limit": 2, "device": "cpu"}
    with pytest.raises(UserError, match=r"task squares: .* template would be laid around them: add --plain"):
        evaluate_run(tmp_path / "model", settings=EvaluationSettings(**settings))
    (result,) = evaluate_run(tmp_path / "model", settings=EvaluationSettings(**settings, plain=True))
    assert result["protocol"]["adapter"] == "plain prompt"


def test_no_model_there(tmp_path):
    with pytest.raises(UserError, match="is no model"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="can't be loaded as an image-text-to-text model"):
        load_generator(tmp_path)
