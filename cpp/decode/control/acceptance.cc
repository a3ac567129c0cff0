#include "decode/control/acceptance.h"

#include <algorithm>

namespace specdec {
namespace {

constexpr double kKeep = 0.97;         // what a count is worth after the next one of its cell
constexpr double kPriorWeight = 2.0;   // judgements that a prior is worth
constexpr double kParentWeight = 6.0;  // judgements that a cell's parent is worth

// Guesses before anything is known; a few judgements replace them.
constexpr std::array<double, AcceptanceModel::kGrades> kLookupPrior = {0.3, 0.15, 0.3,  0.45,
                                                                       0.6, 0.75, 0.87, 0.95};
constexpr std::array<double, AcceptanceModel::kGrades> kModelPrior = {0.2, 0.35, 0.5,  0.6,
                                                                      0.7, 0.8,  0.88, 0.95};
constexpr double kModelMean = 0.7;

int capped(int position) { return std::clamp(position, 0, AcceptanceModel::kPositions - 1); }

}  // namespace

AcceptanceModel::AcceptanceModel(Kind kind) : kind_(kind) {}

int AcceptanceModel::match_grade(int match_length) {
  if (match_length <= 4) return std::max(match_length, 0);
  if (match_length <= 8) return 5;
  return match_length <= 16 ? 6 : 7;
}

int AcceptanceModel::confidence_grade(double probability) {
  constexpr std::array<double, kGrades - 1> kEdges = {0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97};
  return static_cast<int>(std::upper_bound(kEdges.begin(), kEdges.end(), probability) -
                          kEdges.begin());
}

void AcceptanceModel::Cell::add(bool was_accepted, double keep) {
  accepted = accepted * keep + (was_accepted ? 1.0 : 0.0);
  judged = judged * keep + 1.0;
}

double AcceptanceModel::prior(int grade) const {
  // Not an array chosen and indexed at once: with -fsanitize=bounds GCC 12 loses the index.
  const auto index = static_cast<std::size_t>(grade);
  return kind_ == Kind::kLookup ? kLookupPrior[index] : kModelPrior[index];
}

void AcceptanceModel::observe(int position, int grade, bool accepted) {
  const auto g = static_cast<std::size_t>(grade);
  const auto p = static_cast<std::size_t>(capped(position));
  cells_[g][p].add(accepted, kKeep);
  grades_[g].add(accepted, kKeep);
  positions_[p].add(accepted, kKeep);
  all_.add(accepted, kKeep);
}

void AcceptanceModel::fade() {
  const auto halve = [](Cell& cell) {
    cell.accepted *= 0.5;
    cell.judged *= 0.5;
  };
  for (auto& row : cells_) std::for_each(row.begin(), row.end(), halve);
  std::for_each(grades_.begin(), grades_.end(), halve);
  std::for_each(positions_.begin(), positions_.end(), halve);
  halve(all_);
}

double AcceptanceModel::rate(int position, int grade) const {
  const Cell& of_grade = grades_[static_cast<std::size_t>(grade)];
  const double parent =
      (of_grade.accepted + kPriorWeight * prior(grade)) / (of_grade.judged + kPriorWeight);
  const Cell& cell =
      cells_[static_cast<std::size_t>(grade)][static_cast<std::size_t>(capped(position))];
  return (cell.accepted + kParentWeight * parent) / (cell.judged + kParentWeight);
}

double AcceptanceModel::rate(int position) const {
  const double mean = kind_ == Kind::kModel ? kModelMean : prior(0);
  const double parent = (all_.accepted + kPriorWeight * mean) / (all_.judged + kPriorWeight);
  const Cell& cell = positions_[static_cast<std::size_t>(capped(position))];
  return (cell.accepted + kParentWeight * parent) / (cell.judged + kParentWeight);
}

}  // namespace specdec
