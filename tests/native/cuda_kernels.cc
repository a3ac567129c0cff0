// The CUDA kernels to tests, run by the emulator or on a GPU; beside them the CPU's operations.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "cuda_emulator.h"
#include "cuda_experts.h"
#include "cuda_limits.h"
#include "cuda_probe.h"
#include "emulated_device.h"
#include "kernel_device.h"

namespace py = pybind11;

namespace {

using namespace specdec;
using namespace specdec::cuda;
using testing::device_kernels;
using testing::DeviceBuffer;
using testing::run_kernels;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

Activation parse_activation(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_erf") return Activation::kGeluErf;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "none") return Activation::kNone;
  throw_invalid("unknown activation " + name);
}

KvType parse_type(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  if (name == "q8_0") return KvType::kQ8_0;
  throw_invalid("unknown type " + name);
}

// Device memory with a copy of an array; null for none.
class Upload {
 public:
  Upload() = default;
  template <class Array>
  explicit Upload(const Array& array)
      : Upload(array.data(), static_cast<std::size_t>(array.nbytes())) {}
  Upload(const void* data, std::size_t n_bytes) : buffer_(std::make_unique<DeviceBuffer>(n_bytes)) {
    buffer_->upload(data);
  }
  template <class T>
  [[nodiscard]] T* as() const {
    return buffer_ == nullptr ? nullptr : buffer_->as<T>();
  }
  template <class T>
  void download(T* out) const {
    buffer_->download(out);
  }

 private:
  std::unique_ptr<DeviceBuffer> buffer_;
};

template <class Array>
Upload upload(const std::optional<Array>& array) {
  return array ? Upload(*array) : Upload();
}

std::span<const std::byte> as_bytes(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  return {reinterpret_cast<const std::byte*>(view.data()), view.size()};
}

struct Weight {
  Upload memory;
  PackedWeight packed;
};

Weight make_weight(std::uint32_t dtype, std::int64_t n_out, std::int64_t n_in,
                   const py::bytes& data) {
  const auto type = static_cast<DType>(dtype);
  std::vector<std::byte> packed(packed_bytes(type, n_out, n_in));
  pack_matrix(type, n_out, n_in, as_bytes(data).data(), packed.data(), 1);
  Weight out{Upload(packed.data(), packed.size()), {}};
  out.packed = {type, n_out, n_in, out.memory.as<std::byte>()};
  return out;
}

struct NormSpec {
  std::string kind = "none";
  std::optional<Floats> weight, bias;
  float epsilon = 0;
};

Norm::Kind norm_kind(const std::string& kind) {
  return kind == "rms"     ? Norm::Kind::kRms
         : kind == "layer" ? Norm::Kind::kLayer
                           : Norm::Kind::kNone;
}

// One product of the test's: type, rows, data, bias, activation, what it adds to.
struct Product {
  std::uint32_t dtype;
  std::int64_t n_out;
  py::bytes data;
  std::optional<Floats> bias;
  std::string activation = "none";
  std::optional<Floats> onto;
};

// x, packed in the forms that the types want.
class Input {
 public:
  Input(const Floats& x, const std::vector<DType>& types, const NormSpec& spec,
        const std::optional<Ints>& row_index)
      : x_(x), index_(upload(row_index)), weight_(upload(spec.weight)), bias_(upload(spec.bias)) {
    args_.x = x_.as<float>();
    args_.x_stride = args_.n_in = x.shape(1);
    args_.n_rows = static_cast<int>(row_index ? row_index->size() : x.shape(0));
    args_.row_index = index_.as<std::int32_t>();
    args_.norm = {norm_kind(spec.kind), weight_.as<float>(), bias_.as<float>(), spec.epsilon};
    for (const DType type : types) {
      const InputKind kind = input_kind(type);
      auto& form = forms_[static_cast<std::size_t>(kind)];
      if (form != nullptr) continue;
      form = std::make_unique<DeviceBuffer>(input_bytes(kind, args_.n_rows, args_.n_in));
      args_.out.data[static_cast<int>(kind)] = form->data();
    }
    run_kernels(device_kernels().pack_input, args_);
  }
  [[nodiscard]] const PackedInput& packed() const { return args_.out; }
  [[nodiscard]] int n_rows() const { return args_.n_rows; }

