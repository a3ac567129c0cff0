// How likely the tokens of one drafter are to be accepted.
#pragma once

#include <array>
#include <cstdint>

namespace specdec {

// Discounted counts by position in the draft and by grade, a hint that comes with the draft: how
// long a match it rests on, or how sure the draft model was of a token. Cells with few counts lean
// on their grade, and that on its prior.
class AcceptanceModel {
 public:
  static constexpr int kGrades = 8;
  static constexpr int kPositions = 16;  // later ones count as the last

  enum class Kind { kLookup, kModel };
  explicit AcceptanceModel(Kind kind);

  // Grade of a lookup of this match length (0: unknown), or of a draft model's probability.
  [[nodiscard]] static int match_grade(int match_length);
  [[nodiscard]] static int confidence_grade(double probability);

  // The token at `position` (0 = first) was judged, all before it having been right.
  void observe(int position, int grade, bool accepted);
  // Another text begins: what was learnt counts half.
  void fade();

  [[nodiscard]] double rate(int position, int grade) const;
  // Over all grades, for a draft that is not made yet.
  [[nodiscard]] double rate(int position) const;

 private:
  struct Cell {
    double accepted = 0.0;
    double judged = 0.0;
    void add(bool was_accepted, double keep);
  };
  [[nodiscard]] double prior(int grade) const;

  Kind kind_;
  std::array<std::array<Cell, kPositions>, kGrades> cells_{};
  std::array<Cell, kGrades> grades_{};
  std::array<Cell, kPositions> positions_{};
  Cell all_;
};

}  // namespace specdec
