// SPDX-License-Identifier: Apache-2.0
// A guest's memory in huge pages of a memfd: a device fills them, by type1 and by iommufd.
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <postern/guest_memory.hpp>

#include "guest/x86_64/devices.hpp"
#include "support/edu.hpp"

namespace postern {
namespace huge_pages_test {

constexpr std::uint64_t huge_page = 2 << 20;
constexpr Iova base{0x4000000};  // edu reaches 256 MiB

class HugePages : public ::testing::TestWithParam<test::Interface> {};

TEST_P(HugePages, OfAFileAreMappedAsGuestMemoryAndFilledByADevice) {
  const auto file = std::make_shared<const Fd>(system_kernel(), system_kernel().memfd_create("huge", MFD_HUGETLB));
  ASSERT_TRUE(*file);
  ASSERT_EQ(system_kernel().ftruncate(file->get(), 2 * huge_page), 0);
  GuestMemory memory(system_kernel(),
                     {.backend = GetParam().backend, .container_options = {.version = GetParam().version}});
  const test::Bound bound(test::edu);
  auto attached = memory.attach(bound.host());
  ASSERT_TRUE(attached) << attached.error().message();
  const auto added = memory.add(base, Memory::of_file(file, 0, 2 * huge_page));
  ASSERT_TRUE(added) << added.error().message();
  EXPECT_EQ(memory.mapping_count(), 1U);
  {
    const PciDevice pci = PciDevice::open(std::move(attached->device)).value();
    ASSERT_TRUE(pci.enable_memory() && pci.enable_bus_master());
    const test::EduRegisters edu(pci.device());
    std::byte* const address =
        static_cast<std::byte*>(::mmap(nullptr, 2 * huge_page, PROT_READ | PROT_WRITE, MAP_SHARED, file->get(), 0));
    const Mmap bytes(system_kernel(), address, 2 * huge_page);
    constexpr std::array<char, 16> text{"in a huge page"};
    const std::uint64_t from = huge_page - 8;  // across the border of two
    const std::uint64_t to = huge_page + 4096;
    std::memcpy(address + from, text.data(), text.size());
    edu.copy(base.value + from, test::EduRegisters::buffer, text.size(), 0);
    edu.copy(test::EduRegisters::buffer, base.value + to, text.size(), test::EduRegisters::to_memory);
    EXPECT_EQ(std::memcmp(address + to, text.data(), text.size()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(EachBackend, HugePages, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace huge_pages_test
}  // namespace postern
