// SPDX-License-Identifier: Apache-2.0
// What a process holds of the kernel.
#include "host/leftovers.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <postern/locked_memory.hpp>
#include <vector>

#include "text/errors.hpp"
#include "text/sizes.hpp"

namespace postern::tool {

Result<Leftovers> Leftovers::now(Kernel& kernel) {
  std::vector<std::string> fds;
  if (const int result = kernel.list_directory("/proc/self/fd", fds); result < 0) {
    return failure({.code = -result,
                    .operation = "opendir",
                    .object = "/proc/self/fd",
                    .reason = {},
                    .remedy = "mount /proc",
                    .causes = {}});
  }
  auto memory = LockedMemory::read(kernel);
  if (!memory) return failure_of(memory);
  return Leftovers{.open_fds = fds.size(),
                   .locked = memory->locked,
                   .pinned = memory->pinned,
                   .logged_errors = tool::logged_errors()};
}

Result<std::string> compare(const Leftovers& before, const Leftovers& after, bool failed) {
  std::string left;
  const auto look = [&](const char* what, const std::string& was, const std::string& is) {
    if (was != is) left += fmt::format("{}{} before {}, after {}", left.empty() ? "" : "; ", what, was, is);
  };
  look("open files:", std::to_string(before.open_fds), std::to_string(after.open_fds));
  look("locked memory:", size_text(before.locked), size_text(after.locked));
  look("pinned memory:", size_text(before.pinned), size_text(after.pinned));
  look("errors while cleaning up:", std::to_string(before.logged_errors), std::to_string(after.logged_errors));
  if (left.empty()) {
    return fmt::format("open files {0} -> {0}, locked {1} -> {1}, pinned {2} -> {2}", after.open_fds,
                       size_text(after.locked), size_text(after.pinned));
  }
  std::string remedy = "this is a fault of postern: please report it, with all of this output";
  // The table of a DMA window that cannot be made stays counted (tce_iommu_create_table, Linux 6.12).
  if (failed && after.locked > before.locked) {
    remedy = "see to the failure above first: Linux goes on counting a DMA window that it could not make; otherwise " +
             remedy;
  }
  return failure({.code = EBUSY,
                  .operation = "compare",
                  .object = "what this process holds",
                  .reason = left,
                  .remedy = std::move(remedy),
                  .causes = {}});
}

}  // namespace postern::tool
