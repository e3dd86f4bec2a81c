// SPDX-License-Identifier: Apache-2.0
// The conditions that backends bring with them. Nothing is decided by the name of one.
#include "host/backend_conditions.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "host/holders.hpp"
#include "text/errors.hpp"
#include "text/remedies.hpp"

namespace postern::tool {
namespace {

std::string user_name(uid_t user) {
  const passwd* entry = ::getpwuid(user);
  return entry != nullptr ? entry->pw_name : std::to_string(user);
}

std::string group_name(gid_t group) {
  const ::group* entry = ::getgrgid(group);
  return entry != nullptr ? entry->gr_name : std::to_string(group);
}

// As ls(1) has it: "crw-rw---- root kvm".
std::string mode_text(const FileStatus& status) {
  std::string text = S_ISCHR(status.mode) ? "c" : "-";
  constexpr std::string_view letters = "rwxrwxrwx";
  for (std::size_t bit = 0; bit < letters.size(); ++bit) {
    text += (status.mode >> (letters.size() - 1 - bit) & 1U) != 0 ? letters[bit] : '-';
  }
  return fmt::format("{} {} {}", text, user_name(status.owner), group_name(status.group));
}

// Whether a call failed that only reads, or lacked a resource: what it was for is unknown then.
bool is_unread(const Error& error) {
  constexpr std::array<std::string_view, 4> reading = {"read", "readlink", "opendir", "stat"};
  return std::find(reading.begin(), reading.end(), error.operation()) != reading.end() || error.code() == EMFILE ||
         error.code() == ENFILE || error.code() == ENOMEM;
}

std::string other_processor(Kernel& kernel) {
  const auto suited = backends_for_processor(kernel).value_or(std::span<const std::string_view>());
  return fmt::format("not for this processor, which has {}",
                     list_of(std::vector<std::string>(suited.begin(), suited.end())));
}

std::string key_of(std::string_view backend) { return fmt::format("backend-{}", backend); }
std::string line_of(std::string_view backend) { return fmt::format("backend {}", backend); }

Condition* find_key(std::vector<Condition>& conditions, std::string_view key) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(), [&](const auto& each) { return each.key == key; });
  return found != conditions.end() ? &*found : nullptr;
}

Condition* find_key(Diagnosis& diagnosis, std::string_view key) {
  Condition* const of_host = find_key(diagnosis.host, key);
  return of_host != nullptr ? of_host : find_key(diagnosis.device, key);
}

