// The whole loop over toy models: sessions, laws by enumeration, counts over many seeds.
#include <pybind11/functional.h>

#include <optional>

#include "decode/decoder.h"
#include "decode/feature_cache.h"
#include "decode/memory_lookup.h"
#include "decode/reread_scorer.h"
#include "decode_bindings.h"
#include "decode_chance.h"
#include "decode_convert.h"
#include "decode_lengths.h"
#include "decode_toy_head.h"

namespace py = pybind11;
using namespace specdec;
using namespace specdec::testing;

namespace {

class ToyPieces final : public TokenPieces {
 public:
  explicit ToyPieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::string piece(TokenId token) const override {
    return pieces_.at(static_cast<std::size_t>(token));
  }

 private:
  std::vector<std::string> pieces_;
};

// propose(committed, max_tokens) -> tokens or (tokens, parents), in Python.
class PyDrafter final : public Drafter {
 public:
  explicit PyDrafter(py::object function) : function_(std::move(function)) {}
  std::string_view name() const override { return "python"; }
  DraftLengths lengths() const override { return {}; }
  int default_draft_max() const override { return 4; }
  void begin(const DraftSetup&, std::span<const TokenId>) override {}
  DraftProposal propose(std::span<const TokenId> committed, int max_tokens, Chance&) override {
    const py::object answer =
        function_(std::vector<TokenId>(committed.begin(), committed.end()), max_tokens);
    DraftProposal proposal;
    if (py::isinstance<py::tuple>(answer)) {
      const auto pair =
          py::cast<std::pair<std::vector<TokenId>, std::vector<std::int32_t>>>(answer);
      proposal.tokens = pair.first;
      proposal.parents = pair.second;
    } else {
      proposal.tokens = py::cast<std::vector<TokenId>>(answer);
    }
    return proposal;
  }
  void commit(const CommitInfo& info) override { n_committed += info.n_new; }
  void reset() override {}
  int n_committed = 0;

 private:
  py::object function_;
};

// Draws from one distribution and declares another: losslessness must break.
class LyingDrafter final : public Drafter {
 public:
  explicit LyingDrafter(int vocab_size) : vocab_size_(static_cast<std::size_t>(vocab_size)) {}
  std::string_view name() const override { return "lying"; }
  DraftLengths lengths() const override { return {}; }
  int default_draft_max() const override { return 2; }
  void begin(const DraftSetup&, std::span<const TokenId>) override {}
  DraftProposal propose(std::span<const TokenId>, int max_tokens, Chance& chance) override {
    std::vector<double> drawn(vocab_size_, 1.0);
    drawn[0] = static_cast<double>(vocab_size_);
    const Distribution law = Distribution::from_probs(drawn);
    DraftProposal proposal;
    while (proposal.size() < max_tokens) {
      proposal.tokens.push_back(chance.draw(law));
      proposal.probs.push_back(Distribution::from_probs(std::vector<double>(vocab_size_, 1.0)));
    }
    return proposal;
  }
  void reset() override {}

 private:
  std::size_t vocab_size_;
};

void read_lengths(Fields& f, DraftLengths& lengths) {
  f.read("draft_max", lengths.draft_max);
  f.read("draft_min", lengths.draft_min);
  f.read("gamma", lengths.gamma);
}
void read_mode(Fields& f, DraftMode& mode) {
  std::string name = "auto";
  f.read("mode", name);
  mode = parse_draft_mode(name);
}
void read_drafter(Fields& f, DraftModelOptions& o) {
  read_lengths(f, o.lengths);
  read_mode(f, o.mode);
  f.read("temperature", o.temperature);
  f.read("top_k", o.top_k);
  f.read("branch", o.branch);
  f.read("head_tokens", o.head_tokens);
}
void read_drafter(Fields& f, LayerSkipOptions& o) {
  read_lengths(f, o.lengths);
  read_mode(f, o.mode);
  f.read("temperature", o.temperature);
}
void read_drafter(Fields& f, EagleOptions& o) {
  read_lengths(f, o.lengths);
  read_mode(f, o.mode);
  f.read("temperature", o.temperature);
  f.read("top_k", o.top_k);
}
void read_drafter(Fields& f, MtpOptions& o) {
  read_lengths(f, o.lengths);
  read_mode(f, o.mode);
  f.read("temperature", o.temperature);
  f.read("top_k", o.top_k);
  f.read("head_tokens", o.head_tokens);
}
void read_drafter(Fields& f, NGramOptions& o) {
  read_lengths(f, o.lengths);
  f.read("n", o.n);
  f.read("filler_top_k", o.filler_top_k);
  f.read("min_count", o.min_count);
  f.read("keep_store", o.keep);
}
void read_drafter(Fields& f, SuffixOptions& o) {
  read_lengths(f, o.lengths);
  f.read("min_match", o.min_match);
  f.read("max_store", o.max_store);
  f.read("keep_store", o.keep);
  std::vector<TokenId> corpus;
  f.read("corpus", corpus);
  if (!corpus.empty()) o.corpus = make_suffix_corpus({&corpus, 1});
}
void read_drafter(Fields& f, RecyclingOptions& o) {
  read_lengths(f, o.lengths);
  f.read("successors", o.top_k);
  f.read("tree", o.tree);
  f.read("keep_store", o.keep);
}

// A target, perhaps a drafter, and the decoder between them.
class Session {
 public:
  Session(const py::dict& target, const py::object& drafter, bool use_cache)
      : target_(to_toy(target)), use_cache_(use_cache) {
    if (!drafter.is_none()) make(py::cast<py::dict>(drafter));
    if (!use_cache) target_reread_.emplace(target_);
    decoder_.emplace(use_cache ? static_cast<TokenScorer&>(target_) : *target_reread_,
                     drafter_.get());
  }

