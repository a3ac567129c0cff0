"""LlamaIndex's class for servers like OpenAI's. Prints what it got as JSON, for the test."""

import json
import sys
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

url, question = sys.argv[1:]


class Pet(BaseModel):
    """A pet."""

    name: str = Field(max_length=6)
    legs: int = Field(ge=0, le=9)


def weather(place: Literal["Paris", "Rome"]) -> str:
    """The weather of a place."""
    return f"sunny in {place}"


def model(**options):
    given = {"is_chat_model": True, "max_tokens": 20, "temperature": 0, **options}
    return OpenAILike(
        model="tiny", api_base=f"{url}/v1", api_key="secret", max_retries=0, context_window=4096,
        **given,
    )  # fmt: skip


messages = [ChatMessage(role="user", content=question)]
chat = model()
answer = chat.chat(messages)
told = {"plain": answer.message.content, "usage": answer.additional_kwargs}
told["streamed"] = "".join(part.delta or "" for part in chat.stream_chat(messages))

random = {"temperature": 1, "additional_kwargs": {"seed": 5}, "max_tokens": 2000}
caller = model(is_function_calling_model=True, **random)
tools = [FunctionTool.from_defaults(weather)]
answer = caller.chat_with_tools(tools, user_msg=question, tool_required=True)
calls = caller.get_tool_calls_from_response(answer)
told["calls"] = [[call.tool_name, type(call.tool_kwargs["place"]).__name__] for call in calls]
done = caller.predict_and_call(tools, user_msg=question, tool_required=True)
told["after_call"] = str(done).startswith("sunny in ")
*_, last = caller.stream_chat_with_tools(tools, user_msg=question, tool_required=True)
told["streamed_calls"] = [c.tool_name for c in caller.get_tool_calls_from_response(last)]

structured = model(is_function_calling_model=True, should_use_structured_outputs=True, **random)
pet = structured.as_structured_llm(Pet).chat(messages).raw
told["json_schema"] = isinstance(pet, Pet) and 0 <= pet.legs <= 9
pet = caller.as_structured_llm(Pet).chat(messages).raw
told["function_calling"] = isinstance(pet, Pet) and 0 <= pet.legs <= 9

text = model(is_chat_model=False)
told["completion"] = text.complete(question).text
told["streamed_completion"] = "".join(part.delta or "" for part in text.stream_complete(question))
print(json.dumps(told))
