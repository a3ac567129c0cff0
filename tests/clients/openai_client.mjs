// OpenAI's own package for JavaScript. Prints what it got as JSON; the test compares it.
import OpenAI from "openai";

const [url, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "secret", maxRetries: 0 });
const random = { temperature: 1, seed: 5, max_tokens: 2000 };
const messages = [{ role: "user", content: question }];
const chat = (options) =>
  client.chat.completions.create({ model: "tiny", messages, temperature: 0, ...options });

const told = {};
const answer = await chat({ max_completion_tokens: 20 });
told.plain = answer.choices[0].message.content;
told.usage = answer.usage;
told.streamed = "";
const stream = await chat({
  max_completion_tokens: 20,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  told.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) told.streamed_usage = chunk.usage;
}

const parameters = {
  type: "object",
  properties: { place: { type: "string", maxLength: 20 } },
  required: ["place"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const called = (await chat({ ...random, tools, tool_choice: "required" })).choices[0].message;
told.calls = called.tool_calls.map((call) => [
  call.function.name,
  typeof JSON.parse(call.function.arguments).place === "string" ? "str" : "other",
]);
const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: "sunny" };
const after = await client.chat.completions.create({
  model: "tiny",
  messages: [...messages, called, result],
  tools,
  max_tokens: 3,
});
told.after_call = typeof after.choices[0].message.content === "string";
const whole = await client.chat.completions
  .stream({ model: "tiny", messages, tools, tool_choice: "required", ...random })
  .finalChatCompletion();
told.streamed_calls = whole.choices[0].message.tool_calls.map((call) => call.function.name);

const schema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 6 }, legs: { type: "integer", minimum: 0, maximum: 9 } },
  required: ["name", "legs"],
  additionalProperties: false,
};
const format = { type: "json_schema", json_schema: { name: "Pet", strict: true, schema } };
const parsed = await client.chat.completions.parse({
  model: "tiny",
  messages,
  response_format: format,
  ...random,
});
const pet = JSON.parse(parsed.choices[0].message.content);
told.json_schema = pet.legs >= 0 && pet.legs <= 9;

const text = (options) =>
  client.completions.create({ model: "tiny", prompt: question, max_tokens: 20, temperature: 0, ...options });
told.completion = (await text({})).choices[0].text;
told.streamed_completion = "";
for await (const chunk of await text({ stream: true })) {
  told.streamed_completion += chunk.choices[0]?.text ?? "";
}
const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
told.errors = [];
for (const [who, options] of [[wrong, {}], [client, { temperature: -1 }]]) {
  try {
    await who.chat.completions.create({ model: "tiny", messages, ...options });
  } catch (error) {
    told.errors.push([error.constructor.name, error.param]);
  }
}
console.log(JSON.stringify(told));