  py::dict run(const py::dict& options) {
    DecodeRequest request;
    std::optional<ToyPieces> pieces;
    int stop_after_chunks = 0;
    int raise_at_chunk = 0;
    read_request(options, request, pieces, stop_after_chunks, raise_at_chunk);
    request.cancel = &target_.cancel_flag;
    py::list chunks;
    py::list rounds;
    py::list prompt_progress;
    request.on_chunk = [&](const Chunk& chunk) {
      const int n = static_cast<int>(chunks.size()) + 1;
      if (n == raise_at_chunk) throw py::value_error("raised in the callback");
      py::dict d;
      d["token_ids"] = std::vector<TokenId>(chunk.token_ids.begin(), chunk.token_ids.end());
      d["from_draft"] = std::vector<int>(chunk.from_draft.begin(), chunk.from_draft.end());
      d["text"] = py::bytes(chunk.text.data(), chunk.text.size());
      d["n_logprobs"] = chunk.logprobs.size();
      chunks.append(d);
      return n != stop_after_chunks;
    };
    request.on_round = [&](const RoundInfo& info) {
      rounds.append(py::make_tuple(std::vector<TokenId>(info.drafted.begin(), info.drafted.end()),
                                   std::vector<int>(info.accepted.begin(), info.accepted.end()),
                                   info.next_token));
    };
    request.on_prompt = [&](int done, int total) {
      prompt_progress.append(py::make_tuple(done, total));
    };
    const DecodeResult result = decoder_->run(request);
    py::dict d = to_dict(result);
    d["chunks"] = chunks;
    d["rounds"] = rounds;
    d["prompt_progress"] = prompt_progress;
    return d;
  }

  // Requests of several sessions, turn by turn, as a scheduler has them; each from its beginning.
  static std::vector<std::vector<TokenId>> by_turns(
      const std::vector<std::pair<Session*, py::dict>>& all) {
    struct Running {
      DecodeRequest request;
      std::optional<ToyPieces> pieces;
      std::optional<TokenCache> cache;
      std::vector<Drafter*> drafters;
      std::optional<Task> task;
    };
    std::vector<std::unique_ptr<Running>> running;
    for (const auto& [session, options] : all) {
      Running& r = *running.emplace_back(std::make_unique<Running>());
      int unused = 0;
      session->read_request(options, r.request, r.pieces, unused, unused);
      session->decoder_->reset();
      ToyScorer& toy = session->target_;
      r.cache.emplace(toy);
      if (session->drafter_ != nullptr) r.drafters = {session->drafter_.get()};
      r.task.emplace(
          TaskTarget{.vocab_size = toy.vocab_size(), .n_ctx = toy.n_ctx(), .scorer = &toy},
          r.drafters, nullptr, r.request);
      r.task->begin();
      (void)r.task->n_kept(0);
      r.task->read_from(0, 0.0);
    }
    for (bool goes_on = true; goes_on;) {
      goes_on = false;
      for (const auto& r : running) {
        // One row of a prompt at a time: whoever drives a task may cut it as he likes.
        const TaskRows* const rows = r->task->next_rows(1);
        if (rows == nullptr) continue;
        take_turn(*r->cache, *rows, *r->task);
        goes_on = true;
      }
    }
    std::vector<std::vector<TokenId>> results;
    for (std::size_t i = 0; i < running.size(); ++i) {
      results.push_back(running[i]->task->result(false).token_ids);
      all[i].first->decoder_->reset();
    }
    return results;
  }

