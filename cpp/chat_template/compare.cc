#include "chat_template/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "chat_template/callable.h"

namespace specdec::chat {
namespace {

// Exact for every std::int64_t and double.
int compare_numbers(const Value& a, const Value& b, bool& ordered) {
  ordered = true;
  if (a.is_whole() && b.is_whole()) {
    return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int() ? 1 : 0;
  }
  if (a.is(Kind::kFloat) && b.is(Kind::kFloat)) {
    ordered = !std::isnan(a.as_double()) && !std::isnan(b.as_double());
    return a.as_double() < b.as_double() ? -1 : a.as_double() > b.as_double() ? 1 : 0;
  }
  if (b.is_whole()) return -compare_numbers(b, a, ordered);
  const double real = b.as_double();
  if (std::isnan(real)) {
    ordered = false;
    return 0;
  }
  constexpr double kTwo63 = 9223372036854775808.0;
  if (real >= kTwo63) return -1;
  if (real < -kTwo63) return 1;
  const double whole = std::floor(real);
  const auto rounded = static_cast<std::int64_t>(whole);
  if (a.as_int() != rounded) return a.as_int() < rounded ? -1 : 1;
  return real > whole ? -1 : 0;
}

bool same_order(const Value& a, const Value& b) {
  return (a.is(Kind::kText) && b.is(Kind::kText)) || (a.is(Kind::kList) && b.is(Kind::kList)) ||
         (a.is(Kind::kTuple) && b.is(Kind::kTuple));
}

// -1, 0, 1; `ordered` becomes false where NaN makes every comparison false.
int order(Budget& budget, const Value& a, const Value& b, const char* op, bool& ordered) {
  budget.work(4);
  ordered = true;
  if (a.is_number() && b.is_number()) return compare_numbers(a, b, ordered);
  require_defined(a);
  require_defined(b);
  if (!same_order(a, b)) {
    fail(std::string("'") + op + "' not supported between instances of '" + type_name(a) +
         "' and '" + type_name(b) + "'");
  }
  if (a.is(Kind::kText)) {
    budget.work(std::min(a.as_text().size(), b.as_text().size()));
    const int result = a.as_text().compare(b.as_text());
    return result < 0 ? -1 : result > 0 ? 1 : 0;
  }
  const Values& left = a.as_list().items;
  const Values& right = b.as_list().items;
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (!equal(budget, left[i], right[i])) return order(budget, left[i], right[i], op, ordered);
  }
  return left.size() < right.size() ? -1 : left.size() > right.size() ? 1 : 0;
}

bool equal_dicts(Budget& budget, const DictData& a, const DictData& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const DictData::Entry& entry : a.entries) {
    const Value* other = b.find(entry.key);
    if (other == nullptr || !equal(budget, entry.value, *other)) return false;
  }
  return true;
}

bool equal_items(Budget& budget, const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!equal(budget, a[i], b[i])) return false;
  }
  return true;
}

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  return hash ^ hash >> 29;
}

}  // namespace

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.work(4);
  if (a.is_number() && b.is_number()) {
    bool ordered = true;
    return compare_numbers(a, b, ordered) == 0 && ordered;
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kText:
      if (a.as_text().size() != b.as_text().size()) return false;
      budget.work(a.as_text().size());
      return a.as_text() == b.as_text();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(budget, a.as_list().items, b.as_list().items);
    case Kind::kDict:
      return equal_dicts(budget, a.as_dict(), b.as_dict());
    case Kind::kRange:
      return equal_items(budget, iterate(budget, a), iterate(budget, b));
    case Kind::kView:
      if (a.heap().get() == b.heap().get()) return true;
      fail("views of dicts cannot be compared here: make lists of them first");
    default:
      return a.heap().get() == b.heap().get();
  }
}

bool less(Budget& budget, const Value& a, const Value& b, const char* op) {
  bool ordered = true;
  return order(budget, a, b, op, ordered) < 0 && ordered;
}

