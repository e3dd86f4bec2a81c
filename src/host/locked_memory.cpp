// SPDX-License-Identifier: Apache-2.0
// LockedMemory: locked memory of this process, from /proc/self/limits and /proc/self/status.
#include <postern/locked_memory.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/remedy.hpp"
#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// Returns the word after `label` on the first line that begins with it; empty if there is none. Elsewhere in a line the
// label may be part of a name: of a process in status, of a mapped file in smaps. The kernel escapes line ends in names
// as "\n" or "\012".
std::string_view word_after(std::string_view text, std::string_view label) {
  while (!text.starts_with(label)) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  text.remove_prefix(label.size());
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

Remedies proc_remedy(int result) { return result == -ENOENT ? RemedyCode::mount_proc : sysfs::shortage_remedy(result); }

}  // namespace

Result<LockedMemory> LockedMemory::read(Kernel& kernel) {
  std::string limits;
  std::string status;
  for (auto [path, contents] : {std::pair("/proc/self/limits", &limits), std::pair("/proc/self/status", &status)}) {
    if (const int result = kernel.read_file(path, *contents); result < 0) {
      return call_failure("read", {.result = result, .object = path, .remedy = proc_remedy(result)});
    }
  }
  constexpr unsigned cap_ipc_lock = 14;  // linux/capability.h
  LockedMemory memory;
  memory.limit = number(word_after(limits, "Max locked memory"));  // "unlimited" is not a number
  memory.exempt = (number(word_after(status, "CapEff:"), 16).value_or(0) >> cap_ipc_lock & 1) != 0;
  memory.locked = number(word_after(status, "VmLck:")).value_or(0) * 1024;
  memory.pinned = number(word_after(status, "VmPin:")).value_or(0) * 1024;
  return memory;
}

Remedies LockedMemory::raise_limit(std::uint64_t bytes, LockedMemoryCounter counter) const {
  const std::uint64_t in_use = used(counter);
  const std::uint64_t needed = bytes > ~in_use ? ~std::uint64_t{0} : in_use + bytes;
  return remedy<RemedyCode::raise_locked_memory_limit_to>(std::to_string(needed / 1024 + (needed % 1024 != 0 ? 1 : 0)));
}

Result<std::uint64_t> backing_page_size(Kernel& kernel, const void* address) {
  constexpr const char* path = "/proc/self/smaps";
  std::string text;
  if (const int result = kernel.read_file(path, text); result < 0) {
    return call_failure("read", {.result = result, .object = path, .remedy = proc_remedy(result)});
  }
  // Each mapping is a line "first-end ...", followed by lines "Name: value".
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const auto dash = line.find('-');
    const auto first = number(line.substr(0, std::min(dash, line.size())), 16);
    const auto end =
        dash == std::string_view::npos ? std::nullopt : number(line.substr(dash + 1, line.find(' ') - dash - 1), 16);
    if (first && end && *first <= wanted && wanted < *end) {
      if (const auto kib = number(word_after(rest, "KernelPageSize:"))) return *kib * 1024;
    }
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  return refusal({.result = -EFAULT, .object = path, .reason = fmt::format("there is no memory at {}", address)});
}

}  // namespace postern
