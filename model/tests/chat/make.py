"""Makes formats.json: what transformers renders from the templates beside it.

    pip install transformers==5.24.0 jinja2==3.1.6 && python make.py
"""
import datetime
import json
import pathlib

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

here = pathlib.Path(__file__).parent


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 4, 15, 6, 7)


chat_template_utils.datetime = Fixed


def turns(*parts):
    return [{"role": role, "content": content} for role, content in parts]


conversations = {
    "one turn": turns(("user", "Hello")),
    "with instructions": turns(("system", "Be brief."), ("user", "Hello")),
    "several turns": turns(
        ("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", "Who are you?"), ("assistant", "A model.")
    ),
    "unicode": turns(("user", "Grüße, 世界 👋🏽 e\u0301 \u200b\u2028"), ("assistant", "Ünï\"co'de\\")),
    "empty": turns(("system", ""), ("user", ""), ("assistant", "")),
    "white space": turns(("user", "  before and after \n\n"), ("assistant", "\n\n line \t\n"), ("user", "\u00a0x\u3000")),
    "template in content": turns(("user", "{{ 7 * 7 }} {% for %} {# #} <|im_end|> <b>&amp;</b>")),
    "thought": turns(("user", "2+2?"), ("assistant", "<think>hm</think>\n\n4"), ("user", "sure?")),
    "roles twice": turns(("user", "a"), ("user", "b")),
}
tokens = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"),
    "bitnet": ("<|begin_of_text|>", "<|eot_id|>"),
    "falcon3": ("<|begin_of_text|>", "<|endoftext|>"),
    "chatml": ("<|endoftext|>", "<|im_end|>"),
    "alternating": ("<s>", "</s>"),
    "language": ("<s>", "</s>"),
}
cases = []
for name, (bos, eos) in tokens.items():
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), bos_token=bos, eos_token=eos
    )
    tokenizer.chat_template = (here / f"{name}.jinja").read_text()
    for what, conversation in conversations.items():
        for prompt in (False, True):
            case = {"template": name, "bos": bos, "eos": eos, "conversation": what, "add_generation_prompt": prompt}
            try:
                case["text"] = tokenizer.apply_chat_template(
                    conversation, tokenize=False, add_generation_prompt=prompt
                )
            except jinja2.exceptions.TemplateError as error:
                case["error"] = str(error)
            cases.append(case)
versions = {"transformers": transformers.__version__, "jinja2": jinja2.__version__}
made = {"versions": versions, "now": "2026-03-04T15:06:07", "conversations": conversations, "cases": cases}
(here / "formats.json").write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
print(len(cases), "cases")
