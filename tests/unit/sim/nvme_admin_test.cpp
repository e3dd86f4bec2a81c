// SPDX-License-Identifier: Apache-2.0
// The simulated NVMe controller: admin commands.
#include <gtest/gtest.h>

#include <string>

#include "unit/sim/nvme_rig.hpp"

namespace postern::sim::nvme_test {
namespace nvme_admin_test {

class NvmeAdmin : public testing::Test, public NvmeRig {};

std::string text(const Bytes& bytes) {
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

TEST_F(NvmeAdmin, IdentifiesItselfAndItsNamespace) {
  ASSERT_NO_FATAL_FAILURE(enable());
  constexpr std::uint64_t at = 0x200000;
  EXPECT_EQ(status_of({.opcode = 0x06, .prp1 = at, .dword10 = 1}), 0);
  EXPECT_EQ(text(slot.bytes(at + 4, 20)), "SIM-1");
  EXPECT_EQ(text(slot.bytes(at + 24, 40)), "postern simulated NVMe");
  EXPECT_EQ(text(slot.bytes(at + 64, 8)), "1.0");
  EXPECT_EQ(slot.get<std::uint16_t>(at), 0x1b36);
  EXPECT_EQ(slot.get<std::uint8_t>(at + 77), 7);
  EXPECT_EQ(slot.get<std::uint32_t>(at + 80), 0x00010400U);
  EXPECT_EQ(slot.get<std::uint8_t>(at + 512), 0x66);
  EXPECT_EQ(slot.get<std::uint8_t>(at + 513), 0x44);
  EXPECT_EQ(slot.get<std::uint32_t>(at + 516), 1U);
  EXPECT_EQ(slot.get<std::uint16_t>(at + 520), 0);

  // From the middle of a page: PRP2 is the rest.
  EXPECT_EQ(status_of({.opcode = 0x06, .nsid = 1, .prp1 = at + 0xff8, .prp2 = at + 0x4000}), 0);
  EXPECT_EQ(slot.get<std::uint64_t>(at + 0xff8), blocks);
  EXPECT_EQ(slot.get<std::uint64_t>(at + 0x4000), blocks);
  EXPECT_EQ(slot.get<std::uint64_t>(at + 0x4008), blocks);
  EXPECT_EQ(slot.get<std::uint8_t>(at + 0x4000 + 26 - 8), 0);
  EXPECT_EQ(slot.get<std::uint32_t>(at + 0x4000 + 128 - 8), 9U << 16);

  EXPECT_EQ(status_of({.opcode = 0x06, .prp1 = at, .dword10 = 2}), 0);
  EXPECT_EQ(slot.get<std::uint64_t>(at), 1U);
  EXPECT_EQ(status_of({.opcode = 0x06, .nsid = 1, .prp1 = at, .dword10 = 2}), 0);
  EXPECT_EQ(slot.bytes(at, page), Bytes(page));

  EXPECT_EQ(status_of({.opcode = 0x06, .nsid = 1, .prp1 = at, .dword10 = 3}), 0);
  EXPECT_EQ(slot.get<std::uint32_t>(at), 0x1003U) << "a UUID of 16 bytes";
  EXPECT_EQ(text(slot.bytes(at + 4, 5)), "SIM-1");
  EXPECT_EQ(slot.get<std::uint8_t>(at + 10) >> 4, 8) << "its version";
  EXPECT_EQ(slot.get<std::uint8_t>(at + 12) >> 6, 2) << "its variant";
  EXPECT_EQ(slot.bytes(at + 20, page - 20), Bytes(page - 20)) << "the end of the list";

  for (const std::uint32_t nsid : {0U, 2U, 0xffffffffU}) {
    EXPECT_EQ(status_of({.opcode = 0x06, .nsid = nsid, .prp1 = at}), 0x00b);
    EXPECT_EQ(status_of({.opcode = 0x06, .nsid = nsid, .prp1 = at, .dword10 = 3}), 0x00b);
  }
  EXPECT_EQ(status_of({.opcode = 0x06, .nsid = 0xfffffffe, .prp1 = at, .dword10 = 2}), 0x00b);
  EXPECT_EQ(status_of({.opcode = 0x06, .prp1 = at, .dword10 = 0x10}), 0x002);
  EXPECT_EQ(status_of({.opcode = 0x06, .prp1 = at + 2, .dword10 = 1}), 0x013);
}

TEST_F(NvmeAdmin, MakesAndDeletesQueuesAsTheSpecificationSays) {
  ASSERT_NO_FATAL_FAILURE(enable());
  EXPECT_EQ(status_of(create_cq(0, 8, 0x50000, 1)), 0x101);
  EXPECT_EQ(status_of(create_cq(65, 8, 0x50000, 1)), 0x101);
  EXPECT_EQ(status_of(create_cq(1, 1, 0x50000, 1)), 0x102);
  EXPECT_EQ(status_of(create_cq(1, 2049, 0x50000, 1)), 0x102);
  EXPECT_EQ(status_of(create_cq(1, 0x10000, 0x50000, 1)), 0x102);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 65U << 16 | 3)), 0x108);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 0)), 0x002);  // not contiguous
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50010, 1)), 0x013);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 1)), 0x100);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 1)), 0);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 1)), 0x101);
  EXPECT_EQ(status_of(create_cq(64, 2048, 0x60000, 64U << 16 | 3)), 0);

  EXPECT_EQ(status_of(create_sq(0, 8, 0x40000, 1)), 0x101);
  EXPECT_EQ(status_of(create_sq(65, 8, 0x40000, 1)), 0x101);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 0)), 0x101);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 0xffff)), 0x101);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 2)), 0x100);
  EXPECT_EQ(status_of(create_sq(1, 1, 0x40000, 1)), 0x102);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40040, 1)), 0x013);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 1)), 0);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 1)), 0x101);

  const auto delete_sq = [](std::uint32_t id) { return Entry{.opcode = 0x00, .dword10 = id}; };
  const auto delete_cq = [](std::uint32_t id) { return Entry{.opcode = 0x04, .dword10 = id}; };
  EXPECT_EQ(status_of(delete_cq(1)), 0x10c);
  for (const std::uint32_t id : {0U, 2U, 65U, 0xffffU}) {
    EXPECT_EQ(status_of(delete_sq(id)), 0x101);
    EXPECT_EQ(status_of(delete_cq(id)), 0x101);
  }
  EXPECT_EQ(status_of(delete_sq(1)), 0);
  EXPECT_EQ(status_of(delete_sq(1)), 0x101);
  EXPECT_EQ(status_of(delete_cq(1)), 0);
  EXPECT_EQ(status_of(delete_cq(1)), 0x101);

  reg(0x14).write(enable_bits ^ 1U << 16);  // IOSQES 7
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 1)), 0);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 1)), 0x102);
  reg(0x14).write(enable_bits ^ 1U << 20);  // IOCQES 5
  EXPECT_EQ(status_of(create_cq(2, 8, 0x50000, 1)), 0x102);
}

