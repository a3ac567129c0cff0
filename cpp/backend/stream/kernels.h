// The kernels of a device as the stream backend sees them: plain structs of device pointers, one
// function per operation in a table, so that the same backend runs on a GPU (cuda/) and on the grid
// emulator of the tests (then all pointers are host memory).
//
// Functions queue their work on the stream, allocate nothing, wait for nothing and throw nothing;
// the backend asks its Runtime for errors. What changes from pass to pass is read from device
// memory (slots, page tables, parents, positions, head blocks), so that a recording can be played
// again; pointers, sizes and counts are baked in.
//
// Contract 1 (batch invariance): a row of every output has the same bits for every number of rows
// and whatever the other rows are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/input_kind.h"
#include "backend/kv_layout.h"
#include "base/token.h"
#include "tensor/dtype.h"

namespace specdec::stream {

using Stream = void*;  // a cudaStream_t

// All buffers that the *_bytes functions size must be aligned to this.
inline constexpr std::size_t kAlignment = 256;

// --- Weights

struct PackedWeight {
  DType dtype = DType::kF32;
  std::int64_t n_out = 0, n_in = 0;
  const std::byte* data = nullptr;  // device
  // Of a stack of matrices: how many there are. It is packed as one, of rows padded_rows(n_out)
  // apart.
  int n_stacked = 1;
};
[[nodiscard]] constexpr std::int64_t padded_rows(std::int64_t n_out) {
  return (n_out + 15) / 16 * 16;
}

// --- Inputs of products

// One buffer of input_bytes() for each kind that is used; the others null.
struct PackedInput {
  std::byte* data[kInputKinds] = {};  // device, indexed by InputKind
};

// Gathers rows, normalises and quantises them.
struct PackInputArgs {
  const float* x = nullptr;  // [.., x_stride]
  std::int64_t x_stride = 0;
  int n_rows = 0;
  std::int64_t n_in = 0;
  const std::int32_t* row_index = nullptr;  // device, [n_rows], below 0: zeros; or null
  Norm norm;                                // device pointers
  PackedInput out;
};

// --- Products

struct Segment {
  PackedWeight weight;
  const float* bias = nullptr;  // [n_out] or null
  float* dst = nullptr;         // [n_rows, dst_stride]
  std::int64_t dst_stride = 0;
  bool accumulate = false;
  Activation activation = Activation::kNone;
};

inline constexpr int kMaxSegments = 4;

// Segments with the same format that follow each other are one launch.
struct LinearArgs {
  PackedInput input;
  int n_rows = 0;
  int n_segments = 0;
  Segment segments[kMaxSegments];
  // Of stacks: which matrix each 8 rows are multiplied with (device, [n_rows / 8], -1: with none,
  // their results stay as they are); null: there is but one.
  const std::int32_t* experts = nullptr;
  bool use_dp4a = false;  // the plain path without tensor cores: slower, same bits
};

// dst = activation(Wg x) * (Wu x).
struct GatedArgs {
  PackedInput input;
  int n_rows = 0;
  PackedWeight gate, up;
  Activation activation = Activation::kSilu;
  float* dst = nullptr;
  std::int64_t dst_stride = 0;
  const std::int32_t* experts = nullptr;  // as in LinearArgs
  bool use_dp4a = false;
};

// --- Mixtures of experts, whose choice stays on the device

// As RouteTask, from the router's logits.
struct ChooseArgs {
  const float* logits = nullptr;  // [n_rows, stride]
  std::int64_t stride = 0;
  int n_rows = 0, n_experts = 0, n_used = 0;
  bool of_chosen = true;
  std::int32_t* chosen = nullptr;  // [n_rows, n_used]
  float* weights = nullptr;        // [n_rows, n_used]
};

// Sorts pairs of a row and an expert by expert into slots, 8 of one expert at a time.
struct GroupArgs {
  const std::int32_t* chosen = nullptr;  // [n_pairs / n_used, n_used]
  int n_pairs = 0, n_used = 0, n_experts = 0;
  int n_slots = 0;                  // expert_slots()
  std::int32_t* experts = nullptr;  // [n_slots / 8], -1: none
  std::int32_t* rows = nullptr;     // [n_slots] of the pair there, -1: there is none
  std::int32_t* slots = nullptr;    // [n_slots] the slot itself, -1 likewise
  std::int32_t* slot_of = nullptr;  // [n_pairs]
};
// As many slots as pairs can need.
[[nodiscard]] constexpr int expert_slots(int n_pairs, int n_experts) {
  const int n_chosen = n_pairs < n_experts ? n_pairs : n_experts;
  return (n_pairs + 7 * n_chosen) / 8 * 8;
}

// dst[r] += sum over k of weights[r, k] * y[slot_of[r, k]], in the order of k.
struct CombineArgs {
  const float* y = nullptr;  // [slots, y_stride]
  std::int64_t y_stride = 0;
  const std::int32_t* slot_of = nullptr;
  const float* weights = nullptr;
  int n_rows = 0, n_used = 0;
  std::int64_t n = 0;
  float* dst = nullptr;
  std::int64_t dst_stride = 0;
};

// --- Attention

// Row r goes to slot *first_slot + slot_offset + r.
struct RopeStoreArgs {
  int n_rows = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int n_rot = 0;
  bool interleaved = false;
  const float* cos_sin = nullptr;  // [n_rows, n_rot]
  float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  KvLayout layout;
  std::byte* const* pages = nullptr;         // device table of device pages
  std::size_t page_offset = 0;               // of this layer
  const std::int32_t* first_slot = nullptr;  // device
  int slot_offset = 0;
};

// As AttentionTask. Trees may have any number of rows; they are meant to have at most 16.
struct AttentionArgs {
  int n_rows = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 0;
  const float* q = nullptr;
  float* out = nullptr;
  std::int64_t q_stride = 0, out_stride = 0;
  KvLayout layout;
  std::byte* const* pages = nullptr;
  std::size_t page_offset = 0;
  const std::int32_t* first_slot = nullptr;  // device
  int slot_offset = 0;
  const std::int32_t* parents = nullptr;  // device, [n_rows], -1: the committed part; null: a chain
  // At least the chunks of kKvChunk positions that the longest row sees; changes no bits.
  int max_chunks = 0;
  std::byte* scratch = nullptr;  // attention_scratch_bytes(); may be null when that is 0
  // Zeros, and zeros again afterwards: kAttentionCounters per head.
  std::int32_t* counters = nullptr;
  // What rope_store() would do is done in the same kernel, except that q stays as it is: of at most
  // kMostNewRows rows, the first `n_before` of which are not attended. n_rows 0: nothing.
  RopeStoreArgs rope;
  int n_before = 0;
  int window = 0;
  float soft_cap = 0;
};
inline constexpr int kMostNewRows = 16;
inline constexpr int kAttentionCounters = 8;

// Copies one position of n_layers layers (layer_bytes() apart) from page to page, or within one.
struct CopyPositionArgs {
  KvLayout layout;
  int n_layers = 0;
  const std::byte* src = nullptr;
  std::byte* dst = nullptr;
  int from = 0, to = 0;  // positions in their pages, [0, kKvChunk)
};

// --- The rest

// A block of tokens that no matrix has. Lists of blocks may end with any number of them, so that
// lists of few lengths serve all: they cost little and change no bits.
inline constexpr std::int32_t kNoHeadBlock = 0x07FFFFFF;

// As HeadTask: results on the device. n_blocks > 0: only these blocks of kHeadBlock tokens.
struct HeadArgs {
  PackedInput input;
  int n_rows = 0;
  PackedWeight weight;
  const float* bias = nullptr;
  std::int64_t n_tokens = 0;
  float soft_cap = 0;
  const std::int32_t* blocks = nullptr;  // device, [n_blocks], ascending
  int n_blocks = 0;
  int top_k = 1;
  TopToken* top = nullptr;       // [n_rows, top_k]
  float* log_sum_exp = nullptr;  // [n_rows] or null
  float* logits = nullptr;       // [n_rows, logits_stride] or null
  std::int64_t logits_stride = 0;
  std::byte* scratch = nullptr;  // head_scratch_bytes()
  bool use_dp4a = false;
};

// dst[r, :] = row tokens[r] of a packed matrix, as floats, times scale. Row 0 when it has no such
// row: the token may be what a head found, on its way to being fed.
struct EmbedArgs {
  PackedWeight weight;
  const std::int32_t* tokens = nullptr;  // device, [n_rows]
  int n_rows = 0;
  float* dst = nullptr;
  std::int64_t dst_stride = 0;
  float scale = 1;
};

// tokens[r] = that of found[picks[r]] where the pick is not negative: what a head found becomes
// the input of the next pass.
struct TakeTokensArgs {
  std::int32_t* tokens = nullptr;  // device, [n_rows]
  int n_rows = 0;
  const std::int32_t* picks = nullptr;  // device, [n_rows]
  const TopToken* found = nullptr;      // device
};

// Sizes and forms of what kernels read and write; pure, on the host.
struct KernelMemory {
  // Bytes of a packed matrix, and the packing. Only reads and writes host memory. n_in must be a
  // multiple of the format's block. `dst` is copied to the device as it is.
  std::size_t (*packed_bytes)(DType dtype, std::int64_t n_out, std::int64_t n_in);
  void (*pack_matrix)(DType dtype, std::int64_t n_out, std::int64_t n_in, const std::byte* src,
                      std::byte* dst, int n_threads);
  InputKind (*input_kind)(DType dtype);
  std::size_t (*input_bytes)(InputKind kind, int n_rows, std::int64_t n_in);
  std::size_t (*attention_scratch_bytes)(int n_rows, int n_heads, int head_dim, int max_chunks);
  std::size_t (*head_scratch_bytes)(int n_rows, std::int64_t n_tokens, int n_blocks, int top_k);
  // Left free behind each buffer of a work space: tests notice accesses there.
  std::size_t gap_bytes = 0;
};

struct Kernels {
  const char* name;
  KernelMemory memory;
  void (*pack_input)(const PackInputArgs& args, Stream stream);
  void (*linear)(const LinearArgs& args, Stream stream);
  void (*gated_linear)(const GatedArgs& args, Stream stream);
  void (*rope_store)(const RopeStoreArgs& args, Stream stream);
  void (*attention)(const AttentionArgs& args, Stream stream);
  void (*copy_position)(const CopyPositionArgs& args, Stream stream);
  void (*norm)(const NormTask& task, Stream stream);
  void (*head)(const HeadArgs& args, Stream stream);
  void (*embed)(const EmbedArgs& args, Stream stream);
  void (*take_tokens)(const TakeTokensArgs& args, Stream stream);
  void (*choose)(const ChooseArgs& args, Stream stream);
  void (*group)(const GroupArgs& args, Stream stream);
  void (*combine)(const CombineArgs& args, Stream stream);
};

}  // namespace specdec::stream
