// SPDX-License-Identifier: Apache-2.0
// NvmeRig: the simulated NVMe controller in a slot with plain memory, and a small driver for it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <postern/registers.hpp>
#include <span>
#include <utility>
#include <vector>

#include "sim/devices/nvme/nvme.hpp"

namespace postern::sim::nvme_test {

using Bytes = std::vector<std::byte>;

// A slot with 16 MiB of memory at iova 0, except blocked ranges.
class TestSlot final : public Slot {
 public:
  static constexpr std::uint64_t size = 16 << 20;

  bool dma_read(Iova iova, std::span<std::byte> bytes) override {
    ++reads;
    if (is_blocked(no_reads, iova, bytes.size())) return false;
    std::memcpy(bytes.data(), memory.data() + iova.value, bytes.size());
    return true;
  }
  bool dma_write(Iova iova, std::span<const std::byte> bytes) override {
    ++writes;
    if (is_blocked(no_writes, iova, bytes.size())) return false;
    std::memcpy(memory.data() + iova.value, bytes.data(), bytes.size());
    if (after_write) after_write();
    return true;
  }
  void interrupt(std::uint32_t vector) override { interrupts.push_back(vector); }
  [[nodiscard]] bool signals_messages() const override { return true; }
  void set_line(bool /*up*/) override {}

  template <typename T>
  [[nodiscard]] T get(std::uint64_t iova) const {
    T value;
    std::memcpy(&value, memory.data() + iova, sizeof value);
    return value;
  }
  template <typename T>
  void put(std::uint64_t iova, T value) {
    std::memcpy(memory.data() + iova, &value, sizeof value);
  }
  [[nodiscard]] Bytes bytes(std::uint64_t iova, std::size_t length) const {
    const auto first = memory.begin() + static_cast<std::ptrdiff_t>(iova);
    return {first, first + static_cast<std::ptrdiff_t>(length)};
  }

  Bytes memory = Bytes(size);
  std::vector<IovaRange> no_reads;
  std::vector<IovaRange> no_writes;
  std::vector<std::uint32_t> interrupts;
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::function<void()> after_write;

 private:
  static bool is_blocked(const std::vector<IovaRange>& blocked, Iova iova, std::size_t length) {
    const auto range = IovaRange::from_length(iova, length);
    return !range || range->last.value >= size ||
           std::any_of(blocked.begin(), blocked.end(), [&](IovaRange other) { return other.overlaps(*range); });
  }
};

struct Entry {
  std::uint8_t opcode = 0;
  std::uint32_t nsid = 0;
  std::uint64_t prp1 = 0;
  std::uint64_t prp2 = 0;
  std::uint32_t dword10 = 0;
  std::uint32_t dword11 = 0;
  std::uint32_t dword12 = 0;
  std::uint8_t flags = 0;
};

struct Done {
  std::uint32_t result = 0;
  std::uint16_t head = 0;
  std::uint16_t queue = 0;
  std::uint16_t id = 0;
  std::uint16_t status = 0;  // without the phase bit

  friend bool operator==(const Done&, const Done&) = default;
};

// The driver's state of a submission queue and its completion queue.
struct Pair {
  std::uint16_t id = 0;
  std::uint64_t submissions = 0;
  std::uint64_t completions = 0;
  std::uint32_t entries = 8;
  std::uint32_t completion_entries = 8;
  std::uint32_t tail = 0;
  std::uint32_t head = 0;
  std::uint16_t phase = 1;
  std::uint16_t next_id = 0;
};

class NvmeRig {
 public:
  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t list_page = 0x200000;  // free for data and lists, to the end
  static constexpr std::uint32_t enable_bits = 4U << 20 | 6U << 16 | 1;
  static constexpr std::uint64_t blocks = 1 << 20;

  explicit NvmeRig(std::uint64_t bytes = blocks * 512, const char* serial = "SIM-1")
      : nvme(make_nvme(bytes, serial)), bar_(0x1000) {
    nvme->connect(slot, {std::as_writable_bytes(std::span(bar_))});
  }

  Register<std::uint32_t>& reg(std::size_t offset) {
    return *registers_at<Register<std::uint32_t>>(std::as_writable_bytes(std::span(bar_)), offset).value();
  }
  Register<std::uint32_t>& doorbell(std::size_t index) { return reg(0x1000 + 4 * index); }
  [[nodiscard]] std::uint32_t csts() { return reg(0x1c).read(); }
  bool poll() { return nvme->poll(); }

  // Sets up the admin queues at 0x10000 and 0x20000.
  void set_admin_queue(std::uint32_t entries = 8) {
    reg(0x24).write((entries - 1) << 16 | (entries - 1));
    reg(0x28).write(0x10000);
    reg(0x2c).write(0);
    reg(0x30).write(0x20000);
    reg(0x34).write(0);
    admin = {
        .id = 0, .submissions = 0x10000, .completions = 0x20000, .entries = entries, .completion_entries = entries};
    clear(admin);
  }
  void enable() {
    set_admin_queue();
    reg(0x14).write(enable_bits);
    poll();
    ASSERT_EQ(csts(), 1U);
  }
  void disable() {
    reg(0x14).write(0);
    poll();
    ASSERT_EQ(csts(), 0U);
  }

