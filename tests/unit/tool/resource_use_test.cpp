// SPDX-License-Identifier: Apache-2.0
// The resources of a process before and after.
#include "host/resource_use.hpp"

#include <gtest/gtest.h>

#include <cerrno>

#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace resource_use_test {

ResourceUse held(test::TreeKernel& kernel) { return ResourceUse::now(kernel).value(); }

class ResourceUseTest : public testing::Test {
 protected:
  ResourceUseTest() {
    kernel_.file("/proc/self/limits", "Max locked memory         8388608              8388608              bytes\n");
    memory("0", "0");
    for (const char* fd : {"0", "1", "2"}) kernel_.link(std::string("/proc/self/fd/") + fd, "/dev/null");
  }
  void memory(const std::string& locked, const std::string& pinned) {
    kernel_.file("/proc/self/status", "VmLck:\t" + locked + " kB\nVmPin:\t" + pinned + " kB\nCapEff:\t0\n");
  }
  test::TreeKernel kernel_;
};

TEST_F(ResourceUseTest, IsTheSameWhereNothingWasLeft) {
  const auto compared = compare(held(kernel_), held(kernel_));
  ASSERT_TRUE(compared.has_value());
  EXPECT_EQ(*compared, "open files 3 -> 3, locked 0 bytes -> 0 bytes, pinned 0 bytes -> 0 bytes");
}

TEST_F(ResourceUseTest, NamesAnFdThatIsStillOpen) {
  const ResourceUse before = held(kernel_);
  kernel_.link("/proc/self/fd/3", "/dev/vfio/2");
  const auto compared = compare(before, held(kernel_));
  ASSERT_FALSE(compared.has_value());
  EXPECT_EQ(compared.error().code(), EBUSY);
  EXPECT_EQ(compared.error().reason(), "still open: 3 (/dev/vfio/2)");
}

TEST_F(ResourceUseTest, NamesAnFdThatWasReplaced) {
  const ResourceUse before = held(kernel_);
  kernel_.link("/proc/self/fd/2", "/dev/vfio/2");
  const auto compared = compare(before, held(kernel_));
  ASSERT_FALSE(compared.has_value());
  EXPECT_EQ(compared.error().reason(), "still open: 2 (/dev/vfio/2); no longer open: 2 (/dev/null)");
}

TEST_F(ResourceUseTest, NamesMemoryThatIsStillLockedOrPinned) {
  const ResourceUse before = held(kernel_);
  memory("64", "0");
  EXPECT_EQ(compare(before, held(kernel_)).error().reason(), "locked memory: before 0 bytes, after 64 KiB");
  memory("0", "4");
  EXPECT_EQ(compare(before, held(kernel_)).error().reason(), "pinned memory: before 0 bytes, after 4 KiB");
}

TEST_F(ResourceUseTest, NamesErrorsThatWereOnlyLogged) {
  ResourceUse before = held(kernel_);
  ResourceUse after = before;
  after.logged_errors = 1;
  EXPECT_EQ(compare(before, after).error().reason(), "errors while cleaning up: before 0, after 1");
}

TEST_F(ResourceUseTest, CannotBeReadWithoutProc) {
  test::TreeKernel empty;
  EXPECT_EQ(ResourceUse::now(empty).error().code(), ENOENT);
}

TEST_F(ResourceUseTest, MayBeTheKernelsFaultAfterAFailure) {
  const ResourceUse before = held(kernel_);
  memory("2048", "0");
  const auto well = compare(before, held(kernel_));
  ASSERT_FALSE(well.has_value());
  EXPECT_EQ(well.error().remedy().find("this is a bug in postern"), 0U) << well.error().remedy();
  const auto failed = compare(before, held(kernel_), true);
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().remedy().find("could not create"), std::string::npos) << failed.error().remedy();
}

}  // namespace resource_use_test
}  // namespace postern::tool
