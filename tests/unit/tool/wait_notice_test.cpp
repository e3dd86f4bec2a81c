// SPDX-License-Identifier: Apache-2.0
// WaitNotice: its messages, and that the change continues if printing fails.
#include "commands/wait_notice.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace wait_notice_test {

// Waits while a process of this name is visible, with this file as standard error.
void wait_with(const std::string& process, const char* error_file, const std::string& pid_namespace = "") {
  const int fd = ::open(error_file, O_WRONLY | O_CLOEXEC);
  if (fd >= 0) ::dup2(fd, STDERR_FILENO);
  test::TreeKernel kernel;
  kernel.directory("/proc/900/fd");
  if (!process.empty()) kernel.link("/proc/900/fd/3", "/dev/vfio/2");
  kernel.file("/proc/900/comm", process);
  if (!pid_namespace.empty()) kernel.link("/proc/self/ns/pid", pid_namespace);
  const Session session{.kernel = kernel, .bindings_folder = "", .format = Format::text, .out = {}, .err = {}};
  {
    const WaitNotice notice(session, {.name = "0000:00:01.0", .bus = "pci", .iommu_group = GroupId{2}});
    std::this_thread::sleep_for(std::chrono::milliseconds(1300));
  }
  std::exit(0);
}

TEST(WaitNotice, DoesNotEndTheToolIfItCannotBeWritten) {
  GTEST_FLAG_SET(death_test_style, "fast");
  if (::access("/dev/full", W_OK) < 0) GTEST_SKIP() << "there is no /dev/full";
  EXPECT_EXIT(wait_with("qemu\n", "/dev/full"), testing::ExitedWithCode(0), "");
}

TEST(WaitNotice, NamesAProcessWithoutItsControlCharacters) {
  EXPECT_EXIT(wait_with("\033[2Jqemu\n", "/dev/stderr"), testing::ExitedWithCode(0),
              "waiting for .x1b.2Jqemu .pid 900. to release 0000:00:01.0");
}

TEST(WaitNotice, NamesTheDriverIfAllProcessesAreVisible) {
  EXPECT_EXIT(wait_with("", "/dev/stderr"), testing::ExitedWithCode(0), "waiting for the driver to release");
  EXPECT_EXIT(wait_with("", "/dev/stderr", "pid:[4026532441]"), testing::ExitedWithCode(0),
              "waiting for a process that is not visible .this is a PID namespace");
}

}  // namespace wait_notice_test
}  // namespace postern::tool
