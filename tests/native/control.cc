// The controller alone, so that tests can simulate machines and drafters.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "decode/control/controller.h"

namespace py = pybind11;
using namespace specdec;

namespace {

using Passes = std::vector<std::pair<int, double>>;

py::dict to_dict(const Choice& choice) {
  py::dict d;
  d["drafter"] = choice.drafter;
  d["length"] = choice.length;
  d["speedup"] = choice.speedup;
  d["reason"] = std::string(choice.reason);
  return d;
}

// Keeps the choice between choose() and observe().
class Control {
 public:
  explicit Control(const std::vector<std::pair<std::string, bool>>& drafters)
      : controller_([&] {
          std::vector<DrafterTraits> traits;
          for (const auto& [name, lookup] : drafters) traits.push_back({name, lookup});
          return Controller(traits);
        }()) {}

  void calibrate(const Passes& passes) { controller_.target_cost().calibrate(passes); }
  void calibrate_drafter(int drafter, const Passes& passes) {
    controller_.drafter_cost(drafter).calibrate(passes);
  }
  // offers: (drafter, n_tokens, match_length, n_behind)
  py::dict choose(const std::vector<std::tuple<int, int, int, int>>& offers, int budget) {
    std::vector<Offer> list;
    for (const auto& [drafter, n_tokens, match_length, n_behind] : offers)
      list.push_back({.drafter = drafter,
                      .n_tokens = n_tokens,
                      .match_length = match_length,
                      .n_behind = n_behind});
    choice_ = controller_.choose(list, budget);
    return to_dict(choice_);
  }
  bool wants_lookups() { return controller_.wants_lookups(); }
  bool keep_going(int n, double probability) { return controller_.keep_going(n, probability); }
  bool wants_sibling(int n, int rank, double probability, double conditional) {
    return controller_.wants_sibling(n, rank, probability, conditional);
  }
  void judge_sibling(int drafter, int rank, int grade, bool accepted) {
    controller_.siblings(drafter).observe(rank - 1, grade, accepted);
  }
  void judge(int drafter, int position, int grade, bool accepted) {
    controller_.acceptance(drafter).observe(position, grade, accepted);
  }
  double rate(int drafter, int position, int grade) {
    return controller_.acceptance(drafter).rate(position, grade);
  }
  int planned_siblings(int n_chain) { return controller_.planned_siblings(n_chain); }
  void observe(int n_drafted, int n_emitted, double draft_ms, double verify_ms, int n_siblings,
               int n_unused, double weights, int n_made, double looking_ms, bool forced) {
    const int n_rows = 1 + n_drafted + n_siblings + n_unused;
    controller_.observe({.choice = choice_,
                         .n_made = n_made,
                         .n_drafted = n_drafted,
                         .n_siblings = n_siblings,
                         .n_unused = n_unused,
                         .n_emitted = n_emitted,
                         .forced = forced,
                         .draft_ms = draft_ms,
                         .looking_ms = looking_ms,
                         .verify_ms = verify_ms,
                         .reading = {.n_rows = n_rows, .weights = weights}});
  }
  void set_mixture(const Mixture& mixture) { controller_.target_cost().set_mixture(mixture); }
  void begin() { controller_.begin_request(); }
  void debit_beginning(double ms) { controller_.debit_beginning(ms); }
  void set_reread(int n) { controller_.set_reread(n); }
  void set_company(int n_others, int n_rows, double n_tokens, int n_reading) {
    controller_.set_company(
        {.n_others = n_others, .n_rows = n_rows, .n_tokens = n_tokens, .n_reading = n_reading});
  }
  void end() { controller_.end_request(); }
  void end_beside(const Control& others) { controller_.end_beside(others.controller_.state()); }
  [[nodiscard]] double credit() const { return controller_.state().credit_ms; }
  [[nodiscard]] double drafter_ms(int drafter, int rows) {
    return controller_.drafter_cost(drafter).ms(rows);
  }
  [[nodiscard]] double target_ms(int rows) { return controller_.target_cost().ms(rows); }
  [[nodiscard]] std::string speculation() const { return controller_.speculation(); }

 private:
  Controller controller_;
  Choice choice_;
};

}  // namespace

PYBIND11_MODULE(_testing_control, m) {
  m.def("match_grade", &AcceptanceModel::match_grade);
  m.def("confidence_grade", &AcceptanceModel::confidence_grade);
  py::class_<Control>(m, "Control", py::module_local())
      .def(py::init<const std::vector<std::pair<std::string, bool>>&>())
      .def("calibrate", &Control::calibrate)
      .def("calibrate_drafter", &Control::calibrate_drafter)
      .def("choose", &Control::choose)
      .def("wants_lookups", &Control::wants_lookups)
      .def("keep_going", &Control::keep_going)
      .def("judge", &Control::judge)
      .def("rate", &Control::rate)
      .def("wants_sibling", &Control::wants_sibling)
      .def("judge_sibling", &Control::judge_sibling)
      .def("observe", &Control::observe, py::arg("n_drafted"), py::arg("n_emitted"),
           py::arg("draft_ms"), py::arg("verify_ms"), py::arg("n_siblings") = 0,
           py::arg("n_unused") = 0, py::arg("weights") = 1.0, py::arg("n_made") = 0,
           py::arg("looking_ms") = 0.0, py::arg("forced") = false)
      .def("set_mixture",
           [](Control& c, double share, int n_experts, int n_used) {
             c.set_mixture({.share = share, .n_experts = n_experts, .n_used = n_used});
           })
      .def("planned_siblings", &Control::planned_siblings)
      .def("begin", &Control::begin)
      .def("debit_beginning", &Control::debit_beginning)
      .def("set_reread", &Control::set_reread)
      .def("set_company", &Control::set_company, py::arg("n_others"), py::arg("n_rows"),
           py::arg("n_tokens"), py::arg("n_reading") = 0)
      .def("end", &Control::end)
      .def("end_beside", &Control::end_beside)
      .def("copy", [](const Control& c) { return c; })
      .def("drafter_ms", &Control::drafter_ms)
      .def("target_ms", &Control::target_ms)
      .def_property_readonly("credit", &Control::credit)
      .def_property_readonly("speculation", &Control::speculation);
}
