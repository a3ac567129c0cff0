#include "engine/placement.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/checked.h"
#include "base/error.h"
#include "base/read_real.h"

namespace specdec {
namespace {

constexpr std::uint64_t kEmbeddingShare = 16;  // of what is left, the most an embedding may take

// Sizes come from files: sums must not wrap.
std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  const auto sum = checked_add(a, b);
  if (!sum) throw Error(ErrorCode::kResource, "a model of this size cannot be placed on a device");
  return *sum;
}

std::uint64_t weights_of(const DeviceDemand& model, int n_gpu_layers) {
  if (n_gpu_layers == 0) return 0;
  std::uint64_t n_bytes = model.head_bytes;
  const std::size_t first = model.layer_bytes.size() - static_cast<std::size_t>(n_gpu_layers);
  for (std::size_t i = first; i < model.layer_bytes.size(); ++i)
    n_bytes = add(n_bytes, model.layer_bytes[i]);
  return n_bytes;
}

std::uint64_t kv_of(const DeviceDemand& model, int n_gpu_layers) {
  const auto n_bytes = checked_mul(model.kv_layer_bytes, static_cast<std::uint64_t>(n_gpu_layers));
  if (!n_bytes) throw Error(ErrorCode::kResource, "a KV cache of this size cannot be placed");
  return *n_bytes;
}

}  // namespace

std::uint64_t device_margin_bytes(std::uint64_t free_bytes) {
  constexpr std::uint64_t kLeast = std::uint64_t{256} << 20;
  return std::min(std::max(kLeast, free_bytes / 32), free_bytes);
}

std::uint64_t Placement::total_bytes() const {
  std::uint64_t n_bytes = work_bytes;
  for (const ModelPlacement& model : models) n_bytes += model.reserved_bytes();
  return n_bytes;
}

std::vector<std::string> Placement::lines() const {
  std::vector<std::string> out;
  for (const ModelPlacement& m : models) {
    std::string line = m.name + ": ";
    if (m.n_gpu_layers == 0) {
      line += "all " + std::to_string(m.n_layers) + " layers on the CPU";
    } else {
      line += m.whole() ? "all " + std::to_string(m.n_layers) +
                              (m.embedding ? " layers, the embedding and the head on the GPU"
                                           : " layers and the head on the GPU")
                        : "layers " + std::to_string(m.n_layers - m.n_gpu_layers) + " to " +
                              std::to_string(m.n_layers - 1) + " of " + std::to_string(m.n_layers) +
                              " and the head on the GPU";
      line += ": " + bytes_text(m.weight_bytes) + " weights, " + bytes_text(m.kv_bytes) +
              " cache for " + std::to_string(m.n_ctx) + " tokens";
    }
    out.push_back(line);
  }
  out.push_back("GPU memory: " + bytes_text(total_bytes()) + " with " + bytes_text(work_bytes) +
                " work space, of " + bytes_text(room_bytes) +
                (budgeted ? " in the budget" : " free"));
  return out;
}

Placement plan_placement(const std::vector<DeviceDemand>& models, const DeviceRoom& room) {
  Placement plan;
  const std::uint64_t free = room.free_bytes - device_margin_bytes(room.free_bytes);
  const std::uint64_t budget = room.budget_bytes - std::min(room.used_bytes, room.budget_bytes);
  plan.budgeted = room.budget_bytes > 0 && budget < free;
  plan.room_bytes = plan.budgeted ? budget : free;

  std::uint64_t used = 0;  // without work buffers
  std::uint64_t work = 0;  // the largest so far
  for (const DeviceDemand& model : models) {
    const int n_layers = static_cast<int>(model.layer_bytes.size());
    // Everything on the device if the last n layers of this model are there.
    const auto total = [&](int n) {
      const std::uint64_t buffers = n == 0 ? work : std::max(work, model.work_bytes);
      const std::uint64_t more = buffers - std::min(buffers, room.used_work_bytes);
      return add(add(used, more), add(weights_of(model, n), kv_of(model, n)));
    };
    int n = std::min(model.n_gpu_layers, n_layers);
    if (n < 0) {
      n = n_layers;
      while (n > 0 && total(n) > plan.room_bytes) --n;
    } else if (total(n) > plan.room_bytes) {
      int fit = n;
      while (fit > 0 && total(fit) > plan.room_bytes) --fit;
      throw Error(ErrorCode::kResource,
                  model.name + ": " + std::to_string(n) + " of " + std::to_string(n_layers) +
                      " layers need " + bytes_text(total(n)) + " on the GPU (" +
                      bytes_text(weights_of(model, n)) + " weights, " +
                      bytes_text(kv_of(model, n)) + " cache for " + std::to_string(model.n_ctx) +
                      " tokens), and " + bytes_text(plan.room_bytes) +
                      (plan.budgeted ? " are left of the budget" : " are free") + "; " +
                      std::to_string(fit) +
                      " would fit: use fewer layers or 'auto', a smaller context or a smaller "
                      "kv_type");
    }
    ModelPlacement placed{.name = model.name,
                          .n_layers = n_layers,
                          .n_gpu_layers = n,
                          .n_ctx = model.n_ctx,
                          .weight_bytes = weights_of(model, n),
                          .kv_bytes = kv_of(model, n)};
    // It saves waits only: where room is short, layers of the next model are worth more.
    if (n == n_layers && total(n) <= plan.room_bytes &&
        model.embedding_bytes <= (plan.room_bytes - total(n)) / kEmbeddingShare) {
      placed.embedding = true;
      placed.weight_bytes = add(placed.weight_bytes, model.embedding_bytes);
    }
    used = add(used, placed.reserved_bytes());
    if (n > 0) work = std::max(work, model.work_bytes);
    plan.models.push_back(std::move(placed));
  }
  plan.work_bytes = work - std::min(work, room.used_work_bytes);
  return plan;
}

std::uint64_t parse_bytes(const std::string& option, const std::string& text) {
  const auto fail = [&]() {
    throw_invalid(option + " must be a size such as 4GiB, 1.5G, 800MB or a number of bytes, got '" +
                  printable(text) + "'");
  };
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = read_real(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc() || !(number > 0)) fail();
  std::string unit;
  for (const char* c = next; c != end; ++c) {
    if (*c != ' ') unit += *c >= 'A' && *c <= 'Z' ? static_cast<char>(*c - 'A' + 'a') : *c;
  }
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    constexpr char kUnits[] = "kmgt";
    std::size_t power = 0;
    while (power < 4 && kUnits[power] != unit[0]) ++power;
    const std::string rest = unit.substr(1);
    // As for memory everywhere else, K, M and G alone are powers of 1024.
    if (power == 4 || (!rest.empty() && rest != "b" && rest != "ib")) fail();
    factor = std::pow(rest == "b" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double n_bytes = number * factor;
  if (n_bytes < 1 || n_bytes > 1e18) fail();
  return static_cast<std::uint64_t>(n_bytes);
}

std::string bytes_text(std::uint64_t n_bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(n_bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[48];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text;
}

}  // namespace specdec
