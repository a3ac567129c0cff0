// The KV cache to tests: positions are written and read as one number per (layer, kv head,
// dimension).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "kv/kv_cache.h"
#include "kv/kv_file.h"
#include "kv/prefix_tree.h"
#include "tensor/half.h"

namespace py = pybind11;

namespace {

using namespace specdec;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

KvType parse_type(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  if (name == "q8_0") return KvType::kQ8_0;
  throw_invalid("unknown type " + name);
}

struct Address {
  std::byte* element;
  std::byte* scale;  // q8_0
};

Address address(const KvLayerView& view, int slot, int head, int d, bool key) {
  const KvLayout& layout = view.layout;
  const int p = slot % kKvChunk;
  std::byte* part =
      view.pages[slot / kKvChunk] + static_cast<std::size_t>(head) * layout.head_bytes();
  const int k_index = (p / kKvLane * layout.head_dim + d) * kKvLane + p % kKvLane;
  const int v_index = p * layout.v_stride() + d;
  const int k_scale = (p / kKvLane * layout.n_scales() + d / 32) * kKvLane + p % kKvLane;
  const int v_scale = p * layout.n_scales() + d / 32;
  return {part + (key ? layout.k_offset() : layout.v_offset()) +
              static_cast<std::size_t>(key ? k_index : v_index) * kv_element_bytes(layout.type),
          part + (key ? layout.k_scales_offset() : layout.v_scales_offset()) +
              static_cast<std::size_t>(key ? k_scale : v_scale) * 2};
}

// Small integers are exact in every type: q8_0 stores x as 1 * scale x.
void write_number(KvType type, const Address& at, float x) {
  if (type == KvType::kF32) {
    std::memcpy(at.element, &x, 4);
    return;
  }
  const std::uint16_t half = f32_to_f16(x);
  std::memcpy(type == KvType::kF16 ? at.element : at.scale, &half, 2);
  if (type == KvType::kQ8_0) *at.element = std::byte{1};
}

float read_number(KvType type, const Address& at) {
  float x = 0;
  if (type == KvType::kF32) {
    std::memcpy(&x, at.element, 4);
    return x;
  }
  std::uint16_t half = 0;
  std::memcpy(&half, type == KvType::kF16 ? at.element : at.scale, 2);
  return f16_to_f32(half) *
         (type == KvType::kQ8_0 ? static_cast<float>(static_cast<std::int8_t>(*at.element)) : 1.0F);
}

// Every element of a slot is a different function of the slot's tag.
float pattern(float tag, int layer, int head, int d, int head_dim, bool key, KvType type) {
  const int dim = type == KvType::kQ8_0 ? d / 32 : d;
  return tag + static_cast<float>(((layer * 7 + head) * head_dim + dim) % 31 * 2 + (key ? 1 : 0));
}

template <class Function>
void for_each_element(const KvCache& cache, int slot, Function function) {
  const KvLayout& layout = cache.shape().layout;
  for (int layer = 0; layer < cache.shape().n_layers; ++layer) {
    const KvLayerView view = cache.layer_view(layer);
    for (int head = 0; head < layout.n_kv_heads; ++head) {
      for (int d = 0; d < layout.head_dim; ++d) {
        for (const bool key : {true, false})
          function(address(view, slot, head, d, key), layer, head, d, key);
      }
    }
  }
}

// Writes one tag (an integer below 1900) per row behind the length, as a forward would.
void write_rows(KvCache& cache, const std::vector<float>& tags) {
  const KvLayout& layout = cache.shape().layout;
  for (std::size_t r = 0; r < tags.size(); ++r) {
    for_each_element(cache, cache.length() + static_cast<int>(r),
                     [&](const Address& at, int layer, int head, int d, bool key) {
                       write_number(
                           layout.type, at,
                           pattern(tags[r], layer, head, d, layout.head_dim, key, layout.type));
                     });
  }
}

// The tag of each slot; NaN where the elements of a slot do not belong together.
std::vector<float> read_slots(const KvCache& cache, int begin, int end) {
  const KvLayout& layout = cache.shape().layout;
  std::vector<float> out;
  for (int slot = begin; slot < end; ++slot) {
    float tag = 0;
    bool first = true;
    for_each_element(cache, slot, [&](const Address& at, int layer, int head, int d, bool key) {
      const float x = read_number(layout.type, at) -
                      pattern(0, layer, head, d, layout.head_dim, key, layout.type);
      if (first) tag = x;
      if (x != tag) tag = NAN;
      first = false;
    });
    out.push_back(tag);
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_testing_kv, m) {
  static py::exception<Error> error(m, "KvError");
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      const char* name = e.code() == ErrorCode::kContextFull       ? "context_full: "
                         : e.code() == ErrorCode::kResource        ? "resource: "
                         : e.code() == ErrorCode::kInvalidArgument ? "invalid: "
                         : e.code() == ErrorCode::kModelFormat     ? "format: "
                         : e.code() == ErrorCode::kUnsupported     ? "unsupported: "
                         : e.code() == ErrorCode::kIo              ? "io: "
                                                                   : "internal: ";
      py::set_error(error, (name + std::string(e.what())).c_str());
    }
  });
  m.attr("CHUNK") = kKvChunk;
  m.def("hash64", [](const std::vector<std::string>& pieces) {
    Hash64 hash;
    for (const std::string& piece : pieces)
      hash.add(std::as_bytes(std::span(piece.data(), piece.size())));
    return hash.value();
  });
  m.def("save", [](const std::string& path, const std::vector<TokenId>& tokens,
                   const std::vector<const KvCache*>& caches) {
    KvFileHead head{.version = "1.2.3", .tokens = tokens, .caches = {}};
    for (const KvCache* cache : caches)
      head.caches.push_back({.model = "a model",
                             .fingerprint = 7,
                             .n_ctx = cache->n_ctx(),
                             .long_context = false,
                             .record = KvStore::record(*cache)});
    write_kv_file(path, head, caches, {});
  });
  // The tokens of a file and its caches, all of which are read.
  m.def("load", [](const std::string& path, const std::shared_ptr<KvArena>& arena) {
    const KvFile file(path);
    py::list caches;
    for (std::size_t i = 0; i < file.head().caches.size(); ++i)
      caches.append(py::cast(file.read(i, arena, file.head().caches[i].n_ctx, {})));
    return py::make_tuple(file.head().tokens, caches);
  });
  m.def("page_bytes", [](const std::string& type, int n_layers, int n_kv_heads, int head_dim) {
    return KvShape{n_layers, {parse_type(type), n_kv_heads, head_dim}}.page_size().host_bytes;
  });
  py::class_<KvArena, std::shared_ptr<KvArena>>(m, "Arena", py::module_local())
      .def(py::init([](std::size_t budget, bool poison) {
             return KvArena::create({.budget_bytes = budget, .poison = poison, .device = {}});
           }),
           py::arg("budget_bytes") = 0, py::arg("poison") = false)
      .def("release_free", &KvArena::release_free)
      .def("stats", [](const KvArena& arena) {
        const KvArenaStats s = arena.stats();
        py::dict out;
        out["used_bytes"] = s.used_bytes;
        out["free_bytes"] = s.free_bytes;
        out["peak_bytes"] = s.peak_bytes;
        out["budget_bytes"] = s.budget_bytes;
        out["n_used_pages"] = s.n_used_pages;
        out["n_free_pages"] = s.n_free_pages;
        return out;
      });
  py::class_<PrefixTree>(m, "PrefixTree", py::module_local())
      .def(py::init<>())
      .def("insert", [](PrefixTree& tree, const std::vector<TokenId>& tokens,
                        const KvCache& cache) { tree.insert(tokens, cache.fork()); })
      .def("find",  // (positions that agree, those of the cache), or None
           [](PrefixTree& tree, const std::vector<TokenId>& tokens) -> py::object {
             const PrefixTree::Match match = tree.find(tokens);
             if (match.cache == nullptr) return py::none();
             KvCache cache = match.cache->fork();
             cache.truncate(match.length);
             return py::make_tuple(match.length, py::cast(std::move(cache)));
           })
      .def("evict", &PrefixTree::evict)
      .def("size", &PrefixTree::size);
  py::class_<KvCache>(m, "Cache", py::module_local())
      .def(py::init([](const std::shared_ptr<KvArena>& arena, const std::string& type, int n_layers,
                       int n_kv_heads, int head_dim, int n_ctx, const std::vector<bool>& windowed,
                       int window) {
             return KvCache(arena,
                            {.n_layers = n_layers,
                             .layout = {parse_type(type), n_kv_heads, head_dim},
                             .windowed = windowed,
                             .window = window},
                            n_ctx);
           }),
           py::arg("arena"), py::arg("type"), py::arg("n_layers"), py::arg("n_kv_heads"),
           py::arg("head_dim"), py::arg("n_ctx"), py::arg("windowed") = std::vector<bool>{},
           py::arg("window") = 0)
      .def("forget", &KvCache::forget)
      .def("lowest",  // that can be gone back to beside 0; 0: all can
           [](const KvCache& cache) {
             int n = 1;
             while (cache.reachable(n) != n) ++n;
             return n == 1 ? 0 : n;
           })
      .def("n_bytes", &KvCache::n_bytes)
      .def("length", &KvCache::length)
      .def("reserve", [](KvCache& cache, int n_rows) { cache.reserve(n_rows); })
      .def("advance", &KvCache::advance)
      .def("truncate", &KvCache::truncate)
      .def("keep_path", [](KvCache& cache, int base,
                           const std::vector<std::int32_t>& rows) { cache.keep_path(base, rows); })
      .def("fork", &KvCache::fork)
      .def("write_rows", &write_rows)
      .def("read", &read_slots)
      .def("page_address", [](const KvCache& cache, int layer, int page) {
        return reinterpret_cast<std::uintptr_t>(cache.layer_view(layer).pages[page]);
      });
}