 private:
  Upload x_, index_, weight_, bias_;
  std::unique_ptr<DeviceBuffer> forms_[kInputKinds];
  PackInputArgs args_;
};

std::vector<Floats> linear(const Floats& x, const std::vector<Product>& products,
                           const NormSpec& norm, const std::optional<Ints>& row_index,
                           bool use_dp4a) {
  std::vector<DType> types;
  for (const Product& product : products) types.push_back(static_cast<DType>(product.dtype));
  const Input input(x, types, norm, row_index);
  LinearArgs args;
  args.input = input.packed();
  args.n_rows = input.n_rows();
  args.use_dp4a = use_dp4a;
  std::vector<Weight> weights;
  std::vector<Upload> biases;
  std::vector<std::unique_ptr<DeviceBuffer>> outputs;
  for (const Product& product : products) {
    weights.push_back(make_weight(product.dtype, product.n_out, x.shape(1), product.data));
    biases.push_back(upload(product.bias));
    const auto n = static_cast<std::size_t>(args.n_rows * product.n_out);
    outputs.push_back(std::make_unique<DeviceBuffer>(n * sizeof(float)));
    if (product.onto) outputs.back()->upload(product.onto->data());
    Segment& segment = args.segments[args.n_segments++];
    segment.weight = weights.back().packed;
    segment.bias = biases.back().as<float>();
    segment.dst = outputs.back()->as<float>();
    segment.dst_stride = product.n_out;
    segment.accumulate = product.onto.has_value();
    segment.activation = parse_activation(product.activation);
  }
  run_kernels(device_kernels().linear, args);
  std::vector<Floats> out;
  for (std::size_t i = 0; i < products.size(); ++i) {
    out.emplace_back(std::vector<py::ssize_t>{args.n_rows, products[i].n_out});
    outputs[i]->download(out.back().mutable_data());
  }
  return out;
}

// The same on the CPU.
std::vector<Floats> cpu_linear(const Floats& x, const std::vector<Product>& products,
                               const NormSpec& norm, const std::optional<Ints>& row_index) {
  const auto backend = make_cpu_backend(1);
  LinearTask task;
  task.x = x.data();
  task.x_stride = x.shape(1);
  task.n_rows = static_cast<int>(row_index ? row_index->size() : x.shape(0));
  task.row_index = row_index ? row_index->data() : nullptr;
  task.norm = {norm_kind(norm.kind), norm.weight ? norm.weight->data() : nullptr,
               norm.bias ? norm.bias->data() : nullptr, norm.epsilon};
  std::vector<std::unique_ptr<WeightMatrix>> weights;
  std::vector<Floats> out;
  std::vector<LinearSegment> segments;
  for (const Product& product : products) {
    weights.push_back(backend->load_matrix(static_cast<DType>(product.dtype), product.n_out,
                                           x.shape(1), as_bytes(product.data)));
    Floats& y = out.emplace_back(std::vector<py::ssize_t>{task.n_rows, product.n_out});
    if (product.onto)
      std::memcpy(y.mutable_data(), product.onto->data(), static_cast<std::size_t>(y.nbytes()));
    segments.push_back({.weight = weights.back().get(),
                        .bias = product.bias ? product.bias->data() : nullptr,
                        .dst = y.mutable_data(),
                        .dst_stride = product.n_out,
                        .accumulate = product.onto.has_value(),
                        .activation = parse_activation(product.activation)});
  }
  task.segments = segments;
  backend->linear(task);
  return out;
}

Floats gated(const Floats& x, const Product& gate, const Product& up, const NormSpec& norm,
             const std::string& activation, bool use_dp4a, bool on_cpu) {
  Floats out({x.shape(0), static_cast<py::ssize_t>(gate.n_out)});
  const auto gate_type = static_cast<DType>(gate.dtype);
  const auto up_type = static_cast<DType>(up.dtype);
  if (on_cpu) {
    const auto backend = make_cpu_backend(1);
    const auto w_gate =
        backend->load_matrix(gate_type, gate.n_out, x.shape(1), as_bytes(gate.data));
    const auto w_up = backend->load_matrix(up_type, up.n_out, x.shape(1), as_bytes(up.data));
    GatedLinearTask task;
    task.x = x.data();
    task.x_stride = x.shape(1);
    task.n_rows = static_cast<int>(x.shape(0));
    task.norm = {norm_kind(norm.kind), norm.weight ? norm.weight->data() : nullptr,
                 norm.bias ? norm.bias->data() : nullptr, norm.epsilon};
    task.gate = w_gate.get();
    task.up = w_up.get();
    task.activation = parse_activation(activation);
    task.dst = out.mutable_data();
    task.dst_stride = gate.n_out;
    backend->gated_linear(task);
    return out;
  }
  const Input input(x, {gate_type, up_type}, norm, {});
  const Weight w_gate = make_weight(gate.dtype, gate.n_out, x.shape(1), gate.data);
  const Weight w_up = make_weight(up.dtype, up.n_out, x.shape(1), up.data);
  const DeviceBuffer dst(static_cast<std::size_t>(out.nbytes()));
  GatedArgs args;
  args.input = input.packed();
  args.n_rows = input.n_rows();
  args.gate = w_gate.packed;
  args.up = w_up.packed;
  args.activation = parse_activation(activation);
  args.dst = dst.as<float>();
  args.dst_stride = gate.n_out;
  args.use_dp4a = use_dp4a;
  run_kernels(device_kernels().gated_linear, args);
  dst.download(out.mutable_data());
  return out;
}

// (tokens [m, k], logits [m, k], log-sum-exp [m], full logits [m, n_tokens] or None)
py::tuple head(const Floats& x, const Product& product, const NormSpec& norm, std::int64_t n_tokens,
               const std::vector<std::int32_t>& blocks, int top_k, bool wants_logits, bool use_dp4a,
               bool on_cpu, float soft_cap) {
  const auto m = x.shape(0);
  const auto type = static_cast<DType>(product.dtype);
  std::vector<TopToken> top(static_cast<std::size_t>(m * top_k));
  Floats log_sum_exp(m);
  const std::int64_t stride = (product.n_out + 15) / 16 * 16;
  std::vector<float> logits(wants_logits ? static_cast<std::size_t>(m * stride) : 0);
  if (on_cpu) {
    const auto backend = make_cpu_backend(1);
    const auto weight =
        backend->load_matrix(type, product.n_out, x.shape(1), as_bytes(product.data));
    HeadTask task;
    task.x = x.data();
    task.x_stride = x.shape(1);
    task.n_rows = static_cast<int>(m);
    task.norm = {norm_kind(norm.kind), norm.weight ? norm.weight->data() : nullptr,
                 norm.bias ? norm.bias->data() : nullptr, norm.epsilon};
    task.weight = weight.get();
    task.bias = product.bias ? product.bias->data() : nullptr;
    task.n_tokens = n_tokens;
    task.soft_cap = soft_cap;
    task.blocks = blocks;
    task.top_k = top_k;
    task.top = top.data();
    task.log_sum_exp = log_sum_exp.mutable_data();
    task.logits = wants_logits ? logits.data() : nullptr;
    task.logits_stride = stride;
    backend->head(task);
  } else {
    const Input input(x, {type}, norm, {});
    const Weight weight = make_weight(product.dtype, product.n_out, x.shape(1), product.data);
    const Upload bias = upload(product.bias);
    const Upload d_blocks = blocks.empty() ? Upload() : Upload(blocks.data(), blocks.size() * 4);
    const DeviceBuffer d_top(top.size() * sizeof(TopToken));
    const DeviceBuffer d_sum(static_cast<std::size_t>(log_sum_exp.nbytes()));
    const DeviceBuffer d_logits(logits.size() * sizeof(float));
    const auto n_blocks = static_cast<int>(blocks.size());
    const DeviceBuffer scratch(head_scratch_bytes(input.n_rows(), n_tokens, n_blocks, top_k));
    HeadArgs args;
    args.input = input.packed();
    args.n_rows = input.n_rows();
    args.weight = weight.packed;
    args.bias = bias.as<float>();
    args.n_tokens = n_tokens;
    args.soft_cap = soft_cap;
    args.blocks = d_blocks.as<std::int32_t>();
    args.n_blocks = n_blocks;
    args.top_k = top_k;
    args.top = d_top.as<TopToken>();
    args.log_sum_exp = d_sum.as<float>();
    args.logits = wants_logits ? d_logits.as<float>() : nullptr;
    args.logits_stride = stride;
    args.scratch = scratch.data();
    args.use_dp4a = use_dp4a;
    run_kernels(device_kernels().head, args);
    d_top.download(top.data());
    d_sum.download(log_sum_exp.mutable_data());
    d_logits.download(logits.data());
  }
  Ints tokens({m, static_cast<py::ssize_t>(top_k)});
  Floats values({m, static_cast<py::ssize_t>(top_k)});
  for (std::size_t i = 0; i < top.size(); ++i) {
    tokens.mutable_data()[i] = top[i].token;
    values.mutable_data()[i] = top[i].logit;
  }
  if (!wants_logits) return py::make_tuple(tokens, values, log_sum_exp, py::none());
  Floats full({m, static_cast<py::ssize_t>(n_tokens)});
  for (py::ssize_t r = 0; r < m; ++r)
    std::copy_n(logits.data() + r * stride, n_tokens, full.mutable_data() + r * n_tokens);
  return py::make_tuple(tokens, values, log_sum_exp, full);
}

void embed_into(Floats& out, const Product& product, std::int64_t n_in, const TokenId* tokens,
                int n_rows) {
  const Weight weight = make_weight(product.dtype, product.n_out, n_in, product.data);
  const DeviceBuffer dst(static_cast<std::size_t>(out.nbytes()));
  run_kernels(device_kernels().embed, EmbedArgs{.weight = weight.packed,
                                                .tokens = tokens,
                                                .n_rows = n_rows,
                                                .dst = dst.as<float>(),
                                                .dst_stride = n_in});
  dst.download(out.mutable_data());
}

Floats embed(const Product& product, std::int64_t n_in, const Ints& tokens) {
  const Upload ids(tokens);
  Floats out({tokens.size(), static_cast<py::ssize_t>(n_in)});
  embed_into(out, product, n_in, ids.as<std::int32_t>(), static_cast<int>(tokens.size()));
  return out;
}

// The row of the first of a head's results.
Floats embed_found(const Product& product, std::int64_t n_in, TokenId token, float logit) {
  const TopToken found[2] = {{token, logit}, {1, logit}};
  const Upload top(found, sizeof found);
  Floats out(static_cast<py::ssize_t>(n_in));
  embed_into(out, product, n_in, &top.as<TopToken>()->token, 1);
  return out;
}

// found: tokens of a head's results.
Ints take_tokens(const Ints& tokens, const Ints& sources, const Ints& found) {
  std::vector<TopToken> results;
  for (py::ssize_t i = 0; i < found.size(); ++i) results.push_back({found.data()[i], 1.5F});
  const Upload dst(tokens);
  const Upload from(sources);
  const Upload top(results.data(), results.size() * sizeof(TopToken));
  run_kernels(device_kernels().take_tokens,
              TakeTokensArgs{.tokens = dst.as<std::int32_t>(),
                             .n_rows = static_cast<int>(tokens.size()),
                             .picks = from.as<std::int32_t>(),
                             .found = top.as<TopToken>()});
  Ints out(tokens.size());
  dst.download(out.mutable_data());
  return out;
}

// Rows of n_groups groups; `to`: what the result is added to, null: it replaces x.
Floats norm(const Floats& x, int n_groups, const NormSpec& spec, const std::optional<Floats>& to,
            bool on_cpu) {
  NormTask task;
  task.x_stride = task.dst_stride = x.shape(1);
  task.n_rows = static_cast<int>(x.shape(0));
  task.n_groups = n_groups;
  task.n = x.shape(1) / n_groups;
  task.accumulate = to.has_value();
  task.norm = {norm_kind(spec.kind), spec.weight->data(), spec.bias ? spec.bias->data() : nullptr,
               spec.epsilon};
  Floats out({x.shape(0), x.shape(1)});
  const Floats& start = to ? *to : x;
  std::copy(start.data(), start.data() + start.size(), out.mutable_data());
  if (on_cpu) {
    task.x = to ? x.data() : out.data();
    task.dst = out.mutable_data();
    make_cpu_backend(2)->norm(task);
    return out;
  }
  const Upload dst(out);
  const Upload src(x);
  const Upload weight(*spec.weight);
  std::optional<Upload> bias;
  if (spec.bias) bias.emplace(*spec.bias);
  task.x = to ? src.as<float>() : dst.as<float>();
  task.dst = dst.as<float>();
  task.norm.weight = weight.as<float>();
  task.norm.bias = bias ? bias->as<float>() : nullptr;
  run_kernels(device_kernels().norm, task);
  dst.download(out.mutable_data());
  return out;
}

// One layer's cache, as that of ops.cc; on the device it is the second of two layers.
class Cache {
 public:
  Cache(const std::string& type, int n_kv_heads, int head_dim, int n_slots) {
    layout_ = {.type = parse_type(type), .n_kv_heads = n_kv_heads, .head_dim = head_dim};
    std::vector<std::byte*> pages;
    for (int slot = 0; slot < n_slots; slot += kKvChunk) {
      buffers_.push_back(std::make_unique<DeviceBuffer>(2 * layout_.layer_bytes()));
      pages.push_back(buffers_.back()->data());
    }
    pages_ = std::make_unique<Upload>(pages.data(), pages.size() * sizeof(std::byte*));
  }

