// SPDX-License-Identifier: Apache-2.0
// RegisteredMemory on a fake kernel that keeps registrations as mm_iommu does: they cannot overlap, and each is
// unregistered as a whole.
#include "iommu/spapr/registered_memory.hpp"

#include <gmock/gmock.h>
#include <linux/vfio.h>
#include <rapidcheck/gtest.h>

#include <cerrno>
#include <map>
#include <vector>

#include "support/tree_kernel.hpp"

namespace postern::spapr {
namespace registered_memory_test {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t gib = std::uint64_t{1} << 30;

class RegisteringKernel : public test::TreeKernel {
 public:
  std::map<std::uint64_t, std::uint64_t> registered;  // address and length
  std::uint64_t largest = ~std::uint64_t{0};          // the largest piece that can be registered at once
  int calls = 0;
  int fail_after = -1;   // calls
  bool is_busy = false;  // registrations are in use, and cannot be removed

  int close(int /*fd*/) override { return 0; }
  int ioctl(int /*fd*/, unsigned long request, void* argument) override {
    const auto& memory = *static_cast<vfio_iommu_spapr_register_memory*>(argument);
    if (request == VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY) {
      const auto found = registered.find(memory.vaddr);
      if (found == registered.end() || found->second != memory.size) return -ENOENT;
      if (is_busy) return -EBUSY;
      registered.erase(found);
      return 0;
    }
    if (calls++ == fail_after) return -EIO;
    if (memory.size == 0 || memory.size > largest) return -ENOMEM;
    for (const auto& [address, length] : registered) {
      if (address < memory.vaddr + memory.size && memory.vaddr < address + length) return -EINVAL;
    }
    registered.emplace(memory.vaddr, memory.size);
    return 0;
  }
  [[nodiscard]] bool has(std::uint64_t address) const {
    auto next = registered.upper_bound(address);
    return next != registered.begin() && address - std::prev(next)->first < std::prev(next)->second;
  }
};

class Registering : public ::testing::Test {
 protected:
  RegisteringKernel kernel;
  Fd container{kernel, 3};
  RegisteredMemory memory{container};
};

// The kernel does not register memory twice for a container (tce_iommu_register_pages).
TEST_F(Registering, WhatTheKernelDoesNotUnregisterIsFoundByTheNextMapping) {
  ASSERT_EQ(memory.acquire(16 * page, page), 0);
  kernel.is_busy = true;
  memory.release(16 * page, page);
  EXPECT_EQ(memory.size(), page);
  ASSERT_EQ(memory.acquire(16 * page, 2 * page), 0);
  kernel.is_busy = false;
  memory.release(16 * page, 2 * page);
  EXPECT_TRUE(kernel.registered.empty());
  EXPECT_FALSE(memory.has_temporary());
}

TEST_F(Registering, WhatIsKeptStaysSoWhereTheKernelDoesNotUnregisterIt) {
  ASSERT_EQ(memory.keep({16 * page, page}), 0);
  kernel.is_busy = true;
  EXPECT_EQ(memory.drop({16 * page, page}), -EBUSY);
  EXPECT_TRUE(memory.is_kept_as({16 * page, page}));
  kernel.is_busy = false;
  EXPECT_EQ(memory.drop({16 * page, page}), 0);
  EXPECT_TRUE(kernel.registered.empty());
}

TEST_F(Registering, WhatIsMappedIsRegisteredForAsLongAsItIsUsed) {
  ASSERT_EQ(memory.acquire(16 * page, 4 * page), 0);
  ASSERT_EQ(memory.acquire(17 * page, page), 0);
  EXPECT_EQ(kernel.registered.size(), 1U);
  memory.release(16 * page, 4 * page);
  EXPECT_TRUE(kernel.has(17 * page));
  memory.release(17 * page, page);
  EXPECT_TRUE(kernel.registered.empty());
  EXPECT_FALSE(memory.has_temporary());
}

TEST_F(Registering, WhatIsKeptStaysAndIsNotCounted) {
  ASSERT_EQ(memory.keep({16 * page, 16 * page}), 0);
  EXPECT_TRUE(memory.is_kept(16 * page, 16 * page));
  EXPECT_TRUE(memory.is_kept(20 * page, page));
  EXPECT_FALSE(memory.is_kept(31 * page, 2 * page));
  EXPECT_FALSE(memory.is_kept(15 * page, page));
  ASSERT_EQ(memory.acquire(20 * page, page), 0);
  memory.release(20 * page, page);
  EXPECT_TRUE(kernel.has(20 * page));
  EXPECT_EQ(memory.drop({16 * page, 16 * page}), 0);
  EXPECT_TRUE(kernel.registered.empty());
  EXPECT_FALSE(memory.is_kept(16 * page, page));
}

TEST_F(Registering, OnlyTheGapsBetweenWhatIsRegisteredAreRegistered) {
  ASSERT_EQ(memory.keep({10 * page, 2 * page}), 0);
  ASSERT_EQ(memory.keep({20 * page, 2 * page}), 0);
  ASSERT_EQ(memory.acquire(8 * page, 16 * page), 0);
  EXPECT_EQ(kernel.registered, (std::map<std::uint64_t, std::uint64_t>{{8 * page, 2 * page},
                                                                       {10 * page, 2 * page},
                                                                       {12 * page, 8 * page},
                                                                       {20 * page, 2 * page},
                                                                       {22 * page, 2 * page}}));
  memory.release(8 * page, 16 * page);
  EXPECT_EQ(kernel.registered.size(), 2U);
}

TEST_F(Registering, AFailureHalfWayLeavesNothingNew) {
  ASSERT_EQ(memory.keep({10 * page, 2 * page}), 0);
  kernel.fail_after = kernel.calls + 1;
  EXPECT_EQ(memory.acquire(8 * page, 16 * page), -EIO);
  EXPECT_EQ(kernel.registered.size(), 1U);
  EXPECT_FALSE(memory.has_temporary());
}

TEST_F(Registering, MemoryThatTheKernelHasNoRoomForAtOnceIsRegisteredInParts) {
  kernel.largest = 2 * gib;
  ASSERT_EQ(memory.keep({gib, 7 * gib}), 0);
  EXPECT_GE(kernel.registered.size(), 4U);
  for (std::uint64_t i = 1; i < 8; ++i) EXPECT_TRUE(kernel.has(i * gib)) << i;
  EXPECT_EQ(memory.size(), 7 * gib);
  EXPECT_EQ(memory.drop({gib, 7 * gib}), 0);
  EXPECT_TRUE(kernel.registered.empty());
  kernel.largest = gib / 2;
  EXPECT_EQ(memory.keep({gib, 7 * gib}), -ENOMEM);
  EXPECT_TRUE(kernel.registered.empty()) << "what is too small to be divided is refused, and nothing stays";
}

TEST_F(Registering, ComesBackAfterTheIommuWasAway) {
  ASSERT_EQ(memory.keep({16 * page, page}), 0);
  ASSERT_EQ(memory.keep({32 * page, page}), 0);
  memory.suspend();
  EXPECT_TRUE(kernel.registered.empty());
  kernel.fail_after = kernel.calls + 1;
  EXPECT_EQ(memory.resume(), -EIO);
  EXPECT_TRUE(kernel.registered.empty());
  ASSERT_EQ(memory.resume(), 0);
  EXPECT_EQ(kernel.registered.size(), 2U);
}

// Maps random pieces of memory, some of it preregistered: all mapped memory is always registered, and in the end only
// the preregistered.
RC_GTEST_PROP(RegisteredMemory, EverythingThatIsMappedIsRegistered, (const std::vector<std::uint32_t>& steps)) {
  RegisteringKernel kernel;
  const Fd container(kernel, 3);
  RegisteredMemory memory(container);
  RC_ASSERT(memory.keep({20 * page, 8 * page}) == 0);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mapped;
  for (const std::uint32_t step : steps) {
    if (step % 3 == 0 && !mapped.empty()) {
      const auto gone = mapped.begin() + step / 3 % static_cast<std::uint32_t>(mapped.size());
      memory.release(gone->first * page, gone->second * page);
      mapped.erase(gone);
    } else {
      const std::uint64_t first = 1 + step / 3 % 40;
      const std::uint64_t pages = 1 + step / 120 % 12;
      RC_ASSERT(memory.acquire(first * page, pages * page) == 0);
      mapped.emplace_back(first, pages);
    }
    for (const auto& [first, pages] : mapped) {
      for (std::uint64_t i = first; i < first + pages; ++i) RC_ASSERT(kernel.has(i * page));
    }
  }
  for (const auto& [first, pages] : mapped) memory.release(first * page, pages * page);
  RC_ASSERT(kernel.registered.size() == 1U);
  RC_ASSERT(!memory.has_temporary());
}

}  // namespace registered_memory_test
}  // namespace postern::spapr
