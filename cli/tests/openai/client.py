"""The official client of OpenAI's API against `onebit serve --model wikitext2-25m` at the URL that is given; the key is in ONEBIT_API_KEY."""

import asyncio
import os
import sys

import openai

URL, KEY, MODEL = sys.argv[1] + "/v1", os.environ["ONEBIT_API_KEY"], "wikitext2-25m"
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
question = [{"role": "user", "content": "A small boat"}]

assert [model.id for model in client.models.list()] == [MODEL]
assert client.models.retrieve(MODEL).object == "model"

# Whole and as a stream.
whole = client.chat.completions.create(
    model=MODEL, messages=question, max_tokens=20, seed=1, n=2, logprobs=True, top_logprobs=2
)
first, second = whole.choices
assert first.message.content and first.message.content != second.message.content
assert len(first.logprobs.content) == 20 and len(first.logprobs.content[0].top_logprobs) == 2
assert first.finish_reason == "length" and whole.usage.completion_tokens == 40
pieces, usage = [], None
for chunk in client.chat.completions.create(
    model=MODEL, messages=question, max_tokens=20, seed=1, stream=True, stream_options={"include_usage": True}
):
    pieces += [choice.delta.content or "" for choice in chunk.choices]
    usage = chunk.usage or usage
assert "".join(pieces).strip() == first.message.content, pieces
assert usage.completion_tokens == 20, usage

# The next message of a conversation.
conversation = question + [
    {"role": "assistant", "content": first.message.content},
    {"role": "user", "content": "And then"},
]
more = client.chat.completions.create(model=MODEL, messages=conversation, max_tokens=5)
assert more.usage.prompt_tokens_details.cached_tokens > 20, more.usage

texts = client.completions.create(
    model=MODEL, prompt=["A small boat", "The river"], max_tokens=8, echo=True, logprobs=1, stop=["."]
)
assert texts.choices[1].text.startswith("The river") and texts.choices[0].logprobs.tokens


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def ask(**more):
    return client.chat.completions.create(**{"model": MODEL, "messages": question, "max_tokens": 1} | more)


refused(openai.NotFoundError, lambda: ask(model="another"))
refused(openai.AuthenticationError, client.with_options(api_key="wrong").models.list)
long = [{"role": "user", "content": "boat " * 500}]
assert refused(openai.BadRequestError, lambda: ask(messages=long)).code == "context_length_exceeded"
tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
refused(openai.BadRequestError, lambda: ask(tools=tools))
refused(openai.NotFoundError, lambda: client.embeddings.create(model=MODEL, input="x"))

# A stream that nobody reads to its end, and a hundred at a time.
stream = client.chat.completions.create(model=MODEL, messages=question, max_tokens=200, stream=True)
next(iter(stream))
stream.close()


async def together(count):
    many = openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)

    async def one(number):
        asked = [{"role": "user", "content": f"The {number} th ship"}]
        stream = await many.chat.completions.create(model=MODEL, messages=asked, max_tokens=30, stream=True)
        return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    return await asyncio.gather(*[one(number) for number in range(count)])


answers = asyncio.run(together(100))
assert len(answers) == 100 and all(answers)
print("the official client is content")