  Floats rope_store(const Floats& q, const Floats& k, const Floats& v, int first_slot,
                    const std::optional<Floats>& cos_sin, bool interleaved) {
    const NewRows rows(*this, q, k, v, first_slot, cos_sin, interleaved);
    run_kernels(device_kernels().rope_store, rows.args);
    Floats out(std::vector<py::ssize_t>(q.shape(), q.shape() + q.ndim()));
    rows.q.download(out.mutable_data());
    return out;
  }

  Floats attention(const Floats& q, int first_slot, const std::optional<Ints>& parents, float scale,
                   int max_chunks, int window, float soft_cap) {
    const Upload d_q(q);
    const Upload d_parents = upload(parents);
    return attend(static_cast<int>(q.shape(0)), static_cast<int>(q.shape(1)), d_q.as<float>(),
                  first_slot, d_parents, scale, max_chunks, {}, 0, window, soft_cap);
  }

  // Both in one: the rows from n_before on attend.
  Floats store_and_attend(const Floats& q, const Floats& k, const Floats& v, int first_slot,
                          const std::optional<Floats>& cos_sin, bool interleaved, int n_before,
                          const std::optional<Ints>& parents, float scale, int max_chunks,
                          int window, float soft_cap) {
    const NewRows rows(*this, q, k, v, first_slot, cos_sin, interleaved);
    const Upload d_parents = upload(parents);
    return attend(static_cast<int>(q.shape(0)) - n_before, static_cast<int>(q.shape(1)),
                  rows.q.as<float>() + n_before * rows.args.q_stride, first_slot + n_before,
                  d_parents, scale, max_chunks, rows.args, n_before, window, soft_cap);
  }

