// Python dictionaries -> option structs; unknown keys are refused so that a typo cannot pass.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <set>
#include <string>

#include "decode/drafter.h"
#include "decode_toy.h"
#include "sampling/params.h"

namespace specdec::testing {

namespace py = pybind11;

class Fields {
 public:
  explicit Fields(const py::dict& dict) : dict_(dict) {
    for (const auto& item : dict_) unread_.insert(py::cast<std::string>(item.first));
  }
  template <typename T>
  void read(const char* name, T& value) {
    if (!dict_.contains(name)) return;
    unread_.erase(name);
    value = py::cast<T>(dict_[name]);
  }
  void done() const {
    if (!unread_.empty()) throw py::key_error("unknown option " + *unread_.begin());
  }

 private:
  py::dict dict_;
  std::set<std::string> unread_;
};

inline SamplingParams to_params(const py::dict& dict) {
  SamplingParams p;
  Fields f(dict);
  f.read("temperature", p.temperature);
  f.read("top_k", p.top_k);
  f.read("top_p", p.top_p);
  f.read("min_p", p.min_p);
  f.read("noise_scale", p.noise_scale);
  f.read("seed", p.seed);
  f.read("repetition_penalty", p.repetition_penalty);
  f.read("presence_penalty", p.presence_penalty);
  f.read("frequency_penalty", p.frequency_penalty);
  f.read("penalty_last_n", p.penalty_last_n);
  f.read("logit_bias", p.logit_bias);
  f.done();
  return p;
}

inline ToySpec to_toy(const py::dict& dict) {
  ToySpec s;
  Fields f(dict);
  f.read("vocab_size", s.vocab_size);
  f.read("n_ctx", s.n_ctx);
  f.read("seed", s.seed);
  f.read("scale", s.scale);
  f.read("order", s.order);
  f.read("levels", s.levels);
  f.read("mix_seed", s.mix_seed);
  f.read("mix", s.mix);
  f.read("chain_steps", s.chain_steps);
  f.read("follows", s.follows);
  f.read("max_tree_rows", s.max_tree_rows);
  f.done();
  return s;
}

inline ErrorCode to_code(const std::string& name) {
  if (name == "resource") return ErrorCode::kResource;
  if (name == "device") return ErrorCode::kDevice;
  if (name == "cancelled") return ErrorCode::kCancelled;
  if (name == "numerical") return ErrorCode::kNumerical;
  if (name == "context_full") return ErrorCode::kContextFull;
  if (name == "internal") return ErrorCode::kInternal;
  throw py::key_error("unknown error code " + name);
}

}  // namespace specdec::testing
