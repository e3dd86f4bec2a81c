// SPDX-License-Identifier: Apache-2.0
// Barriers between two threads, one of which plays the device.
#include <postern/barriers.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>

namespace postern {
namespace barriers_test {

constexpr auto relaxed = std::memory_order_relaxed;

TEST(Barriers, WhatIsHandedOverByAFlagIsThere) {
  constexpr std::uint32_t rounds = 100'000;
  std::atomic<std::uint32_t> data = 0;
  std::atomic<std::uint32_t> flag = 0;
  std::thread device([&] {
    for (std::uint32_t round = 1; round <= rounds; ++round) {
      data.store(round, relaxed);
      dma_wmb();
      flag.store(round, relaxed);
    }
  });
  std::uint32_t seen = 0;
  while (seen < rounds) {
    seen = flag.load(relaxed);
    dma_rmb();
    ASSERT_GE(data.load(relaxed), seen);
    cpu_relax();
  }
  device.join();
}

// Each thread writes its own flag and reads the other's: at least one must see the other's write.
TEST(Barriers, AFullOneOrdersAWriteBeforeARead) {
  constexpr int rounds = 2'000;
  std::atomic<int> mine = 0;
  std::atomic<int> its = 0;
  std::atomic<int> seen_by_it = 0;
  std::atomic<int> started = 0;
  std::atomic<int> ended = 0;
  std::thread device([&] {
    for (int round = 1; round <= rounds; ++round) {
      while (started.load() < round) std::this_thread::yield();
      its.store(round, relaxed);
      mb();
      seen_by_it.store(mine.load(relaxed), relaxed);
      ended.store(round);
    }
  });
  for (int round = 1; round <= rounds; ++round) {
    started.store(round);
    mine.store(round, relaxed);
    mb();
    const int seen = its.load(relaxed);
    while (ended.load() < round) std::this_thread::yield();
    EXPECT_TRUE(seen == round || seen_by_it.load(relaxed) == round) << round;
  }
  device.join();
}

}  // namespace barriers_test
}  // namespace postern