  // From slot to slot, of both layers.
  void copy(int from, int to) {
    run_kernels(device_kernels().copy_position,
                CopyPositionArgs{.layout = layout_,
                                 .n_layers = 2,
                                 .src = buffers_[static_cast<std::size_t>(from / kKvChunk)]->data(),
                                 .dst = buffers_[static_cast<std::size_t>(to / kKvChunk)]->data(),
                                 .from = from % kKvChunk,
                                 .to = to % kKvChunk});
  }

  [[nodiscard]] py::bytes content(int layer) const {
    std::string out;
    for (const auto& buffer : buffers_) {
      const std::size_t n = layout_.layer_bytes();
      out.append(
          reinterpret_cast<const char*>(buffer->data()) + static_cast<std::size_t>(layer) * n, n);
    }
    return py::bytes(out);
  }

 private:
  // Rows for the cache in device memory.
  struct NewRows {
    NewRows(const Cache& cache, const Floats& host_q, const Floats& host_k, const Floats& host_v,
            int first_slot, const std::optional<Floats>& cos_sin, bool interleaved)
        : q(host_q),
          k(host_k),
          v(host_v),
          table(upload(cos_sin)),
          base(first_slot - 1),
          slot(&base, sizeof base) {
      args.n_rows = static_cast<int>(host_q.shape(0));
      args.n_heads = static_cast<int>(host_q.shape(1));
      args.n_kv_heads = cache.layout_.n_kv_heads;
      args.head_dim = cache.layout_.head_dim;
      args.n_rot = cos_sin ? static_cast<int>(cos_sin->shape(1)) : 0;
      args.interleaved = interleaved;
      args.cos_sin = table.as<float>();
      args.q = q.as<float>();
      args.k = k.as<float>();
      args.v = v.as<float>();
      args.q_stride = host_q.shape(1) * host_q.shape(2);
      args.k_stride = args.v_stride = host_k.shape(1) * host_k.shape(2);
      args.layout = cache.layout_;
      args.pages = cache.pages_->as<std::byte*>();
      args.page_offset = cache.layout_.layer_bytes();
      args.first_slot = slot.as<std::int32_t>();
      args.slot_offset = 1;
    }
    Upload q, k, v, table;
    std::int32_t base;
    Upload slot;
    RopeStoreArgs args;
  };

