// SPDX-License-Identifier: Apache-2.0
// LayoutChange, compared with a model that records each page; and the merging of adjacent pieces.
#include "core/guest_memory/layout.hpp"

#include <gmock/gmock.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

namespace postern::guest_memory {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;

Iova iova(std::uint64_t number) { return Iova{number * page}; }
IovaRange range(std::uint64_t first, std::uint64_t pages) { return {iova(first), iova(first + pages) - 1}; }
// An address for page `number`; never accessed.
std::byte* address(std::uint64_t number) { return reinterpret_cast<std::byte*>(0x7f00'0000'0000 + number * page); }
Memory memory(std::uint64_t number, std::uint64_t pages) { return std::span(address(number), pages * page); }

class Layout : public ::testing::Test {
 protected:
  // Commits as GuestMemory does.
  void commit(LayoutChange& change) {
    change.coalesce();
    auto addresses = GuestLayout::addresses_of(change.incoming());
    layout_.replace(change.outgoing(), change.incoming(), addresses);
  }
  void add(std::uint64_t first, std::uint64_t from, std::uint64_t pages) {
    LayoutChange change(layout_);
    ASSERT_TRUE(change.add(iova(first), memory(from, pages), Access::read_write));
    commit(change);
  }

  GuestLayout layout_;
};

std::shared_ptr<const Fd> a_file() {
  return std::make_shared<const Fd>(system_kernel(), system_kernel().memfd_create("layout", 0));
}

TEST_F(Layout, AdjacentPiecesOfOneMemoryBecomeOne) {
  LayoutChange change(layout_);
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_TRUE(change.add(iova(i), memory(i, 1), Access::read_write));
  commit(change);
  ASSERT_EQ(layout_.pieces().size(), 1U);
  EXPECT_EQ(layout_.pieces().begin()->second.range, range(0, 1000));
  EXPECT_EQ(layout_.pieces().begin()->second.memory.length(), 1000 * page);
  EXPECT_EQ(layout_.total_length(), 1000 * page);
}

TEST_F(Layout, AGranuleStaysApartFromWhatLiesBesideIt) {
  LayoutChange change(layout_);
  ASSERT_TRUE(change.add(iova(0), memory(0, 4), Access::read_write));
  ASSERT_TRUE(change.add_sparse(iova(4), memory(4, 4), 2 * page, Access::read_write));
  ASSERT_TRUE(change.add(iova(8), memory(8, 4), Access::read_write));
  ASSERT_TRUE(change.populate(range(4, 4)));
  commit(change);
  ASSERT_EQ(layout_.pieces().size(), 4U) << "one mapping would have to be unmapped as a whole";
  EXPECT_EQ(layout_.find(iova(0))->range, range(0, 4));
  EXPECT_EQ(layout_.find(iova(4))->range, range(4, 2));
  EXPECT_EQ(layout_.find(iova(8))->range, range(8, 4));
}

TEST_F(Layout, MemoryThatNoFileCanHaveIsRefused) {
  LayoutChange change(layout_);
  const auto add = [&](const Memory& memory) { return change.add(iova(0), memory, Access::read).error().code(); };
  EXPECT_EQ(add(Memory::of_file(nullptr, 0, page)), EBADF);
  EXPECT_EQ(add(Memory::of_dma_buf(nullptr, 0, page)), EBADF);
  EXPECT_EQ(add(Memory::of_file(std::make_shared<const Fd>(), 0, page)), EBADF) << "an Fd without a descriptor";
  EXPECT_EQ(add(Memory::of_file(a_file(), ~std::uint64_t{0} - page + 1, 2 * page)), EOVERFLOW);
}

TEST_F(Layout, TheWholeAddressSpaceIsARange) {
  LayoutChange change(layout_);
  const IovaRange everything{{0}, {~std::uint64_t{0}}};
  const auto removed = change.remove(everything);
  EXPECT_EQ(removed.error().code(), ENOENT);
  EXPECT_THAT(removed.error().message(), HasSubstr("there is none at 0x0"));
  EXPECT_EQ(change.populate(everything).error().code(), ENOENT);
  EXPECT_THAT(change.populate({iova(2), iova(1) - 1}).error().message(), HasSubstr("below first"));
}

TEST_F(Layout, AdjacentPiecesOfOtherMemoryStayApart) {
  const auto file = a_file();
  const auto other = a_file();
  LayoutChange change(layout_);
  ASSERT_TRUE(change.add(iova(0), memory(0, 1), Access::read_write));
  ASSERT_TRUE(change.add(iova(1), memory(2, 1), Access::read_write));                     // not adjacent
  ASSERT_TRUE(change.add(iova(2), memory(3, 1), Access::read));                           // different access
  ASSERT_TRUE(change.add(iova(3), Memory::of_file(file, 0, page), Access::read));         // a file
  ASSERT_TRUE(change.add(iova(4), Memory::of_file(file, page, page), Access::read));      // adjacent
  ASSERT_TRUE(change.add(iova(5), Memory::of_file(file, 3 * page, page), Access::read));  // not adjacent
  ASSERT_TRUE(change.add(iova(6), Memory::of_file(other, 4 * page, page), Access::read));
  ASSERT_TRUE(change.add(iova(7), Memory::of_dma_buf(other, 0, page), Access::read));
  ASSERT_TRUE(change.add(iova(8), Memory::of_dma_buf(other, page, page), Access::read));
  commit(change);
  EXPECT_EQ(layout_.pieces().size(), 8U);
  EXPECT_EQ(layout_.find(iova(4))->range, range(3, 2));
}

TEST_F(Layout, WhatIsAddedAgainAsItWasIsNoChange) {
  add(0, 0, 8);
  LayoutChange change(layout_);
  ASSERT_TRUE(change.remove(range(2, 2)));
  EXPECT_EQ(change.outgoing().size(), 1U);
  EXPECT_EQ(change.incoming().size(), 2U);
  ASSERT_TRUE(change.add(iova(2), memory(2, 2), Access::read_write));
  change.coalesce();
  EXPECT_TRUE(change.outgoing().empty());
  EXPECT_TRUE(change.incoming().empty());
}

TEST_F(Layout, AHoleIsNamed) {
  add(0, 0, 4);
  add(5, 5, 4);
  LayoutChange change(layout_);
  const auto removed = change.remove(range(2, 6));
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code(), ENOENT);
  EXPECT_THAT(removed.error().message(), HasSubstr("there is none at 0x4000"));
  EXPECT_EQ(change.set_access(range(4, 1), Access::read).error().code(), ENOENT);
  ASSERT_TRUE(change.remove(range(1, 1)));
  EXPECT_THAT(change.remove(range(0, 3)).error().message(), HasSubstr("there is none at 0x1000"));
}

