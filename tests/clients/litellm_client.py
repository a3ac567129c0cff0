"""litellm. Prints what it got as JSON; the test compares it."""

from __future__ import annotations

import json
import sys

import litellm
from pydantic import BaseModel, Field

url, question = sys.argv[1:]
litellm.suppress_debug_info = True


class Pet(BaseModel):
    """A pet."""

    name: str = Field(max_length=6)
    legs: int = Field(ge=0, le=9)


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "maxLength": 20}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
HOW = {"model": "openai/tiny", "api_base": f"{url}/v1", "api_key": "secret", "num_retries": 0}
RANDOM = {"temperature": 1, "seed": 5, "max_tokens": 2000}
messages = [{"role": "user", "content": question}]


def chat(**options):
    return litellm.completion(**HOW, messages=messages, **{"temperature": 0, **options})


answer = chat(max_tokens=20)
told = {"plain": answer.choices[0].message.content, "usage": answer.usage.model_dump()}
chunks = list(chat(max_tokens=20, stream=True, stream_options={"include_usage": True}))
told["streamed"] = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
whole = litellm.stream_chunk_builder(chunks, messages=messages)
told["streamed_usage"] = whole.usage.model_dump()

called = chat(**RANDOM, tools=[WEATHER], tool_choice="required").choices[0].message
arguments = [json.loads(call.function.arguments) for call in called.tool_calls]
told["calls"] = [["weather", type(given["place"]).__name__] for given in arguments]
chunks = list(chat(**RANDOM, tools=[WEATHER], tool_choice="required", stream=True))
whole = litellm.stream_chunk_builder(chunks, messages=messages)
told["streamed_calls"] = [c.function.name for c in whole.choices[0].message.tool_calls]
result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny"}
after = litellm.completion(
    **HOW, messages=[*messages, called.model_dump(), result], tools=[WEATHER], max_tokens=3
)
told["after_call"] = isinstance(after.choices[0].message.content, str)

schema = {"type": "json_schema", "json_schema": {"name": "Pet", "strict": True,
          "schema": {**Pet.model_json_schema(), "additionalProperties": False}}}  # fmt: skip
text = chat(**RANDOM, response_format=schema).choices[0].message.content
told["json_schema"] = 0 <= Pet.model_validate_json(text).legs <= 9

how = {**HOW, "model": "text-completion-openai/tiny"}
answer = litellm.text_completion(**how, prompt=question, max_tokens=20, temperature=0)
told["completion"] = answer.choices[0].text
chunks = litellm.text_completion(**how, prompt=question, max_tokens=20, temperature=0, stream=True)
told["streamed_completion"] = "".join(chunk.choices[0].text or "" for chunk in chunks)
print(json.dumps(told))