  Floats attend(int n_rows, int n_heads, const float* q, int first_slot, const Upload& parents,
                float scale, int max_chunks, const RopeStoreArgs& rope, int n_before, int window,
                float soft_cap) {
    const std::int32_t base = first_slot - 1;
    const Upload slot(&base, sizeof base);
    Floats out(std::vector<py::ssize_t>{n_rows, n_heads, layout_.head_dim});
    const DeviceBuffer dst(static_cast<std::size_t>(out.nbytes()));
    AttentionArgs args;
    args.n_rows = n_rows;
    args.n_heads = n_heads;
    args.n_kv_heads = layout_.n_kv_heads;
    args.head_dim = layout_.head_dim;
    args.scale = scale;
    args.q = q;
    args.out = dst.as<float>();
    args.q_stride = args.out_stride = std::int64_t{n_heads} * layout_.head_dim;
    args.layout = layout_;
    args.pages = pages_->as<std::byte*>();
    args.page_offset = layout_.layer_bytes();
    args.first_slot = slot.as<std::int32_t>();
    args.slot_offset = 1;
    args.parents = parents.as<std::int32_t>();
    args.max_chunks = max_chunks;
    const std::size_t n_scratch =
        cuda::attention_scratch_bytes(n_rows, n_heads, args.head_dim, max_chunks);
    const DeviceBuffer scratch(n_scratch);
    args.scratch = n_scratch == 0 ? nullptr : scratch.data();
    const std::vector<std::int32_t> zeros(static_cast<std::size_t>(n_heads * kAttentionCounters));
    const Upload counters(zeros.data(), zeros.size() * sizeof(std::int32_t));
    args.counters = counters.as<std::int32_t>();
    args.rope = rope;
    args.n_before = n_before;
    args.window = window;
    args.soft_cap = soft_cap;
    run_kernels(device_kernels().attention, args);
    std::vector<std::int32_t> left(zeros.size());
    counters.download(left.data());
    if (left != zeros) throw_invalid("attention left its counters set");
    dst.download(out.mutable_data());
    return out;
  }

