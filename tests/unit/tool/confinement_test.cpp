// SPDX-License-Identifier: Apache-2.0
// confine(): what a process can still open, in a child, since it cannot be undone.
#include "commands/confinement.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace postern::tool {
namespace confinement_test {

bool kernel_has_landlock() {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

// A folder with two files, and one outside of it.
class Confinement : public testing::Test {
 protected:
  Confinement() {
    std::string name = (std::filesystem::temp_directory_path() / "confinement.XXXXXX").string();
    folder = ::mkdtemp(name.data());
    std::filesystem::create_directory(folder / "inside");
    for (const char* file : {"inside/a", "inside/b", "outside"}) std::ofstream(folder / file) << "text";
  }
  ~Confinement() override { std::filesystem::remove_all(folder); }

  // The errno with which a file opens, or 0.
  [[nodiscard]] int opens(const char* file, int flags) const {
    const int fd = ::open((folder / file).c_str(), flags);
    if (fd < 0) return errno;
    ::close(fd);
    return 0;
  }
  // Runs `check`, which returns whether all is well, in a child.
  template <typename Check>
  static bool in_child(Check check) {
    const pid_t child = ::fork();
    if (child == 0) std::_Exit(check() ? 0 : 1);
    int status = -1;
    return ::waitpid(child, &status, 0) == child && status == 0;
  }

  std::filesystem::path folder;
};

TEST_F(Confinement, OpensOnlyWhatIsNamed) {
  if (!kernel_has_landlock()) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_TRUE(in_child([&] {
    const int before = ::open((folder / "outside").c_str(), O_RDONLY);
    confine({.read = {folder / "inside"}, .write = {folder / "inside/b", folder / "not there"}, .remove = {}});
    char byte = 0;
    return opens("inside/a", O_RDONLY) == 0 && opens("inside/a", O_RDWR) == EACCES && opens("inside/b", O_RDWR) == 0 &&
           opens("outside", O_RDONLY) == EACCES && opens("inside/new", O_RDWR | O_CREAT) == EACCES &&
           ::read(before, &byte, 1) == 1;
  }));
}

TEST_F(Confinement, RemovesFilesOnlyWhereThatIsAllowed) {
  if (!kernel_has_landlock()) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_TRUE(in_child([&] {
    confine({.read = {}, .write = {}, .remove = {folder / "inside"}});
    return ::unlink((folder / "inside/a").c_str()) == 0 && ::unlink((folder / "outside").c_str()) == -1 &&
           errno == EACCES;
  }));
}

TEST_F(Confinement, KeepsNoCapabilityButLockingMemory) {
  EXPECT_TRUE(in_child([] {
    confine({});
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
    return ::syscall(SYS_capget, &header, sets) == 0 && (sets[0].permitted & ~(1U << CAP_IPC_LOCK)) == 0 &&
           sets[1].permitted == 0 && ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  }));
}

}  // namespace confinement_test
}  // namespace postern::tool