  // Law of the result's token ids over every branch of the loop.
  std::vector<std::pair<std::vector<TokenId>, double>> law(const py::dict& options) {
    DecodeRequest request;
    std::optional<ToyPieces> pieces;
    int unused = 0;
    read_request(options, request, pieces, unused, unused);
    std::vector<std::pair<std::vector<TokenId>, double>> result;
    for (const auto& item : enumerate([&](Chance& chance) {
           request.chance = &chance;
           decoder_->reset();  // what a drafter keeps must not differ from branch to branch
           return decoder_->run(request).token_ids;
         })) {
      result.push_back(item);
    }
    return result;
  }

  // How often each result came for seeds first .. first + n - 1. reuse: a deliberate fault: every
  // "round" sees the same numbers, or "drafts" or "coins" come again at the same position.
  std::vector<std::pair<std::vector<TokenId>, int>> counts(const py::dict& options,
                                                           std::uint64_t first, int n,
                                                           const std::string& reuse) {
    DecodeRequest request;
    std::optional<ToyPieces> pieces;
    int unused = 0;
    read_request(options, request, pieces, unused, unused);
    std::map<std::vector<TokenId>, int> seen;
    for (int i = 0; i < n; ++i) {
      request.sampling.seed = first + static_cast<std::uint64_t>(i);
      ReusedChance reused(request.sampling.seed);
      PositionKeyedChance keyed(request.sampling.seed, reuse != "coins", reuse != "drafts",
                                request.prompt.size());
      if (reuse == "round") request.chance = &reused;
      if (reuse == "drafts" || reuse == "coins") {
        request.chance = &keyed;
        request.on_round = [&](const RoundInfo& info) { keyed.advance(info.accepted.size() + 1); };
      }
      ++seen[decoder_->run(request).token_ids];
    }
    return {seen.begin(), seen.end()};
  }

  // model: "target" or "draft"; what: fail_at, nan_at or cancel_at, counted from now on.
  void inject(const std::string& model, const std::string& what, int at, const std::string& code) {
    ToyScorer& toy = model == "target" ? target_ : *draft_;
    toy.fail_at = toy.nan_at = toy.cancel_at = 0;
    toy.cancel_flag = false;
    const int when = at > 0 ? toy.n_forwards + at : 0;
    if (what == "fail") toy.fail_at = when;
    if (what == "nan") toy.nan_at = when;
    if (what == "cancel") toy.cancel_at = when;
    toy.fail_code = to_code(code);
  }
  void set_cancel(bool value) { target_.cancel_flag = value; }