Condition judge(Kernel& kernel, const RequirementState& state, bool suits) {
  Condition condition{.key = std::string(state.key),
                      .title = state.title,
                      .verdict = Verdict::met,
                      .detail = state.found.value_or(""),
                      .remedy = {},
                      .is_alternative = true};
  FileStatus status;
  const int result = state.node.empty() ? -ENOENT : kernel.status(state.node, status);
  const bool there = result >= 0;
  if (there) condition.detail = mode_text(status);
  if (state.found) {
    if (!there && !state.node.empty())
      condition.detail = fmt::format("exists; its mode cannot be read ({})", errno_name(-result));
    return condition;
  }
  const Error& error = state.found.error();
  if (!suits) {
    condition.verdict = Verdict::optional;
    condition.detail = other_processor(kernel);
    return condition;
  }
  if (error.kind() == ErrorKind::not_bound) {
    condition.verdict = Verdict::unknown;
    condition.detail = "appears when the device is bound to a VFIO driver";
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.remedy = words_of(error.remedies());
  if (is_unread(error)) {
    condition.verdict = Verdict::unknown;
    condition.detail = "unknown: " + reason_line(error);
  } else if (there && error.code() == EACCES) {
    condition.detail += fmt::format(": {} may not open it", user_name(::geteuid()));
  } else if (there) {
    condition.detail += ": " + reason_line(error);
  } else {
    condition.detail = state.node.empty() || result != -ENOENT ? reason_line(error) : "does not exist";
  }
  return condition;
}

Condition judge_backend(Kernel& kernel, const Examined& examined, Diagnosis& diagnosis) {
  Condition condition{.key = key_of(examined.backend->name),
                      .title = line_of(examined.backend->name),
                      .verdict = Verdict::met,
                      .detail = "can be used",
                      .remedy = {},
                      .is_alternative = true};
  const auto& all = examined.requirements;
  const auto missing = std::find_if(all.begin(), all.end(), [&](const RequirementState& state) {
    // What comes with its driver is no fault of a backend.
    return !state.found && !(examined.suits && state.found.error().kind() == ErrorKind::not_bound);
  });
  if (missing == all.end()) return condition;
  if (!examined.suits) {
    condition.verdict = Verdict::optional;
    condition.detail = other_processor(kernel);
    return condition;
  }
  const Error& error = missing->found.error();
  condition.verdict = is_unread(error) ? Verdict::unknown : Verdict::not_met;
  condition.detail = error.kind() == ErrorKind::interrupts_not_isolated
                         ? "refuses devices whose interrupts are not isolated"
                         : reason_line(error);
  // A remedy that stands above is not said again.
  const Condition* const above = find_key(diagnosis, missing->key);
  if (above == nullptr || above->remedy.empty()) condition.remedy = words_of(error.remedies());
  return condition;
}

void forgive_what_is_not_needed(std::span<const Examined> examined, Diagnosis& diagnosis) {
  std::string works;
  for (const Examined& each : examined) {
    const Condition* const backend = find_key(diagnosis, key_of(each.backend->name));
    const bool open =
        backend->verdict == Verdict::met &&
        std::none_of(each.requirements.begin(), each.requirements.end(), [&](const auto& state) {
          const Condition* const condition = find_key(diagnosis, state.key);
          return condition != nullptr && condition->is_alternative && condition->verdict == Verdict::not_met;
        });
    if (open) works += fmt::format("{}{}", works.empty() ? "" : ", ", each.backend->name);
  }
  if (works.empty()) return;
  for (auto* part : {&diagnosis.host, &diagnosis.device}) {
    for (Condition& condition : *part) {
      if (!condition.is_alternative || condition.verdict != Verdict::not_met) continue;
      condition.verdict = Verdict::optional;
      condition.detail += fmt::format("; not needed: {} will do", works);
    }
  }
}

}  // namespace

std::vector<Examined> examine_backends(Kernel& kernel, const HostDevice* device) {
  const auto suited = backends_for_processor(kernel);
  std::vector<Examined> examined;
  for (const Backend* backend : backends()) {
    // Each may suit if the processor is unknown.
    const bool suits = !suited || std::find(suited->begin(), suited->end(), backend->name) != suited->end();
    examined.push_back({backend, suits, backend->requirements(kernel, device)});
  }
  std::stable_partition(examined.begin(), examined.end(), [](const Examined& each) { return each.suits; });
  return examined;
}

void add_requirements(Kernel& kernel, std::span<const Examined> examined, bool of_device,
                      std::vector<Condition>& conditions) {
  for (const Examined& each : examined) {
    for (const RequirementState& state : each.requirements) {
      // The interface itself is what the line of its backend is about.
      if (state.is_of_device != of_device || state.key == "interface") continue;
      if (find_key(conditions, state.key) == nullptr) conditions.push_back(judge(kernel, state, each.suits));
    }
  }
}

void add_backends(Kernel& kernel, std::span<const Examined> examined, std::vector<Condition>& place,
                  Diagnosis& diagnosis) {
  for (const Examined& each : examined) place.push_back(judge_backend(kernel, each, diagnosis));
  if (std::none_of(examined.begin(), examined.end(), [](const Examined& each) { return each.suits; })) {
    for (const std::string_view name : backends_for_processor(kernel).value_or(std::span<const std::string_view>())) {
      place.push_back(
          {.key = key_of(name),
           .title = line_of(name),
           .verdict = Verdict::not_met,
           .detail = "this host needs it, and this build of postern leaves it out",
           .remedy =
               "build postern with every backend: \"cmake --preset default && cmake --build --preset default\" makes "
               "build/bin/postern"});
    }
  }
  forgive_what_is_not_needed(examined, diagnosis);
}

}  // namespace postern::tool
