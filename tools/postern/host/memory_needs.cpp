// SPDX-License-Identifier: Apache-2.0
// MemoryNeeds: judges the limit of locked memory by what the backends say that they count.
#include "host/memory_needs.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "host/backend_conditions.hpp"
#include "host/conditions.hpp"
#include "text/errors.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

// What comes with its driver is no fault of a backend.
bool can_be_used(const Examined& examined) {
  return std::all_of(examined.requirements.begin(), examined.requirements.end(), [](const RequirementState& state) {
    return state.found || state.found.error().kind() == ErrorKind::not_bound;
  });
}

std::string containers_text(const LockedMemoryNeed& need) {
  if (need.containers_at_most == 1) return "";
  if (need.containers_at_least == need.containers_at_most)
    return fmt::format(", in {} containers", need.containers_at_most);
  return fmt::format(", in {} to {} containers", need.containers_at_least, need.containers_at_most);
}

std::string verdict_text(const LockedMemoryNeed& need, const LockedMemory& memory) {
  if (memory.exempt || !memory.limit) return "no limit";
  if (need.judge(memory) == LockedMemoryVerdict::refused) return "too much";
  if (!memory.allows(need.at_most(), need.counter)) return "too much if they cannot share containers";
  if (need.counter == LockedMemoryCounter::process) return "allowed";
  const std::uint64_t left = *memory.limit - memory.used(need.counter) - need.at_most();
  return fmt::format("allowed unless other processes of this user have pinned more than {}", size_text(left));
}

// "iommufd counts 16 MiB to be mapped, by user: too much".
std::string need_text(const LockedMemoryNeed& need, const LockedMemory& memory) {
  const std::uint64_t used = memory.used(need.counter);
  return fmt::format("{}{} counts {}{}{}{}: {}", need.version == 0 ? "" : fmt::format("version {} of ", need.version),
                     need.backend, need.what, containers_text(need),
                     need.counter == LockedMemoryCounter::user ? ", by user" : "",
                     used > 0 ? fmt::format(", beside {} in use", size_text(used)) : "", verdict_text(need, memory));
}

}  // namespace

MemoryNeeds find_memory_needs(Kernel& kernel, std::span<const Examined> examined, std::span<const HostDevice> devices,
                              std::optional<std::uint64_t> asked) {
  MemoryNeeds found{.asked = asked, .memory = LockedMemory::read(kernel)};
  for (const bool usable : {true, false}) {
    for (const Examined& each : examined) {
      if (!each.suits || can_be_used(each) != usable) continue;
      auto needs = locked_memory_needed(kernel, *each.backend, asked.value_or(0), devices);
      if (needs) {
        found.needs.insert(found.needs.end(), needs->begin(), needs->end());
      } else {
        found.unknown.push_back(std::move(needs).error());
      }
    }
    if (usable) found.usable = found.needs.size();
  }
  return found;
}

Condition judge_memory(const MemoryNeeds& found) {
  if (!found.memory) return unread("locked-memory", "locked memory", found.memory.error());
  const LockedMemory& memory = *found.memory;
  Condition condition{
      .key = "locked-memory", .title = "locked memory", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  const bool is_limited = !memory.exempt && memory.limit;
  condition.detail = memory.exempt   ? "no limit for this process (CAP_IPC_LOCK)"
                     : !memory.limit ? "no limit"
                                     : "limited to " + size_text(*memory.limit);
  if (!is_limited && !found.asked) return condition;
  for (const LockedMemoryNeed& need : found.needs) condition.detail += "; " + need_text(need, memory);
  for (const Error& error : found.unknown) condition.detail += "; unknown: " + error_line(error);
  if (!is_limited) {
    if (!found.unknown.empty()) condition.verdict = Verdict::unknown;
    return condition;
  }
  const auto end =
      found.needs.begin() + static_cast<std::ptrdiff_t>(found.usable > 0 ? found.usable : found.needs.size());
  const auto best = std::min_element(found.needs.begin(), end,
                                     [&](const auto& a, const auto& b) { return a.judge(memory) < b.judge(memory); });
  if (best == end || (!found.asked && best->judge(memory) != LockedMemoryVerdict::refused)) {
    condition.verdict = Verdict::unknown;
    if (!found.asked) condition.detail += "; --memory SIZE checks it for that size";
    return condition;
  }
  const LockedMemoryVerdict verdict = best->judge(memory);
  condition.verdict = verdict == LockedMemoryVerdict::allowed     ? Verdict::met
                      : verdict == LockedMemoryVerdict::uncertain ? Verdict::unknown
                                                                  : Verdict::not_met;
  condition.remedy = remedy_of(*best, memory);
  return condition;
}

std::string remedy_of(const LockedMemoryNeed& need, const LockedMemory& memory) {
  if (memory.exempt || memory.allows(need.at_most(), need.counter)) return "";
  return words_of(memory.raise_limit(need.at_most(), need.counter));
}

std::string_view to_string(LockedMemoryVerdict verdict) {
  switch (verdict) {
    case LockedMemoryVerdict::allowed:
      return "allowed";
    case LockedMemoryVerdict::uncertain:
      return "uncertain";
    case LockedMemoryVerdict::refused:
      return "refused";
  }
  return "uncertain";
}

std::string_view to_string(LockedMemoryCounter counter) {
  return counter == LockedMemoryCounter::process ? "process" : "user";
}

}  // namespace postern::tool
