"""Chat templates in the manner of well-known families."""

from __future__ import annotations

from tests.model.saved.make_saved import CHATML

# Words in brackets, without BOS, and an answer that ends with the tokenizer's EOS.
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + m['content'][0]['text'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ '[' + m['role'] + ']' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ ' ' + part['text'] }}{% endif %}{% endfor %}"
    "{{ '[answer]' }}{% endif %}{% endfor %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + m['content'][0]['text'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ '[INST]' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ ' ' + part['text'] }}{% endif %}{% endfor %}"
    "{{ '[/INST]' }}{% endif %}{% endfor %}"
)
CONTENT = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
HEADERS = (  # as Llama 3 has it
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}" + CONTENT + "{{ '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}" + CONTENT + "{{ '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
TURNS = (  # as Gemma has it: no system, roles must alternate
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}" + CONTENT + "{{ '</turn>' }}{% endgeneration %}{% else %}" + CONTENT + "{{ '</turn>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (  # as Qwen 2 has it
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe short.<|im_end|>\n' }}{% endif %}" + CHATML
)
NEXT_ONLY = "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' }}{% endif %}" + CONTENT + "{% endfor %}"
NOTHING = "{% for m in messages %}{{ '\n# ' + m['role'] + '\n' }}" + CONTENT + "{% endfor %}"
