"""LangChain's classes for OpenAI. Prints what they got as JSON; the test compares it."""

from __future__ import annotations

import json
import sys
from typing import Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

url, question = sys.argv[1:]
options = {"base_url": f"{url}/v1", "api_key": "secret", "model": "tiny", "max_retries": 0}


class Pet(BaseModel):
    """A pet."""

    name: str = Field(max_length=6)
    legs: int = Field(ge=0, le=9)


@tool
def weather(place: Literal["Paris", "Rome"]) -> str:
    """The weather of a place."""
    return f"sunny in {place}"


chat = ChatOpenAI(**options, temperature=0, max_tokens=20)
answer = chat.invoke(question)
told = {"plain": answer.content, "usage": answer.usage_metadata}
chunks = list(chat.stream(question, stream_usage=True))
told["streamed"] = "".join(chunk.content for chunk in chunks)
told["streamed_usage"] = [c.usage_metadata for c in chunks if c.usage_metadata][-1]

caller = ChatOpenAI(**options, temperature=1, seed=5, max_tokens=2000)
called = caller.bind_tools([weather], tool_choice="weather").invoke(question)
told["calls"] = [[call["name"], type(call["args"]["place"]).__name__] for call in called.tool_calls]
results = [ToolMessage(weather.invoke(c["args"]), tool_call_id=c["id"]) for c in called.tool_calls]
after = chat.bind_tools([weather]).invoke([HumanMessage(question), called, *results])
told["after_call"] = isinstance(after.content, str)
parts = caller.bind_tools([weather], tool_choice="any").stream(question)
whole = next(parts)
for part in parts:
    whole = whole + part
told["streamed_calls"] = [call["name"] for call in whole.tool_calls]

for method in ("json_schema", "function_calling"):
    pet = caller.with_structured_output(Pet, method=method).invoke(question)
    told[method] = isinstance(pet, Pet) and 0 <= pet.legs <= 9

text = OpenAI(**options, temperature=0, max_tokens=20)
told["completion"] = text.invoke(question)
told["streamed_completion"] = "".join(text.stream(question))
told["batch"] = text.batch([question, question])
print(json.dumps(told))