  KvLayout layout_;
  std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
  std::unique_ptr<Upload> pages_;
};

// Fragments of a warp: a [32, 4], b [32, 2], c [32, 4] to c + a b in the fragment's layout.
Ints multiply_fragments(int k, const Ints& a, const Ints& b, const Ints& c) {
  if ((k != 16 && k != 32) || a.size() != 128 || b.size() != 64 || c.size() != 128)
    throw_invalid("fragments are 32 x 4, 32 x 2 and 32 x 4, and k is 16 or 32");
  const Upload d_a(a);
  const Upload d_b(b);
  const Upload d_c(c);
  const ProbeParams params{k, d_a.as<const std::uint32_t>(), d_b.as<const std::uint32_t>(),
                           d_c.as<std::int32_t>()};
  testing::run_on_device([&](Stream stream) {
    if (testing::device_runtime() != nullptr) {
      gpu_probe(params, stream);
    } else {
      EmulatedLauncher::launch<Probe>(params, 1, 1, 32, 0, stream);
    }
  });
  Ints out({32, 4});
  d_c.download(out.mutable_data());
  return out;
}

// --- Kernels with mistakes, for the emulator itself ----------------------------------------------

struct Faulty {
  static constexpr bool kWaits = true;
  static constexpr int kMaxThreads = 64;
  static constexpr int kMinBlocks = 8;
  struct Params {
    int fault;
    float* data;  // 64 floats, and a counter
    bool second;  // launch
  };
  template <class G>
  static void run(G& g, const Params& p) {
    const auto shared = g.template shared<float>(0);
    const int t = g.thread();
    if (p.fault == 9) (void)g.load(static_cast<const float*>(p.data) + t);
    if (p.fault == 10) return;
    if (p.fault == 17 && p.second) (void)g.load_weight(static_cast<const float*>(p.data) + t);
    if (p.fault == 18 && p.second) (void)g.load_fresh(static_cast<const float*>(p.data) + t);
    g.wait_for_previous();
    if (p.fault == 11) g.wait_for_previous();
    switch (p.fault) {
      case 0:  // none: a rotation through shared memory
        shared.set(t, g.load(static_cast<const float*>(p.data) + t));
        g.sync();
        g.store(p.data + t, shared.get((t + 1) % g.n_threads()));
        break;
      case 1:  // no sync
        shared.set(t, 1.0F);
        g.store(p.data + t, shared.get((t + 1) % g.n_threads()));
        break;
      case 2:
        g.store(p.data + t + 1, 0.0F);
        break;
      case 3:
        (void)g.load(reinterpret_cast<const Word4*>(p.data + 1));
        break;
      case 4:
        shared.set(t + 1, 0.0F);
        break;
      case 5:  // half a warp
        if (t % 32 < 16) (void)g.shuffle_xor(t, 1);
        break;
      case 6:  // half a block
        if (t < 32) g.sync();
        break;
      case 7:  // read before another writes
        (void)shared.get((t + 1) % g.n_threads());
        shared.set(t, 1.0F);
        break;
      case 8: {  // lanes at different instructions
        std::int32_t c[4] = {};
        const std::uint32_t a[4] = {};
        if (t % 2 == 0) {
          g.mma_k32(c, a, 0, 0);
        } else {
          (void)g.shuffle_xor(t, 1);
        }
        break;
      }
      case 13:  // what the other block writes
        if (g.block() == 0) g.store(p.data + t, 1.0F);
        if (g.block() == 1) (void)g.load(static_cast<const float*>(p.data) + t);
        break;
      case 14:  // not the same
        g.store(p.data + t, static_cast<float>(g.block()));
        break;
      case 15:  // written after it was read
        if (g.block() == 0) (void)g.load(static_cast<const float*>(p.data) + t);
        if (g.block() == 1) g.store(p.data + t, -1.0F);
        break;
      case 16:  // all the same, and read only by who wrote it: allowed
        g.store(p.data + t, 1.0F);
        (void)g.load(static_cast<const float*>(p.data) + t);
        break;
      case 12:
        g.prefetch(p.data + 64 + t);
        break;
      case 26:  // between two parts of the buffer
        g.store(p.data + 40, 0.0F);
        break;
      case 17:  // and 18: the second launch reads too early
      case 18:
        if (!p.second) g.store(p.data + t, 2.0F);
        break;
      default:
        if (p.fault >= 19 && p.fault <= 23) hand_over(g, p);
        break;
    }
  }

