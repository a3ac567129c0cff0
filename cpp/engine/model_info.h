// A model described for people and programs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace specdec {

class GgufFile;

// What a person wants to know about a model; what the last group says is known after load only.
struct ModelInfo {
  std::string path;
  std::string architecture;  // "llama"
  std::string name;          // general.name, may be empty
  std::uint64_t n_params = 0;
  std::uint64_t size_bytes = 0;                           // of the file, or of all its parts
  std::uint64_t n_parts = 1;                              // files that it is in
  std::uint64_t weight_bytes = 0;                         // of all tensors
  std::vector<std::pair<std::string, int>> tensor_types;  // type name -> tensors, most bytes first
  std::string quantisation;                               // "Q4_K + Q6_K (+ F32)" in that order
  std::int64_t context_length = 0;
  std::int64_t vocab_size = 0;    // tokens with a text
  std::int64_t n_vocab_rows = 0;  // rows of the output head, padding included
  std::int64_t n_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t ffn_size = 0;
  std::int64_t n_experts = 0;       // of a layer; 0: no mixture
  std::int64_t n_experts_used = 0;  // of them, for a token
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool tied_head = false;   // the output head is the embedding matrix
  std::string tokenizer;    // "llama (SentencePiece)", "gpt2 / qwen2"
  std::string chat_format;  // "chatml", "llama2", ..., or "" when none was recognised
  // Weight bytes a decoding step reads: all matrices once, the embedding only if it is the head
  // too, of experts those that one token uses.
  std::uint64_t bytes_per_step = 0;

  std::string kv_type;
  std::uint64_t kv_bytes_per_token = 0;
  std::uint64_t state_bytes = 0;  // of the recurrent layers of a sequence, however long it is
  std::string device;    // "cpu: avx512_vnni, 2 threads", "cuda: NVIDIA L4, sm_89; cpu: ..."
  int n_gpu_layers = 0;  // the last so many, and the head
  std::int64_t gpu_context = 0;        // positions whose cache is reserved there
  std::uint64_t gpu_bytes = 0;         // weights and reserved cache there
  std::vector<std::string> placement;  // the plan, line by line; empty without a GPU
  std::string cpu_reason;              // why nothing is on a GPU, when nobody forbade it
  int n_threads = 0;
  std::string repack;                   // "auto", "keep" or "off", see ModelOptions
  std::uint64_t kept_weight_bytes = 0;  // used from the file of packed weights
  int n_ctx = 0;                        // as ModelOptions
  std::uint64_t vram_budget = 0;
  double load_ms = 0;
  std::vector<std::string> warnings;  // what is odd about the file but harmless
};

// From the metadata and the tensor directory alone: reads no weights. What a file of an
// architecture we do not run leaves out stays 0 or empty; nothing here throws for odd values.
[[nodiscard]] ModelInfo describe_model(const GgufFile& file);

}  // namespace specdec