TEST_F(Layout, WhatOverlapsIsNamed) {
  add(4, 0, 4);
  LayoutChange change(layout_);
  const auto added = change.add(iova(7), memory(100, 2), Access::read_write);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code(), EEXIST);
  EXPECT_THAT(added.error().message(), HasSubstr("overlaps 0x4000-0x7fff"));
  ASSERT_TRUE(change.add(iova(8), memory(100, 2), Access::read_write));
  EXPECT_EQ(change.add(iova(9), memory(200, 1), Access::read_write).error().code(), EEXIST);
  ASSERT_TRUE(change.remove(range(7, 1)));
  EXPECT_TRUE(change.add(iova(7), memory(300, 1), Access::read_write));
}

TEST_F(Layout, WhatIsNoAccessIsRefused) {
  add(0, 0, 4);
  LayoutChange change(layout_);
  for (const int access : {0, 4, 9}) {
    EXPECT_EQ(change.add(iova(8), memory(0, 1), static_cast<Access>(access)).error().code(), EINVAL);
    EXPECT_EQ(change.set_access(range(0, 1), static_cast<Access>(access)).error().code(), EINVAL);
  }
}

TEST_F(Layout, WhatIsNoWholePageIsRefused) {
  LayoutChange change(layout_);
  EXPECT_EQ(change.add(Iova{1}, memory(0, 1), Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add(iova(0), std::span(address(0), 1), Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add(iova(0), std::span(address(0) + 1, page), Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add(iova(0), std::span(address(0), 0), Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add(Iova{0} - page, memory(0, 2), Access::read).error().code(), EOVERFLOW);
  EXPECT_EQ(change.remove({Iova{5}, Iova{4}}).error().code(), EINVAL);
  const auto inverted = change.remove({iova(16), Iova{page}});
  ASSERT_FALSE(inverted);
  EXPECT_EQ(inverted.error().code(), EINVAL);
  EXPECT_THAT(inverted.error().message(), HasSubstr("0x10000-0x1000: last is below first; ranges end with their last"));
  EXPECT_TRUE(change.add(Iova{0} - page, memory(0, 1), Access::read)) << "the last page of all";
  EXPECT_TRUE(change.remove({Iova{0} - page, Iova{0} - 1}));
  EXPECT_TRUE(change.incoming().empty());
}

TEST_F(Layout, AByteIsFoundWhereTheGuestSeesIt) {
  add(100, 10, 10);
  add(50, 12, 2);   // the same memory, at a lower address
  add(200, 40, 1);  // after all others
  EXPECT_EQ(layout_.find(address(12) + 5), iova(50) + 5);
  EXPECT_EQ(layout_.find(address(10)), iova(100));
  EXPECT_EQ(layout_.find(address(19) + (page - 1)), iova(110) - 1);
  EXPECT_EQ(layout_.find(address(20)), std::nullopt);
  EXPECT_EQ(layout_.find(address(9) + (page - 1)), std::nullopt);
  LayoutChange change(layout_);
  ASSERT_TRUE(change.remove(range(50, 1)));
  commit(change);
  EXPECT_EQ(layout_.find(address(12)), iova(102));
  EXPECT_EQ(layout_.find(address(13)), iova(51));
}

class Sparse : public Layout {
 protected:
  void SetUp() override {
    LayoutChange change(layout_);
    EXPECT_EQ(change.add_sparse(iova(16), memory(0, 16), 2 * page, Access::read_write).value(), 2 * page);
    commit(change);
  }
  void commit(LayoutChange& change) {
    Layout::commit(change);
    layout_.set_sparse(std::move(change.sparse()));
  }
};

TEST_F(Sparse, GranulesComeAndGoByThemselves) {
  EXPECT_TRUE(layout_.pieces().empty());
  LayoutChange change(layout_);
  ASSERT_TRUE(change.populate(range(18, 6)));
  commit(change);
  EXPECT_EQ(layout_.pieces().size(), 3U) << "each is a mapping, though they are adjacent";
  EXPECT_EQ(layout_.find(iova(20))->memory.address(), address(4));
  LayoutChange less(layout_);
  ASSERT_TRUE(less.discard(range(20, 2)));
  less.coalesce();
  EXPECT_EQ(less.outgoing().size(), 1U) << "the others stay mapped";
  EXPECT_TRUE(less.incoming().empty());
}

TEST_F(Sparse, WhatIsPopulatedTwiceOrNotAtAllIsNamed) {
  LayoutChange change(layout_);
  ASSERT_TRUE(change.populate(range(20, 2)));
  const auto twice = change.populate(range(18, 4));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), EEXIST);
  EXPECT_THAT(twice.error().message(), HasSubstr("0x14000-0x15fff is populated already"));
  const auto missing = change.discard(range(16, 16));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ENOENT);
  EXPECT_THAT(missing.error().message(), HasSubstr("0x10000 is not populated"));
  EXPECT_TRUE(change.populate(range(18, 2))) << "the failed step changed nothing";
}

TEST_F(Sparse, TakesWholeGranulesOfItsOwn) {
  LayoutChange change(layout_);
  const auto odd = change.populate(range(17, 2));
  ASSERT_FALSE(odd);
  EXPECT_THAT(odd.error().message(), HasSubstr("granules of 8 KiB, from 0x10000 on"));
  EXPECT_EQ(change.populate(range(30, 4)).error().code(), ENOENT);
  EXPECT_EQ(change.populate(range(0, 2)).error().code(), ENOENT);
  EXPECT_EQ(change.add(iova(31), memory(100, 2), Access::read).error().code(), EEXIST) << "the place is taken";
  EXPECT_EQ(change.set_access(range(16, 16), Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add_sparse(iova(64), memory(0, 16), 3 * page, Access::read).error().code(), EINVAL);
  EXPECT_EQ(change.add_sparse(iova(64), memory(0, 15), 2 * page, Access::read).error().code(), EINVAL);
}

TEST_F(Sparse, IsRemovedAsAWhole) {
  LayoutChange change(layout_);
  ASSERT_TRUE(change.populate(range(18, 2)));
  commit(change);
  LayoutChange gone(layout_);
  EXPECT_EQ(gone.remove(range(18, 2)).error().code(), EINVAL);
  EXPECT_EQ(gone.remove(range(16, 17)).error().code(), ENOENT);
  ASSERT_TRUE(gone.remove(range(16, 16)));
  commit(gone);
  EXPECT_TRUE(layout_.pieces().empty());
  EXPECT_TRUE(layout_.sparse().empty());
}

TEST_F(Sparse, TakesNoMoreMappingsThanAContainerHas) {
  LayoutChange change(layout_);
  const Memory large(std::span(address(0), std::uint64_t{1} << 40));
  const auto granule = change.add_sparse(Iova{std::uint64_t{1} << 40}, large, 2 << 20, Access::read_write);
  EXPECT_EQ(granule.value(), std::uint64_t{64} << 20);
}

// For each page of the guest, its page of memory and the access.
using Model = std::map<std::uint64_t, std::pair<const std::byte*, Access>>;

Model model_of(const Pieces& pieces) {
  Model model;
  for (const auto& [first, piece] : pieces) {
    EXPECT_EQ(first, piece.range.first);
    EXPECT_EQ(piece.memory.length(), piece.range.length());
    for (std::uint64_t at = 0; at < piece.range.length(); at += page) {
      const bool is_new =
          model.emplace((first.value + at) / page, std::pair(piece.memory.address() + at, piece.access)).second;
      EXPECT_TRUE(is_new) << "pieces overlap";
    }
  }
  return model;
}

TEST_F(Layout, AnyStepsGiveWhatAModelGives) {
  std::mt19937_64 random(20261129);
  const auto below = [&](std::uint64_t end) { return random() % end; };
  Model model;
  for (int transaction = 0; transaction < 400; ++transaction) {
    LayoutChange change(layout_);
    Model next = model;
    for (std::uint64_t step = below(8); step-- > 0;) {
      const std::uint64_t pages = 1 + below(8);
      const std::uint64_t first = below(64);
      const auto from = next.lower_bound(first);
      const auto to = next.lower_bound(first + pages);
      const auto present = static_cast<std::uint64_t>(std::distance(from, to));
      if (below(2) == 0) {
        const std::uint64_t source = first + 64 * below(2);
        const bool done = change.add(iova(first), memory(source, pages), Access::read_write).has_value();
        ASSERT_EQ(done, present == 0);
        for (std::uint64_t i = 0; done && i < pages; ++i) next[first + i] = {address(source + i), Access::read_write};
      } else if (below(2) == 0) {
        const bool done = change.remove(range(first, pages)).has_value();
        ASSERT_EQ(done, present == pages);
        if (done) next.erase(from, to);
      } else {
        const Access access = below(2) == 0 ? Access::read : Access::read_write;
        const bool done = change.set_access(range(first, pages), access).has_value();
        ASSERT_EQ(done, present == pages);
        for (auto each = from; done && each != to; ++each) each->second.second = access;
      }
    }
    if (below(4) == 0) continue;  // drops the change
    commit(change);
    model = std::move(next);
    ASSERT_EQ(model_of(layout_.pieces()), model);
    ASSERT_EQ(layout_.total_length(), model.size() * page);
    const std::uint64_t probe = below(128);
    const auto found = layout_.find(address(probe));
    const auto expected =
        std::find_if(model.begin(), model.end(), [&](const auto& each) { return each.second.first == address(probe); });
    ASSERT_EQ(found, expected == model.end() ? std::nullopt : std::optional(iova(expected->first)));
  }
}

}  // namespace
}  // namespace postern::guest_memory
