#include "engine/pair.h"

#include "base/error.h"
#include "tokenizer/compare.h"
#include "tokenizer/tokenizer.h"

namespace specdec {

PairReport check_pair(const LoadedModel& target, const LoadedModel& draft) {
  const VocabDifference difference = compare_vocabularies(target.tokenizer(), draft.tokenizer());
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

  const ModelInfo& t = target.info();
  const ModelInfo& d = draft.info();
  report.cost_ratio = t.bytes_per_step == 0 ? 0
                                            : static_cast<double>(d.bytes_per_step) /
                                                  static_cast<double>(t.bytes_per_step);
  report.memory_bytes = t.weight_bytes + (&target == &draft ? 0 : d.weight_bytes);
  report.kv_bytes_per_token = t.kv_bytes_per_token + d.kv_bytes_per_token;
  if (report.cost_ratio > 0.7) {
    report.warnings.push_back("a draft step reads " +
                              std::to_string(static_cast<int>(100 * report.cost_ratio + 0.5)) +
                              " % of the bytes of a target step: drafting will hardly pay");
  }
  return report;
}

void require_pair(const LoadedModel& target, const LoadedModel& draft) {
  const VocabDifference difference = compare_vocabularies(target.tokenizer(), draft.tokenizer());
  if (difference.compatible) return;
  throw Error(ErrorCode::kUnsupported, printable(draft.info().path, 400) + " cannot draft for " +
                                           printable(target.info().path, 400) + ": " +
                                           difference.message() +
                                           "; use a draft model of the same family");
}

}  // namespace specdec
