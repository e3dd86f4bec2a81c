// SPDX-License-Identifier: Apache-2.0
// The simulated NVMe controller: registers, queues and doorbells, and arbitrary writes of a hostile driver.
#include <gtest/gtest.h>

#include <random>

#include "unit/sim/nvme_rig.hpp"

namespace postern::sim::nvme_test {
namespace nvme_hardware_test {

constexpr std::uint32_t rdy = 1;
constexpr std::uint32_t cfs = 2;
constexpr std::uint32_t shut_down = 8;  // SHST

class NvmeHardware : public testing::Test, public NvmeRig {};

TEST_F(NvmeHardware, SaysWhatItIs) {
  const HardwareInfo& info = nvme->info();
  EXPECT_EQ(info.vendor, 0x1b36);
  EXPECT_EQ(info.device, 0x0010);
  EXPECT_EQ(info.class_code, 0x010802U);
  EXPECT_EQ(info.bars[0].size, 0x4000U);
  EXPECT_EQ(info.bars[1].size, 0U);
  EXPECT_EQ(info.msix_vectors, 65U);
  EXPECT_TRUE(info.has_flr);
  EXPECT_EQ(reg(0x00).read(), 0x0f0107ffU);  // TO 7.5 s, CQR, MQES 2047
  EXPECT_EQ(reg(0x04).read(), 0x00400020U);  // MPSMAX 64 KiB, NVM commands
  EXPECT_EQ(reg(0x08).read(), 0x00010400U);
  EXPECT_EQ(csts(), 0U);
  EXPECT_FALSE(poll());
}

TEST_F(NvmeHardware, IsReadyWhileItIsEnabled) {
  set_admin_queue();
  reg(0x14).write(enable_bits);
  EXPECT_EQ(csts(), 0U);
  EXPECT_TRUE(poll());
  EXPECT_EQ(csts(), rdy);
  EXPECT_FALSE(poll());
  reg(0x14).write(enable_bits & ~1U);
  EXPECT_TRUE(poll());
  EXPECT_EQ(csts(), 0U);
  EXPECT_FALSE(poll());
}

TEST_F(NvmeHardware, IsFatalWhereEnablingMakesNoSense) {
  const std::vector<std::pair<std::size_t, std::uint32_t>> odd = {
      {0x14, enable_bits | 5U << 7},   // MPS 128 KiB
      {0x14, enable_bits | 1U << 4},   // CSS
      {0x14, enable_bits | 1U << 11},  // AMS
      {0x24, 0x00070000},              // a submission queue of one entry
      {0x24, 0x00000007},              // a completion queue of one
      {0x28, 0x10800},
      {0x30, 0x20004},
  };
  for (const auto& [offset, value] : odd) {
    set_admin_queue();
    reg(0x14).write(0);
    reg(offset).write(value);
    reg(0x14).write(reg(0x14).read() | enable_bits);
    EXPECT_TRUE(poll());
    EXPECT_EQ(csts(), cfs) << std::hex << offset << " " << value;
    EXPECT_FALSE(poll());
    disable();
  }
  ASSERT_NO_FATAL_FAILURE(start());  // a reset clears all of that
}

TEST_F(NvmeHardware, TakesPagesOf64KiB) {
  set_admin_queue();
  reg(0x14).write(enable_bits | 4U << 7);
  reg(0x28).write(0x11000);
  poll();
  EXPECT_EQ(csts(), cfs);
  disable();
  set_admin_queue();
  reg(0x14).write(enable_bits | 4U << 7);
  poll();
  ASSERT_EQ(csts(), rdy);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x51000, 1)), 0x013);
  EXPECT_EQ(status_of(create_cq(1, 8, 0x50000, 1)), 0);
  EXPECT_EQ(status_of(create_sq(1, 8, 0x40000, 1)), 0);
  io = {.id = 1, .submissions = 0x40000, .completions = 0x50000};
  // 64 KiB from the middle of a page: two pages, and no list.
  EXPECT_EQ(io_status(transfer(2, 0, 128, 0x200800, 0x300000)), 0);
  EXPECT_EQ(slot.bytes(0x200800, 0x400), disk(0, 2));
  EXPECT_EQ(slot.bytes(0x300000, 0x400), disk((0x10000 - 0x800) / 512, 2));
}

