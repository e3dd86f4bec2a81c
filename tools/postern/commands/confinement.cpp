// SPDX-License-Identifier: Apache-2.0
// confine(): Landlock and capset(2).
#include "commands/confinement.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <postern/fd.hpp>

namespace postern::tool {
namespace {

// Rights of the first version of Landlock.
constexpr std::uint64_t may_read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t may_write = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
constexpr std::uint64_t may_remove = LANDLOCK_ACCESS_FS_REMOVE_FILE;
constexpr std::uint64_t all = may_read | may_write | may_remove | LANDLOCK_ACCESS_FS_EXECUTE |
                              LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                              LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                              LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                              LANDLOCK_ACCESS_FS_MAKE_SYM;

// What is not there needs no right.
void allow(const Fd& rules, const std::vector<std::string>& paths, std::uint64_t access) {
  for (const std::string& path : paths) {
    const Fd file(system_kernel(), ::open(path.c_str(), O_PATH | O_CLOEXEC));
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) continue;
    landlock_path_beneath_attr rule{};
    rule.parent_fd = file.get();
    rule.allowed_access = S_ISDIR(status.st_mode) ? access : access & may_write;  // the others are rights on folders
    (void)::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  }
}

void restrict_files(const Rights& rights) {
  landlock_ruleset_attr handled{};
  handled.handled_access_fs = all;
  const Fd rules(system_kernel(),
                 static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0)));
  if (!rules) return;
  allow(rules, rights.read, may_read);
  allow(rules, rights.write, may_write | LANDLOCK_ACCESS_FS_READ_DIR);
  allow(rules, rights.remove, may_remove);
  (void)::syscall(SYS_landlock_restrict_self, rules.get(), 0);
}

void drop_capabilities() {
  __user_cap_header_struct header{};
  header.version = _LINUX_CAPABILITY_VERSION_3;
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return;
  constexpr std::uint32_t kept = 1U << CAP_IPC_LOCK;
  sets[0] = {.effective = sets[0].effective & kept, .permitted = sets[0].permitted & kept, .inheritable = 0};
  sets[1] = {};
  (void)::syscall(SYS_capset, &header, sets.data());
}

}  // namespace

void confine(const Rights& rights) {
  (void)::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  restrict_files(rights);
  drop_capabilities();
}

}  // namespace postern::tool
