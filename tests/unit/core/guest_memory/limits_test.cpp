// SPDX-License-Identifier: Apache-2.0
// GuestMemory on a host that allows few mappings: what does not fit is counted, and nothing is done.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <postern-sim/kernel.hpp>
#include <postern/guest_memory.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace limits_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

Iova iova(std::uint64_t number) { return base + number * page; }

class FewMappings : public ::testing::Test {
 protected:
  FewMappings()
      : kernel_([] {
          sim::Host host = sim::pc();
          host.mapping_limit = 16;
          return host;
        }()),
        bytes_(kernel_, ::mmap(nullptr, 64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               64 * page),
        memory_(kernel_, {.backend = "type1"}),
        device_(memory_.attach(find_pci_function(kernel_, {.device = 1})->host).value().device) {}

  [[nodiscard]] Memory bytes(std::uint64_t number) const { return bytes_.bytes().subspan(number * page, page); }

  sim::Kernel kernel_;
  Mmap bytes_;
  GuestMemory memory_;
  Device device_;
};

TEST_F(FewMappings, WhatDoesNotFitIsCountedAndNothingIsMapped) {
  ASSERT_TRUE(memory_.add(iova(0), bytes(0)));
  const std::uint64_t left = device_.container()->mappings_left().value();
  auto change = memory_.begin().value();
  for (std::uint64_t i = 0; i <= left; ++i) ASSERT_TRUE(change.add(iova(2 + i), bytes(2 * (left - i))));
  const auto refused = change.commit();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOSPC);
  EXPECT_EQ(refused.error().kind(), ErrorKind::limit_reached);
  EXPECT_THAT(refused.error().message(),
              AllOf(HasSubstr("it takes " + std::to_string(left + 1) + " mappings and gives back 0"),
                    HasSubstr("may have " + std::to_string(left) + " more"),
                    HasSubstr(std::to_string(left) + " of them are adjacent to another, but in other memory")));
  EXPECT_EQ(device_.container()->mapping_count(), 1U);
  ASSERT_TRUE(change.remove({iova(2), iova(2) + (page - 1)}));
  EXPECT_TRUE(change.commit()) << "one fewer fits";
}

TEST_F(FewMappings, GranulesAreLargerSoThatFourRegionsFit) {
  const Memory all = bytes_.bytes();
  auto change = memory_.begin().value();
  for (std::uint64_t region = 0; region < 5; ++region) {
    const auto granule = change.add_sparse(iova(100 * region), all, page);
    ASSERT_TRUE(granule) << granule.error().message();
    EXPECT_EQ(*granule, 16 * page);
    ASSERT_TRUE(change.populate({iova(100 * region), iova(100 * region + 64) - 1}));
  }
  const auto refused = change.commit();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOSPC);
  EXPECT_THAT(refused.error().message(), HasSubstr("20 of them are granules of sparse memory, which may be larger"));
  ASSERT_TRUE(change.discard({iova(400), iova(464) - 1}));
  EXPECT_TRUE(change.commit());
}

}  // namespace limits_test
}  // namespace postern