TEST_F(NvmeHardware, AShutdownEndsCommandsUntilAReset) {
  ASSERT_NO_FATAL_FAILURE(start());
  for (const std::uint32_t shn : {1U, 2U}) {
    reg(0x14).write(enable_bits | shn << 14);
    EXPECT_TRUE(poll());
    EXPECT_EQ(csts(), rdy | shut_down);
    submit(admin, {.opcode = 0x0a, .dword10 = 7});
    EXPECT_FALSE(poll());
    EXPECT_FALSE(reap(admin));
    reg(0x14).write(enable_bits);
    poll();
    EXPECT_FALSE(reap(admin));
    reg(0x14).write(shn << 14);  // as after a driver that only clears EN
    poll();
    EXPECT_EQ(csts(), shut_down);
    ASSERT_NO_FATAL_FAILURE(enable());
    EXPECT_EQ(status_of({.opcode = 0x0a, .dword10 = 7}), 0);
  }
}

TEST_F(NvmeHardware, RegistersThatCanOnlyBeReadStayWhatTheyAre) {
  ASSERT_NO_FATAL_FAILURE(start());
  for (const unsigned offset : {0x00U, 0x04U, 0x08U, 0x1cU}) {
    const std::uint32_t before = reg(offset).read();
    reg(offset).write(~before);
    poll();
    EXPECT_EQ(reg(offset).read(), before);
  }
}

TEST_F(NvmeHardware, QueuesWrapAroundAndThePhaseTurns) {
  ASSERT_NO_FATAL_FAILURE(start());
  Pair small = make_pair(2, 3, 4);
  for (std::uint16_t i = 0; i < 50; ++i) {
    const Done done = run(small, transfer(2, i, 1, list_page));
    EXPECT_EQ(done, (Done{.head = static_cast<std::uint16_t>((i + 1) % 3), .queue = 2, .id = i}));
    EXPECT_EQ(slot.bytes(list_page, 512), disk(i));
    EXPECT_FALSE(reap(small));
  }
}

TEST_F(NvmeHardware, ThePhaseArrivesAfterAllElse) {
  ASSERT_NO_FATAL_FAILURE(start());
  submit(io, transfer(7, 0, 1, 0));
  int seen = 0;
  slot.after_write = [&] {
    if ((slot.get<std::uint8_t>(io.completions + 14) & 1) == 0) return;
    ++seen;
    EXPECT_EQ(slot.get<std::uint16_t>(io.completions + 8), 1);
    EXPECT_EQ(slot.get<std::uint16_t>(io.completions + 10), 1);
    EXPECT_EQ(slot.get<std::uint16_t>(io.completions + 14), 0x001 << 1 | 1);
  };
  const std::uint64_t before = slot.writes;
  poll();
  slot.after_write = nullptr;
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(slot.writes, before + 2);
}

TEST_F(NvmeHardware, AFullCompletionQueueWaits) {
  ASSERT_NO_FATAL_FAILURE(start());
  Pair pair = make_pair(2, 16, 3);
  for (int i = 0; i < 10; ++i) submit(pair, transfer(0, 0, 1, 0));
  std::uint16_t next = 0;
  while (next < 10) {
    EXPECT_TRUE(poll());
    EXPECT_FALSE(poll());
    EXPECT_EQ(reap(pair, false)->id, next++);
    EXPECT_EQ(reap(pair, false)->id, next++);
    EXPECT_FALSE(reap(pair, false));
    EXPECT_EQ(status_of({.opcode = 0x0a, .dword10 = 7}), 0);  // other queues still work
    give_back(pair);
  }
  EXPECT_FALSE(poll());
}

TEST_F(NvmeHardware, APollRunsSomeCommandsOfEachQueue) {
  ASSERT_NO_FATAL_FAILURE(start());
  Pair one = make_pair(2, 128, 128);
  Pair other = make_pair(3, 128, 128);
  for (int i = 0; i < 100; ++i) {
    submit(one, transfer(0, 0, 1, 0));
    submit(other, transfer(0, 0, 1, 0));
  }
  const auto count = [&](Pair& pair) {
    int done = 0;
    while (reap(pair)) ++done;
    return done;
  };
  for (const int expected : {32, 32, 32, 4}) {
    EXPECT_TRUE(poll());
    EXPECT_EQ(count(one), expected);
    EXPECT_EQ(count(other), expected);
  }
  EXPECT_FALSE(poll());
}

