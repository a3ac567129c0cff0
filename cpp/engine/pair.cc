#include "engine/pair.h"

#include "base/error.h"
#include "gguf/reader.h"
#include "model/config.h"
#include "model/draft_head.h"
#include "model/model.h"
#include "tokenizer/compare.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

namespace {

PairReport compare(const Tokenizer& target, const ModelInfo& t, const Tokenizer& draft,
                   const ModelInfo& d) {
  const VocabDifference difference = compare_vocabularies(target, draft);
  PairReport report;
  report.compatible = difference.compatible;
  report.identical = difference.compatible && difference.target_size == difference.draft_size;
  report.n_target_tokens = difference.target_size;
  report.n_draft_tokens = difference.draft_size;
  report.n_shared_tokens = difference.n_shared;
  report.first_difference = difference.first_difference;
  report.target_text = printable(difference.target_text);
  report.draft_text = printable(difference.draft_text);
  report.reason = difference.message();
  report.warnings = difference.notes;
  report.cost_ratio = t.bytes_per_step == 0 ? 0
                                            : static_cast<double>(d.bytes_per_step) /
                                                  static_cast<double>(t.bytes_per_step);
  report.memory_bytes = t.weight_bytes + d.weight_bytes;
  report.kv_bytes_per_token = t.kv_bytes_per_token + d.kv_bytes_per_token;
  if (report.cost_ratio > 0.7) {
    report.warnings.push_back("a draft step reads " +
                              std::to_string(static_cast<int>(100 * report.cost_ratio + 0.5)) +
                              " % of the bytes of a target step: drafting will hardly pay");
  }
  return report;
}

void refuse(PairReport& report, const std::string& reason) {
  if (reason.empty()) return;
  report.compatible = report.identical = false;
  report.reason = reason;
}

// What runs a file needs, without the weights; what() of the Error says why it does not run.
std::shared_ptr<const Tokenizer> check_file(const GgufFile& file) {
  (void)read_model_config(file);
  return Tokenizer::from_gguf(file);
}

}  // namespace

PairReport check_pair(const LoadedModel& target, const LoadedModel& draft) {
  PairReport report = compare(target.tokenizer(), target.info(), draft.tokenizer(), draft.info());
  if (&target == &draft) report.memory_bytes = target.info().weight_bytes;
  if (report.compatible && draft.model().config().draft_head)
    refuse(report, why_not_for(draft.model().config(), target.model().config()));
  return report;
}

PairReport check_pair(const GgufFile& target, const GgufFile& draft) {
  try {
    PairReport report = compare(*check_file(target), describe_model(target), *check_file(draft),
                                describe_model(draft));
    const ModelConfig head = read_model_config(draft);
    if (report.compatible && head.draft_head)
      refuse(report, why_not_for(head, read_model_config(target)));
    return report;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModelFormat && error.code() != ErrorCode::kUnsupported) throw;
    PairReport report;
    report.reason = error.what();
    return report;
  }
}

void require_pair(const LoadedModel& target, const LoadedModel& draft) {
  const VocabDifference difference = compare_vocabularies(target.tokenizer(), draft.tokenizer());
  const bool is_head = static_cast<bool>(draft.model().config().draft_head);
  const std::string reason = !difference.compatible ? difference.message()
                             : is_head
                                 ? why_not_for(draft.model().config(), target.model().config())
                                 : "";
  if (reason.empty()) return;
  throw Error(ErrorCode::kUnsupported,
              printable(draft.info().path, 400) + " cannot draft for " +
                  printable(target.info().path, 400) + ": " + reason +
                  (is_head ? "; use a head that was trained for this target"
                           : "; use a draft model of the same family"));
}

}  // namespace specdec
