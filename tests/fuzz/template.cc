// Any text as a chat template.
#include "chat_template/render.h"
#include "fuzz.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chat::ChatInput input;
  input.source.assign(reinterpret_cast<const char*>(data), size);
  input.messages_json =
      R"([{"role":"system","content":"s"},{"role":"user","content":"Grüße <|im_end|> \ud83d"},)"
      R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":)"
      R"({"name":"f","arguments":{"a":1,"b":[1.5,null,true]}}}],"reasoning_content":"r"},)"
      R"({"role":"tool","content":"{}","name":"f"},)"
      R"({"role":"user","content":[{"type":"text","text":"part"}]}])";
  input.tools_json = R"([{"type":"function","function":{"name":"f","description":"d","parameters":)"
                     R"({"type":"object","properties":{"x":{"type":"integer"}}}}}])";
  input.arguments_json = R"({"enable_thinking":false,"n":3,"f":0.5})";
  input.tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  chat::RenderOptions options;
  options.limits.work = 300'000;
  options.limits.memory_bytes = std::size_t{4} << 20;
  options.clock = [] { return std::int64_t{1'700'000'000}; };
  fuzz::runs([&] {
    const chat::Rendered rendered = chat::render_chat(input, options);
    for (std::size_t i = 1; i < rendered.pieces.size(); ++i) {
      if (rendered.pieces[i].from_template == rendered.pieces[i - 1].from_template)
        fuzz::found("two neighbouring pieces are of the same writer");
    }
  });
  return 0;
}