  void submit(Pair& pair, const Entry& entry) {
    const std::uint64_t at = pair.submissions + std::uint64_t{64} * pair.tail;
    std::fill_n(slot.memory.begin() + static_cast<std::ptrdiff_t>(at), 64, std::byte{0});
    slot.put(at, entry.opcode);
    slot.put(at + 1, entry.flags);
    slot.put(at + 2, pair.next_id++);
    slot.put(at + 4, entry.nsid);
    slot.put(at + 24, entry.prp1);
    slot.put(at + 32, entry.prp2);
    slot.put(at + 40, entry.dword10);
    slot.put(at + 44, entry.dword11);
    slot.put(at + 48, entry.dword12);
    pair.tail = (pair.tail + 1) % pair.entries;
    doorbell(std::size_t{2} * pair.id).write(pair.tail);
  }
  // Rings the completion doorbell at once, or leaves that to give_back().
  std::optional<Done> reap(Pair& pair, bool gives_back = true) {
    const std::uint64_t at = pair.completions + std::uint64_t{16} * pair.head;
    const auto last = slot.get<std::uint16_t>(at + 14);
    if ((last & 1) != pair.phase) return std::nullopt;
    pair.head = (pair.head + 1) % pair.completion_entries;
    if (pair.head == 0) pair.phase ^= 1;
    if (gives_back) give_back(pair);
    return Done{.result = slot.get<std::uint32_t>(at),
                .head = slot.get<std::uint16_t>(at + 8),
                .queue = slot.get<std::uint16_t>(at + 10),
                .id = slot.get<std::uint16_t>(at + 12),
                .status = static_cast<std::uint16_t>(last >> 1)};
  }
  void give_back(const Pair& pair) { doorbell(std::size_t{2} * pair.id + 1).write(pair.head); }

  Done run(Pair& pair, const Entry& entry) {
    submit(pair, entry);
    poll();
    const auto done = reap(pair);
    if (!done) ADD_FAILURE() << "no completion of opcode " << +entry.opcode;
    return done.value_or(Done{.status = 0xffff});
  }
  std::uint16_t status_of(const Entry& entry) { return run(admin, entry).status; }
  std::uint16_t io_status(const Entry& entry) { return run(io, entry).status; }

  static Entry create_cq(std::uint32_t id, std::uint32_t entries, std::uint64_t at, std::uint32_t dword11) {
    return {.opcode = 0x05, .prp1 = at, .dword10 = (entries - 1) << 16 | id, .dword11 = dword11};
  }
  static Entry create_sq(std::uint32_t id, std::uint32_t entries, std::uint64_t at, std::uint32_t cq) {
    return {.opcode = 0x01, .prp1 = at, .dword10 = (entries - 1) << 16 | id, .dword11 = cq << 16 | 1};
  }
  // Creates both queues; interrupts use vector `id`.
  Pair make_pair(std::uint16_t id, std::uint32_t entries, std::uint32_t completion_entries) {
    Pair pair{.id = id,
              .submissions = 0x40000 + std::uint64_t{id} * 0x20000,
              .completions = 0x50000 + std::uint64_t{id} * 0x20000,
              .entries = entries,
              .completion_entries = completion_entries};
    clear(pair);
    EXPECT_EQ(status_of(create_cq(id, completion_entries, pair.completions, std::uint32_t{id} << 16 | 3)), 0);
    EXPECT_EQ(status_of(create_sq(id, entries, pair.submissions, id)), 0);
    return pair;
  }
  void start() {
    ASSERT_NO_FATAL_FAILURE(enable());
    io = make_pair(1, 8, 8);
  }

  void clear(const Pair& pair) {
    std::fill_n(slot.memory.begin() + static_cast<std::ptrdiff_t>(pair.completions), pair.completion_entries * 16,
                std::byte{0});
  }

  // A read or write of `count` blocks with data in one page.
  static Entry transfer(std::uint8_t opcode, std::uint64_t block, std::uint32_t count, std::uint64_t prp1,
                        std::uint64_t prp2 = 0) {
    return {.opcode = opcode,
            .nsid = 1,
            .prp1 = prp1,
            .prp2 = prp2,
            .dword10 = static_cast<std::uint32_t>(block),
            .dword11 = static_cast<std::uint32_t>(block >> 32),
            .dword12 = count - 1};
  }
  // The contents of up to 8 blocks of the disk.
  Bytes disk(std::uint64_t block, std::uint32_t count = 1) {
    constexpr std::uint64_t at = 0xf00000;
    EXPECT_EQ(io_status(transfer(2, block, count, at)), 0);
    return slot.bytes(at, count * std::size_t{512});
  }

  TestSlot slot;
  std::unique_ptr<Hardware> nvme;
  Pair admin;
  Pair io;

 private:
  std::vector<std::uint32_t> bar_;
};

}  // namespace postern::sim::nvme_test
