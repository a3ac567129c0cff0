#include "chat_template/formats.h"

namespace specdec::chat {
namespace {

constexpr NamedFormat kFormats[] = {
    {"chatml",
     R"({%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%})"},
    {"llama2",
     R"({%- set ns = namespace(system='', answered=false) -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = ns.system + message.content | trim -%}
{%- elif message.role == 'user' -%}
{%- if ns.answered -%}{{- bos_token | default('<s>') -}}{%- endif -%}
{{- '[INST] ' -}}
{%- if ns.system -%}{{- '<<SYS>>\n' + ns.system + '\n<</SYS>>\n\n' -}}{%- endif -%}
{{- message.content | trim + ' [/INST]' -}}
{%- set ns.system = '' -%}
{%- set ns.answered = false -%}
{%- elif message.role == 'assistant' -%}
{{- ' ' + message.content | trim + ' ' + eos_token | default('</s>') -}}
{%- set ns.answered = true -%}
{%- else -%}
{{- raise_exception('the Llama-2 chat format has no role ' + message.role + ', only system, user and assistant') -}}
{%- endif -%}
{%- endfor -%}
{%- if ns.system -%}
{{- raise_exception('the Llama-2 chat format needs a user message behind the system message') -}}
{%- endif -%})"},
    {"llama3",
     R"({%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%})"},
    {"zephyr",
     R"({%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('the Zephyr chat format has no role ' + message.role + ', only system, user and assistant') -}}
{%- endif -%}
{{- '<|' + message.role + '|>\n' + message.content + eos_token | default('</s>') + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%})"},
    {"gemma",
     R"({%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = ns.system + message.content | trim + '\n\n' -%}
{%- elif message.role == 'user' -%}
{{- '<start_of_turn>user\n' + ns.system + message.content | trim + '<end_of_turn>\n' -}}
{%- set ns.system = '' -%}
{%- elif message.role == 'assistant' -%}
{{- '<start_of_turn>model\n' + message.content | trim + '<end_of_turn>\n' -}}
{%- else -%}
{{- raise_exception('the Gemma chat format has no role ' + message.role + ', only system, user and assistant') -}}
{%- endif -%}
{%- endfor -%}
{%- if ns.system -%}
{{- raise_exception('the Gemma chat format needs a user message behind the system message') -}}
{%- endif -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%})"},
    {"phi3",
     R"({%- for message in messages -%}
{%- if message.role == 'system' -%}
{{- '<|system|>\n' -}}
{%- elif message.role == 'user' -%}
{{- '<|user|>\n' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|assistant|>\n' -}}
{%- else -%}
{{- raise_exception('the Phi-3 chat format has no role ' + message.role + ', only system, user and assistant') -}}
{%- endif -%}
{{- message.content + '<|end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%})"},
    {"phi4",
     R"({%- for message in messages -%}
{{- '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%})"},
    {"raw", R"({%- for message in messages -%}{{- '' + message.content -}}{%- endfor -%})"},
};

}  // namespace

std::span<const NamedFormat> named_formats() noexcept { return kFormats; }

std::string_view find_named_format(std::string_view name) noexcept {
  for (const NamedFormat& format : kFormats) {
    if (format.name == name) return format.source;
  }
  return {};
}

std::string_view recognise_format(std::string_view source) noexcept {
  const auto has = [&](std::string_view text) {
    return source.find(text) != std::string_view::npos;
  };
  if (has("<|im_start|>")) return has("<|im_sep|>") ? "phi4" : "chatml";
  if (has("<|start_header_id|>")) return "llama3";
  if (has("<start_of_turn>") && has("<end_of_turn>")) return "gemma";
  if (has("<|user|>") && has("<|assistant|>") && has("<|end|>")) return "phi3";
  if (has("[INST]") && has("<<SYS>>")) return "llama2";
  if (has("<|user|>") && has("<|assistant|>") && has("eos_token")) return "zephyr";
  return {};
}

}  // namespace specdec::chat
