// A GGUF file from its first byte to the first tokens.
#include "engine/loaded_model.h"
#include "engine/session.h"
#include "fuzz.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::File file;
  file.write(data, size);
  fuzz::runs([&] {
    ModelOptions options;
    options.n_threads = 1;
    options.n_ctx = 32;
    options.device = "cpu";
    options.repack = size % 2 == 0 ? "auto" : "off";
    const auto model = LoadedModel::load(file.path(), options);
    SessionOptions session_options;
    session_options.drafters = parse_drafters("none", false);
    Session session(model, session_options);
    GenerateRequest request;
    request.prompt = "a cat in a";
    request.max_tokens = 3;
    request.n_logprobs = 2;
    const GenerateResult result = session.generate(request);
    if (result.token_ids.size() > 3) fuzz::found("more tokens than were asked for");
  });
  return 0;
}
