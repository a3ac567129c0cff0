// Which layers of which model go to the GPU: a pure function of sizes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace specdec {

// What a model takes on a device, by parts. Layers leave the CPU from the last one on, so that the
// output head is on the device whenever any layer is.
struct DeviceDemand {
  std::string name;                        // "draft", "target", or a file's
  std::vector<std::uint64_t> layer_bytes;  // [n_layers] weights
  std::uint64_t head_bytes = 0;            // output norm and head
  std::uint64_t embedding_bytes = 0;       // 0: it is the head
  std::uint64_t kv_layer_bytes = 0;        // one layer's cache of n_ctx positions
  int n_ctx = 0;
  std::uint64_t work_bytes =
      0;                  // row buffers, shared by all models of the device: the largest counts
  int n_gpu_layers = -1;  // wanted; -1: as many as fit
};

struct DeviceRoom {
  std::uint64_t free_bytes = 0;  // of the device now
  std::uint64_t used_bytes = 0;  // of it, what this process holds already: counts in the budget
  std::uint64_t used_work_bytes = 0;  // of that, the work buffers, which are shared
  std::uint64_t budget_bytes = 0;     // 0: all but a margin
};

struct ModelPlacement {
  std::string name;
  int n_layers = 0;
  int n_gpu_layers = 0;    // the last so many; the head goes with them
  bool embedding = false;  // also there: passes begin on the device
  int n_ctx = 0;
  std::uint64_t weight_bytes = 0;  // on the device
  std::uint64_t kv_bytes = 0;

  [[nodiscard]] bool whole() const { return n_gpu_layers == n_layers; }
  [[nodiscard]] std::uint64_t reserved_bytes() const { return weight_bytes + kv_bytes; }
};

struct Placement {
  std::vector<ModelPlacement> models;  // in the order given
  std::uint64_t work_bytes = 0;        // more than the device had before
  std::uint64_t room_bytes = 0;        // that could be used
  bool budgeted = false;               // room is the caller's budget, not the device's memory

  [[nodiscard]] std::uint64_t total_bytes() const;
  // One line per model and one for the whole, for people.
  [[nodiscard]] std::vector<std::string> lines() const;
};

// Memory of a device that is never planned for: the context and kernels of the driver's own.
[[nodiscard]] std::uint64_t device_margin_bytes(std::uint64_t free_bytes);

// Models in the order of their right to the device: a draft model first, because it runs more often
// than the target. Each gets the layers it asks for, or as many as fit behind those before it, and
// with all of them the embedding if that takes no more than a sixteenth of what is left.
// Throws Error(kResource) when layers were asked for by number and do not fit, with what would.
[[nodiscard]] Placement plan_placement(const std::vector<DeviceDemand>& models,
                                       const DeviceRoom& room);

// "4GiB", "512 MiB", "1.5G", "800MB", "123456": bytes. Error(kInvalidArgument) naming `option`.
[[nodiscard]] std::uint64_t parse_bytes(const std::string& option, const std::string& text);
[[nodiscard]] std::string bytes_text(std::uint64_t n_bytes);  // "1.25 GiB"

}  // namespace specdec
