"""Chats with a function through OpenAI's own client: `openai_chat.py API TOKEN`. The function says the words of the
last message. It goes on after the first one when another chat, "go", has come: if somebody on the way holds the first
chunk back, there is no end.
"""

from __future__ import annotations

import asyncio
import sys

import openai
from openai import AsyncOpenAI, OpenAI

api, token = sys.argv[1:]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]


client = OpenAI(base_url=f"{api}/v1", api_key=token)
chat = [{"role": "user", "content": "to be or not"}]
for chunk in client.chat.completions.create(model="chat", messages=chat, stream=True):
    print(chunk.choices[0].delta.content or "", end="")

client = OpenAI(base_url=f"{api}/v1", api_key=token, max_retries=0, timeout=30)
assert [model.id for model in client.models.list()] == ["chat"]
assert client.models.retrieve("chat").owned_by

whole = client.chat.completions.create(model="chat", messages=said("to be"), temperature=0.5, max_tokens=9)
(choice,) = whole.choices
assert (choice.message.content, choice.finish_reason, choice.message.role) == ("to be ", "stop", "assistant")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens == 5, whole.usage

words: list[str] = []
with client.chat.completions.create(
    model="chat", messages=said("wait to be"), stream=True, stream_options={"include_usage": True}
) as stream:
    for chunk in stream:
        if not words:
            client.chat.completions.create(model="chat", messages=said("go"))
        words += [choice.delta.content for choice in chunk.choices if choice.delta.content]
assert words == ["wait ", "to ", "be "], words
assert chunk.usage.completion_tokens == 3, chunk

for wrong, kind, code in (
    ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found"),
    ({"messages": []}, openai.BadRequestError, "invalid_value"),
    ({"n": 2}, openai.BadRequestError, "unsupported_parameter"),
    ({"extra_body": {"stream": "yes"}}, openai.BadRequestError, "invalid_value"),
    ({"messages": said("fail at once")}, openai.InternalServerError, "bad_output"),
):
    try:
        client.chat.completions.create(**{"model": "chat", "messages": said("a"), **wrong})
        raise AssertionError(f"{wrong} was answered")
    except kind as error:
        assert error.code == code, error
try:
    OpenAI(base_url=f"{api}/v1", api_key="wrong", max_retries=0).models.list()
    raise AssertionError("anybody is answered")
except openai.AuthenticationError as error:
    assert error.code == "unauthorized", error

before: list[str] = []
try:
    stream = client.chat.completions.create(model="chat", messages=said("well fail"), stream=True)
    before.extend(chunk.choices[0].delta.content for chunk in stream)
    raise AssertionError("the stream looks whole")
except openai.APIError as error:
    assert "too bad" in error.message, error
assert before == ["well "], before


async def leave() -> None:
    """Streams without an end take all slots. They are closed after their first chunk, and others are answered."""
    async with AsyncOpenAI(base_url=f"{api}/v1", api_key=token, timeout=30) as other:
        for_ever = [
            await other.chat.completions.create(model="chat", messages=said("for ever"), stream=True)
            for _ in range(2)
        ]
        for stream in for_ever:
            async for chunk in stream:
                assert chunk.choices[0].delta.content
                break
        for stream in for_ever:
            await stream.close()
        reply = await other.chat.completions.create(model="chat", messages=said("still here"))
        assert reply.choices[0].message.content == "still here "


asyncio.run(leave())
print(": as the client expects")
