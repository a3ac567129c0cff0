// `specdec tokenize`: the tokens of a text.

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/args.h"
#include "cli/chat_flags.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "gguf/reader.h"
#include "tokenizer/tokenizer.h"

namespace specdec::cli {

int run_tokenize(const Arguments& arguments) {
  std::string model;
  PromptFlags prompt_flags;
  bool show_prompt = false, ids_only = false, json_output = false, parse_special = true,
       add_bos = true;
  ArgParser parser(
      "tokenize", "-m FILE (-p TEXT | -f FILE) [OPTIONS]",
      "Shows the tokens of a text, one per line: id and text. The weights are not read.");
  parser.section("Options");
  parser.add(opt::kFilesModel, &model);
  add_prompt_flags(parser, prompt_flags);
  ChatFlags chat;
  add_chat_switches(parser, chat);
  add_chat_flags(parser, chat);
  parser.section("Output");
  parser.add(opt::kTokenizeShowPrompt, &show_prompt);
  parser.add(opt::kTokenizeIds, &ids_only);
  parser.add(opt::kOutputJson, &json_output);
  parser.add(opt::kCallParseSpecial, &parse_special);
  parser.add(opt::kTokenizeBos, &add_bos);
  if (!parser.parse(arguments)) {
    write_stdout(parser.help());
    return kExitOk;
  }
  if (model.empty()) throw UsageError("no model: give a GGUF file with -m");
  if (ids_only && json_output) throw UsageError("give either --ids or --json, not both");
  const AbortOnInterrupt abort;
  const std::string text = read_prompt(parser, prompt_flags);
  const std::shared_ptr<const GgufFile> file = GgufFile::open(model);
  const auto tokenizer = Tokenizer::from_gguf(*file);
  EncodeOptions options;
  options.parse_special = parse_special;
  if (!add_bos) options.add_bos = false;
  std::vector<TokenId> ids;
  if (chat.wanted()) {
    if (!parse_special || !add_bos) {
      throw UsageError("--no-special and --no-bos are for plain text, not for a conversation");
    }
    const ChatPrompt prompt = chat_prompt(*file, *tokenizer, chat, text);
    if (show_prompt) {
      write_stdout(prompt.text());
      return kExitOk;
    }
    ids = prompt.ids;
  } else if (show_prompt) {
    write_stdout(text);
    return kExitOk;
  } else {
    ids = tokenizer->encode(text, options);
  }

  if (json_output) {
    JsonWriter json;
    json.begin_object()
        .member("n_tokens", static_cast<std::uint64_t>(ids.size()))
        .member("token_ids", ids);
    json.key("tokens").begin_array();
    for (const TokenId id : ids) json.value(tokenizer->token_text(id));
    json.end_array().end_object();
    write_stdout(json.text() + "\n");
    return kExitOk;
  }
  std::string out;
  for (const TokenId id : ids) {
    if (ids_only) {
      out += (out.empty() ? "" : " ") + std::to_string(id);
      continue;
    }
    std::string number = std::to_string(id);
    number.insert(0, number.size() < 6 ? 6 - number.size() : 0, ' ');
    // Quoted as JSON does: one line each, whatever the bytes.
    JsonWriter quoted_text;
    quoted_text.value(tokenizer->is_hidden(id) ? tokenizer->token_text(id)
                                               : tokenizer->token_bytes(id));
    out += number + "  " + quoted_text.text() + "\n";
  }
  if (ids_only) out += "\n";
  write_stdout(out);
  return kExitOk;
}

}  // namespace specdec::cli
