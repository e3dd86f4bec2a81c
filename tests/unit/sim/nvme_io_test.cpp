// SPDX-License-Identifier: Apache-2.0
// The simulated NVMe controller: reads and writes with every form of PRPs, invalid commands, and data that the IOMMU
// blocks.
#include <gtest/gtest.h>

#include <ostream>

#include "unit/sim/nvme_rig.hpp"

namespace postern::sim::nvme_test {
namespace nvme_io_test {

constexpr std::uint8_t flush_opcode = 0;
constexpr std::uint8_t write_opcode = 1;
constexpr std::uint8_t read_opcode = 2;

class NvmeIo : public testing::Test, public NvmeRig {
 protected:
  void SetUp() override { start(); }

  // Data in pages in random order, with PRP lists if there are more than two.
  struct Layout {
    std::uint64_t prp1 = 0;
    std::uint64_t prp2 = 0;
    std::vector<std::pair<std::uint64_t, std::size_t>> pieces;
  };
  Layout lay_out(std::uint64_t offset, std::size_t length, std::uint64_t list_offset) {
    constexpr std::uint64_t data = 0x400000;
    Layout layout;
    std::size_t left = length;
    for (std::uint64_t i = 0; left > 0; ++i) {
      const std::uint64_t at = data + (i * 37 % 256) * 2 * page + (i == 0 ? offset : 0);  // 37 and 256 are coprime
      const std::size_t part = std::min<std::size_t>(left, page - at % page);
      layout.pieces.emplace_back(at, part);
      left -= part;
    }
    layout.prp1 = layout.pieces[0].first;
    const std::size_t count = layout.pieces.size();
    if (count == 2) layout.prp2 = layout.pieces[1].first;
    if (count <= 2) return layout;
    layout.prp2 = list_page + list_offset;
    std::uint64_t entry = layout.prp2;
    std::uint64_t next_list = list_page + 3 * page;
    for (std::size_t i = 1; i < count; ++i) {
      if (entry % page == page - 8 && i + 1 < count) {
        slot.put(entry, next_list);
        entry = std::exchange(next_list, next_list - page);
      }
      slot.put(entry, layout.pieces[i].first);
      entry += 8;
    }
    return layout;
  }
  [[nodiscard]] Bytes gather(const Layout& layout) const {
    Bytes all;
    for (const auto& [at, length] : layout.pieces) {
      const Bytes part = slot.bytes(at, length);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
  void scatter(const Layout& layout, Bytes bytes) {
    auto next = bytes.begin();
    for (const auto& [at, length] : layout.pieces) {
      const auto end = next + static_cast<std::ptrdiff_t>(length);
      std::copy(next, end, slot.memory.begin() + static_cast<std::ptrdiff_t>(at));
      next = end;
    }
  }
  Bytes disk_blocks(std::uint64_t block, std::uint32_t count) {
    Bytes all;
    for (std::uint32_t i = 0; i < count; ++i) {
      const Bytes one = disk(block + i);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }
  static Bytes pattern(std::size_t length, unsigned seed) {
    Bytes bytes(length);
    for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>((i * 31 + i / 251 + seed) & 0xff);
    return bytes;
  }
};

struct Form {
  const char* name;
  std::uint64_t offset;
  std::uint32_t count;
  std::uint64_t list_offset = 0;
  friend std::ostream& operator<<(std::ostream& out, const Form& form) { return out << form.name; }
};

class NvmePrp : public NvmeIo, public testing::WithParamInterface<Form> {};

TEST_P(NvmePrp, ReadsAndWritesAllOfIt) {
  const auto& [name, offset, count, list_offset] = GetParam();
  const std::size_t length = count * std::size_t{512};
  const Layout layout = lay_out(offset, length, list_offset);
  const Bytes before = slot.memory;
  ASSERT_EQ(io_status(transfer(read_opcode, 1000, count, layout.prp1, layout.prp2)), 0);
  EXPECT_EQ(gather(layout), disk_blocks(1000, count));

  const Bytes written = pattern(length, count);
  const Bytes after = disk(1000 + count);
  scatter(layout, written);
  ASSERT_EQ(io_status(transfer(write_opcode, 1000, count, layout.prp1, layout.prp2)), 0);
  EXPECT_EQ(disk_blocks(1000, count), written);
  EXPECT_EQ(disk(1000 + count), after);

  // And nothing else.
  scatter(layout, Bytes(length));
  const auto all = [](std::uint64_t at) { return static_cast<std::ptrdiff_t>(at); };
  EXPECT_TRUE(std::equal(slot.memory.begin() + all(0x400000), slot.memory.begin() + all(0xf00000),
                         before.begin() + all(0x400000)));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, NvmePrp,
    testing::Values(Form{"block", 0, 1}, Form{"page", 0, 8}, Form{"block_at_the_end", 3584, 1}, Form{"across", 3840, 1},
                    Form{"unaligned_dword", 4, 1}, Form{"two_pages", 0, 16}, Form{"two_from_the_middle", 2048, 12},
                    Form{"three_by_the_offset", 512, 16}, Form{"list", 0, 64}, Form{"list_from_the_middle", 1536, 77},
                    Form{"longest", 0, 1024}, Form{"longest_from_the_middle", 4, 1024},
                    Form{"list_within_its_page", 0, 64, 2048}, Form{"list_to_its_page_end", 0, 24, 4096 - 16},
                    Form{"list_over_its_page_end", 0, 32, 4096 - 16}, Form{"list_that_only_chains", 0, 64, 4096 - 8},
                    Form{"longest_chained", 4, 1024, 4096 - 128 * 8}),
    [](const auto& form) { return form.param.name; });

TEST_F(NvmeIo, AWholePageOfEntriesThatIsEnoughDoesNotChain) {
  const Layout layout = lay_out(0, 5 * page, page - 32);  // 4 after the first
  ASSERT_EQ(slot.get<std::uint64_t>(list_page + page - 8), layout.pieces[4].first);
  EXPECT_EQ(io_status(transfer(read_opcode, 0, 40, layout.prp1, layout.prp2)), 0);
  EXPECT_EQ(gather(layout), disk_blocks(0, 40));
}

TEST_F(NvmeIo, PrpsThatAreNotAligned) {
  constexpr std::uint64_t data = 0x400000;
  const auto status = [&](std::uint32_t count, std::uint64_t prp1, std::uint64_t prp2) {
    return io_status(transfer(read_opcode, 0, count, prp1, prp2));
  };
  for (const std::uint64_t odd : {1U, 2U, 3U}) EXPECT_EQ(status(1, data + odd, 0), 0x013);
  EXPECT_EQ(status(16, data, data + page + 512), 0x013);
  EXPECT_EQ(status(64, data, list_page + 4), 0x013);
  Layout layout = lay_out(0, 8 * page, 0);
  slot.put(list_page + 16, layout.pieces[3].first + 8);
  EXPECT_EQ(status(64, layout.prp1, layout.prp2), 0x013);
  layout = lay_out(0, 8 * page, page - 16);
  slot.put(list_page + page - 8, list_page + page + 8);  // the next list, not at the start of its page
  EXPECT_EQ(status(64, layout.prp1, layout.prp2), 0x013);
  EXPECT_EQ(csts(), 1U);
}

TEST_F(NvmeIo, AListThatNamesItselfComesToAnEnd) {
  for (std::uint64_t at = list_page; at < list_page + page; at += 8) slot.put(at, list_page);
  EXPECT_EQ(io_status(transfer(write_opcode, 0, 1024, list_page, list_page)), 0);
  EXPECT_EQ(io_status(transfer(write_opcode, 0, 1024, list_page, list_page + page - 8)), 0);
}

TEST_F(NvmeIo, WhatIsWrongWithACommand) {
  constexpr std::uint64_t data = 0x400000;
  const Entry good = transfer(read_opcode, 0, 1, data);
  const auto status = [&](auto change) {
    Entry entry = good;
    change(entry);
    return io_status(entry);
  };
  const Bytes before = slot.bytes(data, page);
  for (const int opcode : {3, 4, 5, 8, 9, 0x0d, 0x80, 0xff}) {
    EXPECT_EQ(status([&](Entry& entry) { entry.opcode = static_cast<std::uint8_t>(opcode); }), 0x001);
  }
  for (const std::uint32_t nsid : {0U, 2U, 0xffffffffU}) {
    EXPECT_EQ(status([&](Entry& entry) { entry.nsid = nsid; }), 0x00b);
    EXPECT_EQ(io_status({.opcode = flush_opcode, .nsid = nsid}), 0x00b);
  }
  for (const int flags : {1, 2, 0x40, 0x80, 0xc0}) {
    EXPECT_EQ(status([&](Entry& entry) { entry.flags = static_cast<std::uint8_t>(flags); }), 0x002);
  }
  EXPECT_EQ(io_status(transfer(read_opcode, 0, 1025, data)), 0x002);
  EXPECT_EQ(io_status(transfer(read_opcode, 0, 65536, data)), 0x002);
  EXPECT_EQ(io_status(transfer(read_opcode, blocks, 1, data)), 0x080);
  EXPECT_EQ(io_status(transfer(write_opcode, blocks - 1, 2, data)), 0x080);
  EXPECT_EQ(io_status(transfer(write_opcode, ~std::uint64_t{0}, 1, data)), 0x080);
  EXPECT_EQ(io_status(transfer(read_opcode, ~std::uint64_t{0}, 2, data)), 0x080);
  EXPECT_EQ(slot.bytes(data, page), before);
  EXPECT_EQ(io_status(transfer(read_opcode, blocks - 1, 1, data)), 0);
  EXPECT_EQ(io_status({.opcode = flush_opcode, .nsid = 1}), 0);
}

TEST_F(NvmeIo, AReadThatIsBlockedSucceedsAndItsBytesAreDropped) {
  const Layout layout = lay_out(0, 4 * page, 0);
  const std::uint64_t blocked = layout.pieces[1].first;
  slot.no_writes = {{{blocked}, {blocked + page - 1}}};
  EXPECT_EQ(io_status(transfer(read_opcode, 0, 32, layout.prp1, layout.prp2)), 0);
  EXPECT_EQ(slot.bytes(blocked, page), Bytes(page));
  EXPECT_EQ(slot.bytes(layout.pieces[0].first, page), disk(0, 8));
  EXPECT_EQ(slot.bytes(layout.pieces[2].first, page), disk(16, 8));
  EXPECT_EQ(csts(), 1U);
}

TEST_F(NvmeIo, AWriteWhoseDataIsBlockedWritesNothing) {
  const Layout layout = lay_out(0, 4 * page, 0);
  const Bytes before = disk_blocks(0, 32);
  const std::uint64_t blocked = layout.pieces[3].first;
  slot.no_reads = {{{blocked}, {blocked + page - 1}}};
  EXPECT_EQ(io_status(transfer(write_opcode, 0, 32, layout.prp1, layout.prp2)), 0x004);
  EXPECT_EQ(disk_blocks(0, 32), before);
  EXPECT_EQ(io_status(transfer(write_opcode, 0, 24, layout.prp1, layout.prp2)), 0);
  EXPECT_EQ(disk_blocks(0, 24), Bytes(3 * page));
}

TEST_F(NvmeIo, AListThatIsBlockedIsATransferError) {
  for (const std::uint64_t list_offset : {std::uint64_t{0}, page - 16}) {
    const Layout layout = lay_out(0, 8 * page, list_offset);
    const std::uint64_t blocked = list_offset == 0 ? list_page : list_page + 3 * page;
    slot.no_reads = {{{blocked}, {blocked + page - 1}}};
    EXPECT_EQ(io_status(transfer(read_opcode, 0, 64, layout.prp1, layout.prp2)), 0x004);
    EXPECT_EQ(io_status(transfer(write_opcode, 0, 64, layout.prp1, layout.prp2)), 0x004);
    EXPECT_EQ(gather(layout), Bytes(8 * page));
    EXPECT_EQ(csts(), 1U);
  }
}

TEST_F(NvmeIo, TheDiskKeepsWhatWasWritten) {
  const Bytes written = pattern(page, 5);
  std::copy(written.begin(), written.end(), slot.memory.begin() + list_page);
  EXPECT_EQ(io_status(transfer(write_opcode, blocks - 8, 8, list_page)), 0);
  nvme->reset();
  start();
  EXPECT_EQ(disk(blocks - 8, 8), written);
}

TEST_F(NvmeIo, WhatNobodyWroteIsTheSameEachTime) {
  NvmeRig same;
  NvmeRig other(blocks * 512, "SIM-2");
  same.start();
  other.start();
  std::vector<Bytes> seen;
  for (const std::uint64_t block : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{255}, blocks - 1}) {
    EXPECT_EQ(disk(block), same.disk(block));
    seen.push_back(disk(block));
    seen.push_back(other.disk(block));
    EXPECT_NE(seen.back(), Bytes(512));
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
}

TEST_F(NvmeIo, AHugeDiskCostsNothing) {
  NvmeRig huge(std::uint64_t{1} << 63, "HUGE");
  huge.start();
  constexpr std::uint64_t last = (std::uint64_t{1} << 54) - 1;
  EXPECT_NE(huge.disk(last), huge.disk(last - 1));
  EXPECT_EQ(huge.io_status(transfer(write_opcode, last, 1, list_page)), 0);
  EXPECT_EQ(huge.disk(last), Bytes(512));
  EXPECT_EQ(huge.io_status(transfer(read_opcode, last, 2, list_page)), 0x080);
}

TEST_F(NvmeIo, AnEmptyDiskHasNoBlocks) {
  NvmeRig empty(511, "EMPTY");
  empty.start();
  EXPECT_EQ(empty.io_status(transfer(read_opcode, 0, 1, list_page)), 0x080);
}

}  // namespace nvme_io_test
}  // namespace postern::sim::nvme_test
