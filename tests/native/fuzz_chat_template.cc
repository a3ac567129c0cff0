// Mutates chat templates and renders what becomes of them:
//   specdec_fuzz_chat_template N_MUTATIONS SEED FILE...
// Every mutation must be rendered or refused with an Error; the process ends with 0 if all were.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "chat_template/render.h"

namespace {

using namespace specdec;

constexpr const char* kMessages =
    R"([{"role":"system","content":"s"},{"role":"user","content":"Grüße <|im_end|> \ud83d"},)"
    R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":)"
    R"({"name":"f","arguments":{"a":1,"b":[1.5,null,true]}}}],"reasoning_content":"r"},)"
    R"({"role":"tool","content":"{}","name":"f"},)"
    R"({"role":"user","content":[{"type":"text","text":"part"}]}])";
constexpr const char* kTools =
    R"([{"type":"function","function":{"name":"f","description":"d","parameters":)"
    R"({"type":"object","properties":{"x":{"type":"integer"}}}}}])";

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  void mutate(std::string* text, const std::string& other) {
    for (std::size_t n = 1 + below(5); n > 0; --n) mutate_once(text, other);
  }

 private:
  // What the language is made of, and values that are extreme.
  const char* word() {
    static constexpr const char* kWords[] = {"{{",
                                             "}}",
                                             "{%",
                                             "%}",
                                             "{#",
                                             "#}",
                                             "-",
                                             "+",
                                             "|",
                                             "~",
                                             "(",
                                             ")",
                                             "[",
                                             "]",
                                             "{",
                                             "}",
                                             ".",
                                             ",",
                                             ":",
                                             "::",
                                             "'",
                                             "\"",
                                             "\\",
                                             "\n",
                                             " ",
                                             "=",
                                             "==",
                                             "//",
                                             "**",
                                             "%",
                                             "*",
                                             " if ",
                                             " else ",
                                             " for x in ",
                                             " recursive ",
                                             " is ",
                                             " not ",
                                             " in ",
                                             " and ",
                                             "{% endif %}",
                                             "{% endfor %}",
                                             "{% macro m(a, b=1) %}",
                                             "{% endmacro %}",
                                             "{% call m() %}",
                                             "{% endcall %}",
                                             "{% set x %}",
                                             "{% endset %}",
                                             "{% set ns = namespace() %}",
                                             "{% set ns.x = ns %}",
                                             "{% break %}",
                                             "{% continue %}",
                                             "{% raw %}",
                                             "{% endraw %}",
                                             "{% filter upper %}",
                                             "{% endfilter %}",
                                             "loop",
                                             "loop(messages)",
                                             "loop.changed(loop)",
                                             "caller()",
                                             "varargs",
                                             "kwargs",
                                             "messages",
                                             "tools",
                                             "none",
                                             "true",
                                             "namespace",
                                             "9223372036854775807",
                                             "-9223372036854775808",
                                             "1e308",
                                             "0",
                                             "-1",
                                             "''",
                                             "'\\ud800'",
                                             "|sort",
                                             "|map('upper')",
                                             "|tojson(indent=2)",
                                             "|groupby('role')",
                                             "|batch(2)",
                                             "|list",
                                             "|int",
                                             "|round(2)",
                                             "|indent",
                                             "|title",
                                             "|safe",
                                             "|join",
                                             "|reverse",
                                             "|slice(3)",
                                             "|format(1)",
                                             "|sum",
                                             "|unique",
                                             "|dictsort",
                                             "|first",
                                             "|selectattr('role')",
                                             ".items()",
                                             ".split()",
                                             ".rsplit('a', 1)",
                                             ".format(1, a=2)",
                                             ".strip('x')",
                                             ".count('')",
                                             "[::-1]",
                                             "[-1:]",
                                             "[1:2:3]",
                                             "'%s%5.2f%*d' % (1, 2.5, 3, 4)",
                                             "'{:>{}}{0!r}'",
                                             "range(9)",
                                             "cycler(1, 2)",
                                             "joiner()",
                                             "dict(a=1)",
                                             "strftime_now('%Y')",
                                             "raise_exception('x')"};
    return kWords[below(std::size(kWords))];
  }

  void mutate_once(std::string* text, const std::string& other) {
    const std::size_t at = below(text->size() + 1);
    const std::size_t n = std::min(text->size() - at, 1 + below(30));
    switch (below(7)) {
      case 0:
        if (at < text->size()) (*text)[at] = static_cast<char>(random_());
        break;
      case 1:
        text->erase(at, n);
        break;
      case 2:
        text->resize(at);
        break;
      case 3: {
        const std::size_t from = below(other.size());
        text->insert(at, other.substr(from, 1 + below(120)));
        break;
      }
      case 4:
        text->insert(at, text->substr(at, n));
        break;
      default:
        text->insert(at, word());
    }
  }

  std::mt19937_64 random_;
};

// True when it was rendered.
bool renders(const std::string& source) {
  chat::ChatInput input;
  input.source = source;
  input.messages_json = kMessages;
  input.tools_json = kTools;
  input.arguments_json = R"({"enable_thinking":false,"n":3,"f":0.5})";
  input.tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  chat::RenderOptions options;
  options.limits.work = 3'000'000;
  options.limits.memory_bytes = std::size_t{8} << 20;
  options.clock = [] { return std::int64_t{1'700'000'000}; };
  try {
    const chat::Rendered rendered = chat::render_chat(input, options);
    for (std::size_t i = 1; i < rendered.pieces.size(); ++i) {
      if (rendered.pieces[i].from_template == rendered.pieces[i - 1].from_template) {
        throw std::runtime_error("two neighbouring pieces are of the same writer");
      }
    }
    return true;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal) throw;
    return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s N_MUTATIONS SEED FILE...\n", argv[0]);
    return 2;
  }
  std::vector<std::string> corpus;
  for (int i = 3; i < argc; ++i) corpus.push_back(read_file(argv[i]));
  Mutator mutator(std::strtoull(argv[2], nullptr, 10));
  const long n_mutations = std::strtol(argv[1], nullptr, 10);
  long n_rendered = 0;
  std::string source;
  try {
    for (const std::string& original : corpus) {
      source = original;
      (void)renders(source);
    }
    for (long i = 0; i < n_mutations; ++i) {
      source = corpus[mutator.below(corpus.size())];
      mutator.mutate(&source, corpus[mutator.below(corpus.size())]);
      n_rendered += renders(source) ? 1 : 0;
    }
  } catch (const std::exception& error) {
    std::ofstream("fuzz_chat_template_failure.jinja", std::ios::binary) << source;
    std::fprintf(stderr, "%s (input kept in fuzz_chat_template_failure.jinja)\n", error.what());
    return 1;
  }
  std::printf("%ld mutations of %zu templates: %ld rendered, %ld refused\n", n_mutations,
              corpus.size(), n_rendered, n_mutations - n_rendered);
  return 0;
}
