// SPDX-License-Identifier: Apache-2.0
// ResourceUse: open files, locked memory and logged errors of this process.
#include "host/resource_use.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <postern/locked_memory.hpp>
#include <vector>

#include "text/errors.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr const char* own_fds = "/proc/self/fd";

int read_open_fds(Kernel& kernel, std::map<std::string, std::string>& open) {
  std::vector<std::string> fds;
  if (const int result = kernel.list_directory(own_fds, fds); result < 0) return result;
  for (const std::string& fd : fds) {
    std::string target;
    const int result = kernel.read_link(fmt::format("{}/{}", own_fds, fd), target);
    if (result == -ENOENT) continue;  // the fd that listed the folder
    open.emplace(fd, result < 0 ? "?" : target);
  }
  return 0;
}

// Returns the fds of `these` that `others` does not have, or that have another target there: "7 (/dev/vfio/2)".
std::string fds_missing_in(const std::map<std::string, std::string>& others,
                           const std::map<std::string, std::string>& these) {
  std::string text;
  for (const auto& [fd, target] : these) {
    const auto other = others.find(fd);
    if (other != others.end() && other->second == target) continue;
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", fd, target);
  }
  return text;
}

}  // namespace

Result<ResourceUse> ResourceUse::now(Kernel& kernel) {
  ResourceUse now;
  if (const int result = read_open_fds(kernel, now.open_fds); result < 0) {
    return failure({.code = -result,
                    .operation = "opendir",
                    .object = own_fds,
                    .remedy = result == -EMFILE   ? Remedies(RemedyCode::raise_open_files_limit)
                              : result == -ENOENT ? Remedies(RemedyCode::mount_proc)
                                                  : Remedies()});
  }
  auto memory = POSTERN_TRY(LockedMemory::read(kernel));
  now.locked = memory.locked;
  now.pinned = memory.pinned;
  now.logged_errors = tool::logged_errors();
  return now;
}

Result<std::string> compare(const ResourceUse& before, const ResourceUse& after, bool failed) {
  std::string left;
  const auto add = [&](const std::string& what) { left += (left.empty() ? "" : "; ") + what; };
  const auto look = [&](const char* what, const std::string& was, const std::string& is) {
    if (was != is) add(fmt::format("{} before {}, after {}", what, was, is));
  };
  if (const std::string opened = fds_missing_in(before.open_fds, after.open_fds); !opened.empty())
    add("still open: " + opened);
  if (const std::string closed = fds_missing_in(after.open_fds, before.open_fds); !closed.empty())
    add("no longer open: " + closed);
  look("locked memory:", size_text(before.locked), size_text(after.locked));
  look("pinned memory:", size_text(before.pinned), size_text(after.pinned));
  look("errors while cleaning up:", std::to_string(before.logged_errors), std::to_string(after.logged_errors));
  if (left.empty()) {
    return fmt::format("open files {0} -> {0}, locked {1} -> {1}, pinned {2} -> {2}", after.open_fds.size(),
                       size_text(after.locked), size_text(after.pinned));
  }
  std::string remedy = "this is a bug in postern: please report it, with all of this output";
  // The table of a DMA window that could not be created stays counted (tce_iommu_create_table, Linux 6.12).
  if (failed && after.locked > before.locked) {
    remedy = "resolve the failure above first: Linux keeps counting a DMA window that it could not create; otherwise " +
             remedy;
  }
  return failure({.code = EBUSY,
                  .operation = "compare",
                  .object = "resources of this process",
                  .reason = left,
                  .remedy = std::move(remedy),
                  .causes = {}});
}

}  // namespace postern::tool