  std::vector<TokenId> target_cache() const {
    if (std::vector<TokenId>(decoder_->cached_tokens().begin(), decoder_->cached_tokens().end()) !=
        target_.cache()) {
      throw std::logic_error("the decoder's list of tokens differs from the scorer's cache");
    }
    return target_.cache();
  }
  std::vector<TokenId> draft_cache() const {
    if (head_) return head_->text();
    return draft_ ? draft_->cache() : std::vector<TokenId>{};
  }
  std::vector<int> batches(const std::string& model) {
    ToyScorer& toy = model == "target" ? target_ : *draft_;
    return std::exchange(toy.batch_sizes, {});
  }
  std::vector<std::pair<int, int>> followed() { return std::exchange(target_.followed, {}); }
  // As propose_all(), by a plan that the target follows where there is one; whether there was.
  std::pair<DraftProposal, bool> propose_ahead(const std::vector<TokenId>& committed,
                                               int max_tokens) {
    std::optional<DraftPlan> plan;
    if (drafter_->model() != nullptr) plan = drafter_->model()->plan(committed, max_tokens);
    if (!plan) return {propose_all(committed, max_tokens), false};
    std::vector<TokenId> tokens(plan->picks.size() + 1, 0);
    tokens[0] = committed.back();
    std::vector<std::int32_t> picks = {-1};
    picks.insert(picks.end(), plan->picks.begin(), plan->picks.end());
    std::vector<std::int32_t> parents;
    if (!plan->parents.empty()) parents.push_back(-1);
    for (const std::int32_t parent : plan->parents) parents.push_back(parent + 1);
    Batch batch;
    batch.tokens = tokens;
    batch.parents = parents;
    batch.output = RowOutput::kArgmax;
    target_.truncate(0);
    target_.issue(*plan->scorer, plan->steps, batch, picks);
    target_.finish();
    DraftProposal proposal = drafter_->model()->conclude(*plan);
    target_.keep(1 + proposal.size());
    return {std::move(proposal), true};
  }
  std::vector<int> chains() { return std::exchange(draft_->chain_sizes, {}); }
  std::vector<float> logits(const std::string& model, const std::vector<TokenId>& path) const {
    return (model == "target" ? target_ : *draft_).logits_after(path);
  }
  void reset() { decoder_->reset(); }
  // The drafter alone, without a target: what it proposes after this text.
  DraftProposal propose_all(const std::vector<TokenId>& committed, int max_tokens) {
    RngChance chance(0, 0, committed.size(), RngStream::kDraft);
    return drafter_->propose(committed, max_tokens, chance);
  }
  std::vector<TokenId> propose(const std::vector<TokenId>& committed, int max_tokens) {
    return propose_all(committed, max_tokens).tokens;
  }
  // min_probability >= 0: a draft ends behind the first token less likely than that.
  void begin(const std::vector<TokenId>& prompt, const std::vector<TokenId>& eog, bool trees,
             int first_window, double min_probability, int n_siblings, double temperature) {
    VerifierTraits traits;
    traits.trees = trees;
    traits.position_noise = temperature > 0;
    rule_ = {};
    rule_.min_probability = min_probability;
    rule_.n_siblings = n_siblings;
    SamplingParams sampling;
    sampling.temperature = temperature;
    if (temperature > 0) sampling.top_k = 20;
    drafter_->begin({.sampling = sampling,
                     .eog = eog,
                     .vocab_size = target_.vocab_size(),
                     .verifier = traits,
                     .target = &target_,
                     .memory_key = 0,
                     .length_rule = min_probability >= 0 ? &rule_ : nullptr,
                     .siblings = n_siblings > 0,
                     .first_window = first_window},
                    prompt);
  }
  [[nodiscard]] std::vector<double> probabilities() const { return rule_.seen; }
  // (n_drafted, rank, probability, conditional) of every question for a sibling.
  [[nodiscard]] std::vector<std::tuple<int, int, double, double>> sibling_questions() const {
    return rule_.questions;
  }
  int n_behind(const std::vector<TokenId>& committed) {
    return drafter_->model()->n_behind(committed);
  }
  [[nodiscard]] int n_unread() const { return drafter_->model()->n_unread(); }
  void read_all(const std::vector<TokenId>& committed) { drafter_->model()->read_all(committed); }
  [[nodiscard]] bool can_read_all(const std::vector<TokenId>& committed) const {
    return drafter_->model()->can_read_all(committed);
  }
  void align(const std::vector<TokenId>& committed) {
    if (drafter_->model() != nullptr) drafter_->model()->align(committed);
  }
  void commit(const std::vector<TokenId>& committed, int n_new,
              const std::vector<std::vector<TokenId>>& target_top_k,
              const std::vector<TokenId>& row_tokens,
              const std::vector<std::vector<TokenId>>& row_top_k) {
    drafter_->commit({.committed = committed,
                      .n_new = n_new,
                      .target_top_k = target_top_k,
                      .row_tokens = row_tokens,
                      .row_top_k = row_top_k});
  }

 private:
  struct Rule final : LengthRule {
    double min_probability = 0.0;
    int n_siblings = 0;  // per depth
    std::vector<double> seen;
    std::vector<std::tuple<int, int, double, double>> questions;
    bool wants_sibling(int n, int rank, double probability, double conditional) override {
      questions.emplace_back(n, rank, probability, conditional);
      return rank <= n_siblings;
    }
    int n_planned_siblings(int n_chain) override { return n_siblings > 0 ? n_chain : 0; }
    void note_sibling(int n, double conditional) override {
      questions.emplace_back(n, 1, -1.0, conditional);
    }
    bool keep_going(int, double probability) override {
      seen.push_back(probability);
      return probability >= min_probability;
    }
  };