TEST_F(NvmeHardware, SeveralSubmissionQueuesShareACompletionQueue) {
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_EQ(status_of(create_sq(9, 8, 0x300000, 1)), 0);
  Pair second{.id = 9, .submissions = 0x300000, .next_id = 700};
  submit(second, transfer(0, 0, 1, 0));
  poll();
  EXPECT_EQ(reap(io), (Done{.head = 1, .queue = 9, .id = 700}));
  EXPECT_EQ(status_of({.opcode = 0x00, .dword10 = 1}), 0);
  EXPECT_EQ(status_of({.opcode = 0x04, .dword10 = 1}), 0x10c);  // the second still needs it
}

TEST_F(NvmeHardware, InterruptsWhereTheQueueWantsThem) {
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_EQ(slot.interrupts, (std::vector<std::uint32_t>{0, 0}));
  slot.interrupts.clear();
  io_status(transfer(0, 0, 1, 0));
  Pair last = make_pair(64, 4, 4);
  run(last, transfer(0, 0, 1, 0));
  EXPECT_EQ(slot.interrupts, (std::vector<std::uint32_t>{1, 0, 0, 64}));
  EXPECT_EQ(status_of(create_cq(2, 8, 0x300000, 5U << 16 | 1)), 0);  // IEN 0
  EXPECT_EQ(status_of(create_sq(2, 8, 0x310000, 2)), 0);
  Pair quiet{.id = 2, .submissions = 0x310000, .completions = 0x300000};
  slot.interrupts.clear();
  run(quiet, transfer(0, 0, 1, 0));
  EXPECT_TRUE(slot.interrupts.empty());
}

TEST_F(NvmeHardware, ABlockedQueueIsFatal) {
  for (const bool at_submissions : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(start());
    auto& blocked = at_submissions ? slot.no_reads : slot.no_writes;
    const std::uint64_t at = at_submissions ? io.submissions : io.completions;
    blocked = {{{at}, {at + 0xfff}}};
    submit(io, transfer(0, 0, 1, 0));
    slot.interrupts.clear();
    EXPECT_TRUE(poll());
    EXPECT_EQ(csts(), rdy | cfs);
    EXPECT_TRUE(slot.interrupts.empty());
    blocked.clear();
    submit(admin, {.opcode = 0x0a, .dword10 = 7});
    EXPECT_FALSE(poll());
    EXPECT_FALSE(reap(admin));
    EXPECT_FALSE(reap(io));
    disable();
  }
}

TEST_F(NvmeHardware, ADoorbellThatMakesNoSenseIsFatal) {
  const std::vector<std::function<void()>> odd = {
      [&] { doorbell(0).write(8); },           // beyond the queue
      [&] { doorbell(2).write(0xffffffff); },  //
      [&] { doorbell(3).write(8); },           //
      [&] { doorbell(3).write(1); },           // nothing has completed there
      [&] { doorbell(3).write(0x10000); },     // the reserved bits
  };
  for (const auto& ring : odd) {
    ASSERT_NO_FATAL_FAILURE(start());
    ring();
    EXPECT_TRUE(poll());
    EXPECT_EQ(csts(), rdy | cfs);
    disable();
  }

  ASSERT_NO_FATAL_FAILURE(start());
  Pair pair = make_pair(2, 4, 2);
  for (int i = 0; i < 3; ++i) submit(pair, transfer(0, 0, 1, 0));
  poll();  // runs one; no room for the completions of the others
  EXPECT_EQ(csts(), rdy);
  submit(pair, transfer(0, 0, 1, 0));  // room for this
  poll();
  EXPECT_EQ(csts(), rdy);
  submit(pair, transfer(0, 0, 1, 0));  // no room for this
  poll();
  EXPECT_EQ(csts(), rdy | cfs);
}

TEST_F(NvmeHardware, DoorbellsOfNoQueueDoNothing) {
  ASSERT_NO_FATAL_FAILURE(start());
  for (std::size_t i = 4; i < 0xc00; ++i) doorbell(i).write(3);
  EXPECT_FALSE(poll());
  EXPECT_EQ(csts(), rdy);
  Pair pair = make_pair(2, 4, 4);  // earlier doorbell writes have no effect
  EXPECT_FALSE(poll());
  EXPECT_EQ(run(pair, transfer(0, 0, 1, 0)), (Done{.head = 1, .queue = 2, .id = 0}));
}