TEST_F(NvmeAdmin, OtherAdminCommands) {
  ASSERT_NO_FATAL_FAILURE(enable());
  const Entry set{.opcode = 0x09, .dword10 = 7};
  EXPECT_EQ(run(admin, set).result, 0x003f003fU);
  EXPECT_EQ(run(admin, {.opcode = 0x0a, .dword10 = 7}).result, 0x003f003fU);
  EXPECT_EQ(status_of({.opcode = 0x09, .dword10 = 7, .dword11 = 0xffff}), 0x002);
  EXPECT_EQ(status_of({.opcode = 0x09, .dword10 = 7, .dword11 = 0xffff0000}), 0x002);
  EXPECT_EQ(status_of({.opcode = 0x09, .dword10 = 1U << 31 | 7}), 0x10d);
  EXPECT_EQ(status_of({.opcode = 0x0a, .dword10 = 1U << 8 | 7}), 0x002);
  EXPECT_EQ(status_of({.opcode = 0x09, .dword10 = 1}), 0x002);
  EXPECT_EQ(status_of({.opcode = 0x0a, .dword10 = 0xff}), 0x002);
  make_pair(1, 8, 8);
  EXPECT_EQ(status_of(set), 0x00c);

  EXPECT_EQ(run(admin, {.opcode = 0x08, .dword10 = 5U << 16 | 1}).result, 1U);
  for (const int opcode : {0x02, 0x03, 0x07, 0x0d, 0x80, 0xff})
    EXPECT_EQ(status_of({.opcode = static_cast<std::uint8_t>(opcode)}), 0x001);
  for (const int flags : {0x01, 0x02, 0x40, 0x80}) {
    EXPECT_EQ(status_of({.opcode = 0x0a, .dword10 = 7, .flags = static_cast<std::uint8_t>(flags)}), 0x002);
  }

  for (int i = 0; i < 4; ++i) {
    submit(admin, {.opcode = 0x0c});
    EXPECT_TRUE(poll());
    EXPECT_FALSE(reap(admin));
  }
  EXPECT_EQ(status_of({.opcode = 0x0c}), 0x105);
  disable();
  enable();
  submit(admin, {.opcode = 0x0c});  // a reset ended the others
  poll();
  EXPECT_FALSE(reap(admin));
}

}  // namespace nvme_admin_test
}  // namespace postern::sim::nvme_test