  // The block that comes last reads what the other stored: 19 as it must be, then without the sync
  // and the fence before the counter, the fence and the sync behind it.
  template <class G>
  static void hand_over(G& g, const Params& p) {
    const int t = g.thread();
    const auto last = g.template shared<int>(0);
    if (t < 32) g.store(p.data + 32 * g.block() + t, static_cast<float>(-t));
    if (p.fault != 20) g.sync();
    if (t == 0) {
      if (p.fault != 21) g.fence();
      const int before = g.atomic_add(reinterpret_cast<std::int32_t*>(p.data + 64), 1);
      if (p.fault != 22) g.fence();
      last.set(0, before);
    }
    if (p.fault != 23 || t >= 32) g.sync();
    if (p.fault == 23 && t < 32) {
      (void)g.load_fresh(static_cast<const float*>(p.data) + t + 1);
      g.sync();
    }
    if (last.get(0) == 1) (void)g.load_fresh(static_cast<const float*>(p.data) + t);
  }
};

// "" or what the emulator found; and the data afterwards.
py::tuple run_faulty(int fault) {
  const EmulatedBuffer buffer(fault < 19 ? 256 : 260);
  if (fault >= 19) buffer.as<std::int32_t>()[64] = 0;
  for (int i = 0; i < 64; ++i) buffer.as<float>()[i] = static_cast<float>(i);
  if (fault == 26) {
    set_parts(buffer.data(), buffer.size(),
              {{.offset = 0, .n_bytes = 128}, {.offset = 192, .n_bytes = 64}});
  }
  const bool check_blocks = std::exchange(emulator_options().check_blocks, true);
  for (const bool second : {false, true}) {
    if (second && fault != 17 && fault != 18) continue;
    const int n_threads = fault == 24 ? 96 : 64;
    const int shared_bytes = fault == 25 ? 9216 : 64 * 4;
    EmulatedLauncher::launch<Faulty>({fault, buffer.as<float>(), second}, fault < 13 ? 1 : 2, 1,
                                     n_threads, shared_bytes, nullptr);
  }
  emulator_options().check_blocks = check_blocks;
  Floats data(64);
  std::memcpy(data.mutable_data(), buffer.data(), 64 * sizeof(float));
  return py::make_tuple(take_emulator_error(), data);
}

// On the emulated device, a kernel in one of two parts of 256 bytes side by side in a block: what
// the device says of it.
std::string run_in_part(int fault, bool closed) {
  const auto runtime = testing::make_emulated_runtime(1 << 20);
  std::byte* const block = runtime->allocate(512);
  runtime->note_parts(block, 512, {});
  std::byte* const first = runtime->open_part(block, 256);
  std::byte* const second = runtime->open_part(block + 256, 256);
  if (runtime->close_part(second) != block + 256) return "another place";
  (void)runtime->open_part(block + 256, 256);
  if (closed) (void)runtime->close_part(first);
  const auto run = [&] {
    runtime->launch("a test", [=](void* stream) {
      EmulatedLauncher::launch<Faulty>({fault, reinterpret_cast<float*>(first), false}, 1, 1, 64,
                                       256, stream);
    });
    runtime->synchronize("a test");
  };
  try {
    run();
    run();  // behind a wait a closed part is nobody's
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

PYBIND11_MODULE(_testing_cuda_kernels, m) {
  py::class_<Product>(m, "Product", py::module_local())
      .def(py::init([](std::uint32_t dtype, std::int64_t n_out, const py::bytes& data,
                       const std::optional<Floats>& bias, const std::string& activation,
                       const std::optional<Floats>& onto) {
             return Product{dtype, n_out, data, bias, activation, onto};
           }),
           py::arg("dtype"), py::arg("n_out"), py::arg("data"), py::arg("bias") = py::none(),
           py::arg("activation") = "none", py::arg("onto") = py::none());
  py::class_<NormSpec>(m, "Norm", py::module_local())
      .def(py::init([](const std::string& kind, const std::optional<Floats>& weight,
                       const std::optional<Floats>& bias,
                       float epsilon) { return NormSpec{kind, weight, bias, epsilon}; }),
           py::arg("kind") = "none", py::arg("weight") = py::none(), py::arg("bias") = py::none(),
           py::arg("epsilon") = 0.0F);
  m.def("linear", &linear, py::arg("x"), py::arg("products"), py::arg("norm") = NormSpec{},
        py::arg("row_index") = py::none(), py::arg("use_dp4a") = false);
  m.def("cpu_linear", &cpu_linear, py::arg("x"), py::arg("products"), py::arg("norm") = NormSpec{},
        py::arg("row_index") = py::none());
  m.def("gated", &gated, py::arg("x"), py::arg("gate"), py::arg("up"), py::arg("norm") = NormSpec{},
        py::arg("activation") = "silu", py::arg("use_dp4a") = false, py::arg("on_cpu") = false);
  m.def("head", &head, py::arg("x"), py::arg("product"), py::arg("norm") = NormSpec{},
        py::arg("n_tokens"), py::arg("blocks") = std::vector<std::int32_t>{}, py::arg("top_k") = 1,
        py::arg("wants_logits") = false, py::arg("use_dp4a") = false, py::arg("on_cpu") = false,
        py::arg("soft_cap") = 0.0F);
  m.def("embed", &embed);
  m.def("embed_found", &embed_found);
  m.def("take_tokens", &take_tokens);
  m.attr("NO_HEAD_BLOCK") = kNoHeadBlock;
  m.def("norm", &norm, py::arg("x"), py::arg("n_groups"), py::arg("norm"),
        py::arg("to") = py::none(), py::arg("on_cpu") = false);
  m.def("k_slice_begins", [](std::uint32_t dtype, std::int64_t n_in) {
    std::vector<std::int64_t> out;
    const auto type = static_cast<DType>(dtype);
    for (int i = 0; i <= k_slices(type, n_in); ++i) out.push_back(k_slice_begin(type, n_in, i));
    return out;
  });
  m.def("multiply_fragments", &multiply_fragments);
  testing::bind_experts(m);
  m.def("set_device", &testing::set_kernel_device);
  m.def("set_processors", &testing::set_processors);
  m.def("set_check_blocks", [](bool check) { emulator_options().check_blocks = check; });
  m.def("set_backwards", [](bool backwards) { emulator_options().backwards = backwards; });
  m.def("n_blocks_run", &emulated_blocks);
  m.def("run_faulty", &run_faulty);
  m.def("run_in_part", &run_in_part);
  // As C++ writes the types: threads that a kernel is compiled for, blocks at a time, bytes of
  // shared memory that launches asked for.
  m.def("launched_kernels", [] {
    py::dict out;
    for (const auto& [name, kernel] : launched_kernels()) {
      int status = 0;
      const std::unique_ptr<char, void (*)(void*)> readable(
          abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
      out[py::str(status == 0 ? readable.get() : name.c_str())] =
          py::make_tuple(kernel.max_threads, kernel.min_blocks, kernel.shared_bytes);
    }
    return out;
  });
  // Blocks of so many threads with so much shared memory and so many registers for a thread that a
  // processor holds at a time.
  m.def("blocks_at_a_time", [](const std::string& arch, int threads, int shared, int registers) {
    for (const ArchitectureLimits& limits : kArchitectures) {
      if (arch == limits.name) return limits.blocks(threads, shared, registers);
    }
    throw_invalid("unknown architecture " + arch);
  });
  py::class_<Cache>(m, "Cache", py::module_local())
      .def(py::init<const std::string&, int, int, int>())
      .def("rope_store", &Cache::rope_store, py::arg("q"), py::arg("k"), py::arg("v"),
           py::arg("first_slot"), py::arg("cos_sin") = py::none(), py::arg("interleaved") = false)
      .def("store_and_attend", &Cache::store_and_attend, py::arg("q"), py::arg("k"), py::arg("v"),
           py::arg("first_slot"), py::arg("cos_sin") = py::none(), py::arg("interleaved") = false,
           py::arg("n_before") = 0, py::arg("parents") = py::none(), py::arg("scale") = 1.0F,
           py::arg("max_chunks") = 1, py::arg("window") = 0, py::arg("soft_cap") = 0.0F)
      .def("attention", &Cache::attention, py::arg("q"), py::arg("first_slot"),
           py::arg("parents") = py::none(), py::arg("scale") = 1.0F, py::arg("max_chunks") = 1,
           py::arg("window") = 0, py::arg("soft_cap") = 0.0F)
      .def("copy", &Cache::copy)
      .def("content", &Cache::content, py::arg("layer") = 1);
}