  void make(const py::dict& dict) {
    std::string kind;
    py::dict toy;
    py::object propose = py::none();
    DrafterModels models;
    DrafterOptions options;
    std::unique_ptr<Drafter> made;
    Fields f(dict);
    f.read("kind", kind);
    f.read("toy", toy);
    f.read("propose", propose);
    std::vector<TokenId> known;
    const bool is_head = kind == "eagle" || kind == "mtp";
    if (is_head) f.read("known", known);
    std::vector<std::vector<TokenId>> texts = {{0, 1, 2, 0, 2, 0, 2, 0, 1, 1, 2, 0, 2, 0, 2, 2}};
    MemoryLookupOptions lookup;
    if (kind == "memory") {
      f.read("texts", texts);
      f.read("min_match", lookup.min_match);
      read_lengths(f, lookup.lengths);
    }
    const bool is_listed = kind != "python" && kind != "lying" && kind != "memory";
    if (is_listed) {
      options = default_drafter_options(kind);
      std::visit([&](auto& o) { read_drafter(f, o); }, options);
    }
    f.done();
    if (kind == "python") {
      made = std::make_unique<PyDrafter>(propose);
    } else if (kind == "memory") {
      auto memory = std::make_shared<DraftMemory>();
      for (const auto& text : texts) memory->add(0, text);
      made = make_memory_lookup(lookup, std::move(memory));
    } else if (kind == "lying") {
      made = std::make_unique<LyingDrafter>(target_.vocab_size());
    } else {
      if (dict.contains("toy")) {
        draft_ = std::make_unique<ToyScorer>(to_toy(toy));
        TokenScorer* seen = draft_.get();
        if (!use_cache_) seen = &draft_reread_.emplace(*draft_);
        if (is_head) {
          models.features = &head_cache_.emplace(head_.emplace(*draft_, known));
        } else {
          models.draft = models.layers = &draft_cache_.emplace(*seen);
        }
      }
      made = make_drafter(options, models);
    }
    drafter_ = std::make_unique<WithLengths>(std::move(made));
  }

  void read_request(const py::dict& options, DecodeRequest& r, std::optional<ToyPieces>& pieces,
                    int& stop_after_chunks, int& raise_at_chunk) {
    py::dict sampling;
    std::vector<std::string> piece_list;
    Fields f(options);
    f.read("prompt", r.prompt);
    f.read("max_tokens", r.max_tokens);
    f.read("sampling", sampling);
    f.read("eog", r.eog);
    f.read("ignore_eos", r.ignore_eos);
    f.read("stop", r.stop);
    f.read("pieces", piece_list);
    f.read("n_logprobs", r.n_logprobs);
    f.read("verifier", r.verifier);
    f.read("speculate", r.speculate);
    r.memory_key = 0;
    DraftLengths lengths;
    f.read("gamma", lengths.gamma);
    f.read("draft_max", lengths.draft_max);
    f.read("draft_min", lengths.draft_min);
    lengths.validate();
    if (drafter_ != nullptr) {
      drafter_->told.reset();
      if (lengths.gamma || lengths.draft_max || lengths.draft_min > 0) drafter_->told = lengths;
    }
    f.read("stop_after_chunks", stop_after_chunks);
    f.read("raise_at_chunk", raise_at_chunk);
    f.done();
    r.sampling = to_params(sampling);
    if (!piece_list.empty()) r.pieces = &pieces.emplace(piece_list);
  }

  static py::dict to_dict(const DecodeResult& r) {
    const DecodeStats& s = r.stats;
    py::dict stats;
    stats["rounds"] = s.rounds;
    stats["plain_steps"] = s.plain_steps;
    stats["drafted"] = s.drafted;
    stats["accepted"] = s.accepted;
    stats["accepted_cut"] = s.accepted_cut;
    stats["emitted"] = s.emitted;
    stats["cut"] = s.cut;
    stats["drafted_per_position"] = s.drafted_per_position;
    stats["accepted_per_position"] = s.accepted_per_position;
    stats["accepted_histogram"] = s.accepted_histogram;
    stats["prompt_tokens"] = s.prompt_tokens;
    stats["reused_prompt_tokens"] = s.reused_prompt_tokens;
    stats["total_ms"] = s.total_ms;
    stats["prompt_ms"] = s.prompt_ms;
    stats["decode_ms"] = s.decode_ms;
    stats["draft_ms"] = s.draft_ms;
    stats["verify_ms"] = s.verify_ms;
    stats["sample_ms"] = s.sample_ms;
    stats["time_to_first_token_ms"] = s.time_to_first_token_ms;
    stats["speculation"] = s.speculation;
    stats["note"] = s.note;
    stats["candidate_positions"] = s.candidate_positions;
    stats["in_set"] = s.in_set();
    stats["candidate_acceptance"] = s.candidate_acceptance();
    stats["acceptance_rate"] = s.acceptance_rate();
    stats["mean_acceptance_length"] = s.mean_acceptance_length();
    stats["tokens_per_second"] = s.tokens_per_second();
    py::list logprobs;
    for (const TokenLogprobs& l : r.logprobs)
      logprobs.append(py::make_tuple(l.token, l.logprob, l.top));
    py::dict d;
    d["token_ids"] = r.token_ids;
    d["from_draft"] = std::vector<int>(r.from_draft.begin(), r.from_draft.end());
    d["text"] = py::bytes(r.text);
    d["logprobs"] = logprobs;
    d["finish_reason"] = std::string(to_string(r.finish_reason));
    d["stop_token"] = r.stop_token;
    d["stop_string"] = r.stop_string;
    d["stats"] = stats;
    return d;
  }

