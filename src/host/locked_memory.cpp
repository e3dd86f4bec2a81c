// SPDX-License-Identifier: Apache-2.0
// Locked memory of this process, from /proc/self/limits and /proc/self/status.
#include <postern/locked_memory.hpp>

#include <charconv>
#include <string_view>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// The word behind `label` and white space, wherever that line is; empty where there is none.
std::string_view word_after(std::string_view text, std::string_view label) {
  const auto line = text.find(label);
  if (line == std::string_view::npos) return {};
  text.remove_prefix(line + label.size());
  const auto start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return {};
  text.remove_prefix(start);
  return text.substr(0, text.find_first_of(" \t\n"));
}

std::optional<std::uint64_t> number(std::string_view word, int base = 10) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

}  // namespace

Result<LockedMemory> LockedMemory::read(Kernel& kernel) {
  std::string limits;
  std::string status;
  for (auto [path, contents] : {std::pair("/proc/self/limits", &limits), std::pair("/proc/self/status", &status)}) {
    if (const int result = kernel.read_file(path, *contents); result < 0) {
      return call_failure("read", {.result = result, .object = path, .remedy = "mount /proc"});
    }
  }
  constexpr unsigned cap_ipc_lock = 14;  // linux/capability.h
  LockedMemory memory;
  memory.limit = number(word_after(limits, "Max locked memory"));  // "unlimited" is no number
  memory.exempt = (number(word_after(status, "CapEff:"), 16).value_or(0) >> cap_ipc_lock & 1) != 0;
  memory.locked = number(word_after(status, "VmLck:")).value_or(0) * 1024;
  memory.pinned = number(word_after(status, "VmPin:")).value_or(0) * 1024;
  return memory;
}

}  // namespace postern