bool less_equal(Budget& budget, const Value& a, const Value& b, const char* op) {
  bool ordered = true;
  return order(budget, a, b, op, ordered) <= 0 && ordered;
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kText:
      if (!item.is(Kind::kText)) {
        require_defined(item);
        fail("'in <string>' requires string as left operand, not " + type_name(item));
      }
      return find_text(budget, container.as_text(), item.as_text()) != TextView::npos;
    case Kind::kDict:
      return container.as_dict().find(item) != nullptr;
    case Kind::kGenerator: {  // is read up to the item
      ListData& data = container.list_data();
      while (data.n_read < data.items.size()) {
        if (equal(budget, data.items[data.n_read++], item)) return true;
      }
      return false;
    }
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      for (const Value& candidate : container.as_list().items) {
        if (equal(budget, candidate, item)) return true;
      }
      return false;
    case Kind::kUndefined:
      return false;
    case Kind::kRange:
      for (const Value& candidate : iterate(budget, container)) {
        if (equal(budget, candidate, item)) return true;
      }
      return false;
    default:
      fail("argument of type '" + type_name(container) + "' is not iterable");
  }
}

bool is_hashable(Budget& budget, const Value& value) {
  budget.work(8);  // of each item: tuples may share parts, and so hold more than memory does
  if (value.is(Kind::kList) || value.is(Kind::kDict)) return false;
  if (!value.is(Kind::kTuple)) return true;
  const Values& items = value.as_list().items;
  return std::all_of(items.begin(), items.end(),
                     [&](const Value& item) { return is_hashable(budget, item); });
}

std::uint64_t hash_of(Budget& budget, const Value& value) {
  budget.work(8);
  switch (value.kind()) {
    case Kind::kUndefined:
      return 1;
    case Kind::kNone:
      return 2;
    case Kind::kBool:
    case Kind::kInt:
      return mix(3, static_cast<std::uint64_t>(value.as_int()));
    case Kind::kFloat: {
      const double real = value.as_double();
      if (std::abs(real) < 9.2e18 && real == std::floor(real)) {
        return mix(3, static_cast<std::uint64_t>(static_cast<std::int64_t>(real)));
      }
      std::uint64_t bits = 0;
      std::memcpy(&bits, &real, sizeof bits);
      return mix(4, bits);
    }
    case Kind::kText: {
      budget.work(2 * value.as_text().size());
      std::uint64_t hash = 5;
      for (const Unit unit : value.as_text()) hash = mix(hash, code_of(unit));
      return hash;
    }
    case Kind::kTuple: {
      std::uint64_t hash = 6;
      for (const Value& item : value.as_list().items) hash = mix(hash, hash_of(budget, item));
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
      fail("unhashable type: '" + type_name(value) + "'");
    default:
      return reinterpret_cast<std::uintptr_t>(value.heap().get()) >> 4;
  }
}

std::size_t find_text(Budget& budget, TextView text, TextView wanted, std::size_t from) {
  if (wanted.size() > text.size() || from > text.size() - wanted.size()) return TextView::npos;
  if (wanted.empty()) return from;
  const std::size_t last = text.size() - wanted.size();
  std::size_t n_compared = 0;
  for (std::size_t i = from; i <= last; ++i) {
    std::size_t n = 0;
    while (n < wanted.size() && UnitTraits::eq(text[i + n], wanted[n])) ++n;
    n_compared += n + 1;
    if (n == wanted.size()) {
      budget.work(n_compared);
      return i;
    }
    if (n_compared > 4096) {
      budget.work(n_compared);
      n_compared = 0;
    }
  }
  budget.work(n_compared);
  return TextView::npos;
}

std::size_t find_last_text(Budget& budget, TextView text, TextView wanted) {
  if (wanted.size() > text.size()) return TextView::npos;
  if (wanted.empty()) return text.size();
  std::size_t n_compared = 0;
  for (std::size_t i = text.size() - wanted.size() + 1; i-- > 0;) {
    std::size_t n = 0;
    while (n < wanted.size() && UnitTraits::eq(text[i + n], wanted[n])) ++n;
    n_compared += n + 1;
    if (n == wanted.size()) {
      budget.work(n_compared);
      return i;
    }
    if (n_compared > 4096) {
      budget.work(n_compared);
      n_compared = 0;
    }
  }
  budget.work(n_compared);
  return TextView::npos;
}

}  // namespace specdec::chat