TEST_F(NvmeHardware, AQueueThatIsDeletedForgetsItsCommands) {
  ASSERT_NO_FATAL_FAILURE(start());
  Pair pair = make_pair(2, 8, 2);
  for (int i = 0; i < 5; ++i) submit(pair, transfer(0, 0, 1, 0));
  poll();
  EXPECT_EQ(status_of({.opcode = 0x00, .dword10 = 2}), 0);
  EXPECT_TRUE(reap(pair));
  EXPECT_FALSE(poll());
  EXPECT_FALSE(reap(pair));
  EXPECT_EQ(status_of({.opcode = 0x04, .dword10 = 2}), 0);
  pair = make_pair(2, 8, 8);
  EXPECT_FALSE(poll());
  EXPECT_EQ(run(pair, transfer(0, 0, 1, 0)).head, 1);
}

TEST_F(NvmeHardware, AResetInTheMiddleEndsEverything) {
  for (const bool by_function : {false, true}) {
    ASSERT_NO_FATAL_FAILURE(start());
    Pair pair = make_pair(2, 128, 128);
    for (int i = 0; i < 100; ++i) submit(pair, transfer(2, 0, 1, list_page));
    poll();
    const Bytes memory = slot.memory;
    if (by_function) {
      nvme->reset();
      EXPECT_EQ(reg(0x14).read(), 0U);
      EXPECT_EQ(doorbell(4).read(), 0U);
      EXPECT_EQ(reg(0x08).read(), 0x00010400U);
    } else {
      reg(0x14).write(0);
      EXPECT_TRUE(poll());
    }
    EXPECT_EQ(csts(), 0U);
    EXPECT_FALSE(poll());
    EXPECT_EQ(slot.memory, memory);
    ASSERT_NO_FATAL_FAILURE(start());
    EXPECT_EQ(run(io, transfer(0, 0, 1, 0)), (Done{.head = 1, .queue = 1, .id = 0}));
    disable();
  }
}

// A driver that writes arbitrary values to arbitrary registers: polling must terminate without a sanitizer's report,
// and a reset must recover.
TEST_F(NvmeHardware, AHostileDriverHarmsOnlyItself) {
  std::mt19937_64 random(20260723);
  const auto below = [&](std::uint64_t end) { return random() % end; };
  const auto odd_number = [&]() -> std::uint64_t {
    switch (below(4)) {
      case 0:
        return below(9);
      case 1:
        return below(TestSlot::size / page) * page;
      case 2:
        return ~below(0x2000);
      default:
        return random();
    }
  };
  std::uint64_t commands = 0;
  std::uint64_t fatal = 0;
  for (int round = 0; round < 300; ++round) {
    start();
    for (int step = 0; step < 100; ++step) {
      Pair& pair = below(3) == 0 ? admin : io;
      const Entry entry{.opcode = static_cast<std::uint8_t>(below(8) == 0 ? random() : below(13)),
                        .nsid = static_cast<std::uint32_t>(below(8) == 0 ? random() : 1),
                        .prp1 = odd_number(),
                        .prp2 = odd_number(),
                        .dword10 = static_cast<std::uint32_t>(odd_number()),
                        .dword11 = static_cast<std::uint32_t>(below(2) == 0 ? 0 : odd_number()),
                        .dword12 = static_cast<std::uint32_t>(below(2) == 0 ? below(1024) : random()),
                        .flags = static_cast<std::uint8_t>(below(16) == 0 ? random() : 0)};
      submit(pair, entry);
      slot.put(list_page + below(page * 64), odd_number());
      if (below(20) == 0) doorbell(below(0xc00)).write(static_cast<std::uint32_t>(odd_number()));
      if (below(20) == 0) doorbell(below(4)).write(static_cast<std::uint32_t>(odd_number()));
      if (below(40) == 0) reg(4 * below(0x400)).write(static_cast<std::uint32_t>(odd_number()));
      const std::uint64_t before = slot.reads + slot.writes;
      if (poll()) ++commands;
      // Limits the DMA to 64 commands, each with its entry, lists, pages and completion.
      ASSERT_LE(slot.reads + slot.writes - before, 64U * (1 + 2 + 129 + 2));
      while (reap(pair)) continue;
    }
    fatal += (csts() & cfs) != 0;
    disable();
  }
  EXPECT_GT(commands, 1000U);
  EXPECT_GT(fatal, 100U);
  EXPECT_LT(fatal, 300U);
  ASSERT_NO_FATAL_FAILURE(start());
  EXPECT_EQ(run(io, transfer(0, 0, 1, 0)), (Done{.head = 1, .queue = 1, .id = 0}));
}

}  // namespace nvme_hardware_test
}  // namespace postern::sim::nvme_test
