// What the CUDA kernels offer to the host: the table of stream/kernels.h, and where things lie.
//
// Contract 1: every dot product is cut into `k_slices(dtype, n_in)` pieces of k, a function of
// format and n_in only; each piece is one chain of multiply-adds in ascending k in the order of the
// CPU kernels, and the pieces are added in ascending order. Attention, norms, activations and rope
// have the CPU kernels' order throughout. This needs no contraction of a * b + c: nvcc must get
// -fmad=false and no fast-math flag.
#pragma once

#include "backend/stream/kernels.h"

namespace specdec::cuda {

using namespace specdec::stream;  // the words that kernels and their backend share

// As the functions of KernelMemory.
[[nodiscard]] std::size_t packed_bytes(DType dtype, std::int64_t n_out, std::int64_t n_in);
void pack_matrix(DType dtype, std::int64_t n_out, std::int64_t n_in, const std::byte* src,
                 std::byte* dst, int n_threads);
[[nodiscard]] InputKind input_kind(DType dtype);
[[nodiscard]] std::size_t input_bytes(InputKind kind, int n_rows, std::int64_t n_in);
[[nodiscard]] std::size_t attention_scratch_bytes(int n_rows, int n_heads, int head_dim,
                                                  int max_chunks);
[[nodiscard]] std::size_t head_scratch_bytes(int n_rows, std::int64_t n_tokens, int n_blocks,
                                             int top_k);
inline constexpr KernelMemory kKernelMemory{.packed_bytes = packed_bytes,
                                            .pack_matrix = pack_matrix,
                                            .input_kind = input_kind,
                                            .input_bytes = input_bytes,
                                            .attention_scratch_bytes = attention_scratch_bytes,
                                            .head_scratch_bytes = head_scratch_bytes};

// Pieces into which the k of a dot product are cut.
[[nodiscard]] int k_slices(DType dtype, std::int64_t n_in);
// First k of a piece; of piece k_slices(): n_in rounded up to whole units.
[[nodiscard]] std::int64_t k_slice_begin(DType dtype, std::int64_t n_in, int slice);

// Only in builds with CUDA: kernels/*.cu.
[[nodiscard]] const Kernels& gpu_kernels();
// To be called after a copy on the stream: the next launch of this thread does not start early.
void note_gpu_copy();
// For tests: kernels are chosen as for a device of so many processors; -1: as many as it has.
void set_gpu_processors(int n);

}  // namespace specdec::cuda