  ToyScorer target_;
  bool use_cache_;
  std::unique_ptr<ToyScorer> draft_;
  std::optional<RereadScorer> target_reread_, draft_reread_;
  Rule rule_;
  std::optional<TokenCache> draft_cache_;
  std::optional<ToyHead> head_;
  std::optional<FeatureCache> head_cache_;
  std::unique_ptr<WithLengths> drafter_;
  std::optional<Decoder> decoder_;
};

}  // namespace

void bind_session(py::module_& m) {
  m.def("drafters", [] {
    py::dict all;
    for (const DrafterInfo& info : all_drafters())
      all[py::str(std::string(info.name))] = info.needs_model;
    all["memory"] = false;  // which is none of a list: it comes with a memory
    return all;
  });
  py::class_<Session>(m, "Session", py::module_local())
      .def(py::init<const py::dict&, const py::object&, bool>(), py::arg("target"),
           py::arg("drafter") = py::none(), py::arg("use_cache") = true)
      .def("run", [](Session& s, const py::kwargs& options) { return s.run(options); })
      .def_static("by_turns", &Session::by_turns, py::arg("sessions_and_options"))
      .def("law", [](Session& s, const py::kwargs& options) { return s.law(options); })
      .def("counts", &Session::counts, py::arg("options"), py::arg("first_seed"), py::arg("n"),
           py::arg("reuse") = "")
      .def("inject", &Session::inject, py::arg("model"), py::arg("what"), py::arg("at"),
           py::arg("code") = "resource")
      .def("set_cancel", &Session::set_cancel)
      .def("target_cache", &Session::target_cache)
      .def("draft_cache", &Session::draft_cache)
      .def("batches", &Session::batches)
      .def("logits", &Session::logits)
      .def("reset", &Session::reset)
      .def("begin", &Session::begin, py::arg("prompt"), py::arg("eog") = std::vector<TokenId>{},
           py::arg("trees") = false, py::arg("first_window") = 0, py::arg("min_probability") = -1.0,
           py::arg("n_siblings") = 0, py::arg("temperature") = 0.0)
      .def("sibling_questions", &Session::sibling_questions)
      .def("probabilities", &Session::probabilities)
      .def("chains", &Session::chains)
      .def("followed", &Session::followed)
      .def("propose_ahead",
           [](Session& s, const std::vector<TokenId>& committed, int max_tokens) {
             const auto [p, ahead] = s.propose_ahead(committed, max_tokens);
             return std::tuple(p.tokens, p.parents, ahead);
           })
      .def("n_behind", &Session::n_behind)
      .def("n_unread", &Session::n_unread)
      .def("read_all", &Session::read_all)
      .def("can_read_all", &Session::can_read_all)
      .def("align", &Session::align)
      .def("propose", &Session::propose)
      .def("propose_tree",
           [](Session& s, const std::vector<TokenId>& committed, int max_tokens) {
             DraftProposal p = s.propose_all(committed, max_tokens);
             return std::tuple(p.tokens, p.parents, p.strength);
           })
      .def("commit", &Session::commit, py::arg("committed"), py::arg("n_new"),
           py::arg("target_top_k") = std::vector<std::vector<TokenId>>{},
           py::arg("row_tokens") = std::vector<TokenId>{},
           py::arg("row_top_k") = std::vector<std::vector<TokenId>>{});
}
