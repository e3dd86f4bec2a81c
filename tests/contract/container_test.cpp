// SPDX-License-Identifier: Apache-2.0
// The contract of Container on the kernel under test, for each backend.
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <algorithm>
#include <postern/dirty_tracker.hpp>
#include <postern/dma_windows.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/preregistration.hpp>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace container_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

class ContainerOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  ContainerOnKernel() : bound_(test::first_nvme()), before_(ResourceUse::now()) {
    device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
  }
  ~ContainerOnKernel() override {
    EXPECT_TRUE(device_->detach());
    device_.reset();
    memory_.clear();
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  Container& container() { return *device_->container(); }
  std::span<std::byte> memory(std::size_t length) {
    void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(address, MAP_FAILED);
    memory_.emplace_back(test::kernel(), address, length);
    return memory_.back().bytes();
  }
  std::string_view backend() { return GetParam().backend; }
  [[nodiscard]] std::string device_name() const { return bound_.host().name; }

  Bound bound_;
  ResourceUse before_;
  std::optional<Device> device_;
  std::vector<Mmap> memory_;
};

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};  // usable with every IOMMU

TEST_P(ContainerOnKernel, TellsUsableRangesPageSizesAndItsBackend) {
  EXPECT_EQ(container().backend(), backend());
  EXPECT_FALSE(container().usable_ranges().empty());
  EXPECT_NE(container().page_sizes() & page, 0U);
  ASSERT_EQ(container().devices().size(), 1U);
  EXPECT_EQ(container().devices().front().name, device_name());
}

TEST_P(ContainerOnKernel, MapsAndUnmapsForEachKindOfAccess) {
  for (const Access access : {Access::read, Access::write, Access::read_write}) {
    ASSERT_TRUE(container().map(base, memory(16 * page), access)) << to_string(access);
    EXPECT_EQ(container().mapping_count(), 1U);
    ASSERT_TRUE(container().unmap(base, 16 * page));
    EXPECT_EQ(container().mapping_count(), 0U);
  }
}

TEST_P(ContainerOnKernel, UnmapsSeveralMappingsWithHolesBetweenThemAtOnce) {
  ASSERT_TRUE(container().map(base, memory(page)));
  ASSERT_TRUE(container().map(base + 4 * page, memory(2 * page)));
  ASSERT_TRUE(container().unmap(base, 8 * page));
  EXPECT_EQ(container().mapping_count(), 0U);
  ASSERT_TRUE(container().map(base + 4 * page, memory(page))) << "the kernel forgot it too";
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, UnmapAllLeavesNothingMappedInTheKernelEither) {
  for (std::uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(container().map(base + 2 * i * page, memory(page)));
  ASSERT_TRUE(container().unmap_all());
  EXPECT_EQ(container().mapping_count(), 0U);
  ASSERT_TRUE(container().map(base, memory(200 * page)));
  ASSERT_TRUE(container().unmap_all());
  ASSERT_TRUE(container().unmap_all()) << "of nothing is no error";
}

TEST_P(ContainerOnKernel, MapsBothEndsOfTheUsableRanges) {
  for (const IovaRange range : container().usable_ranges()) {
    ASSERT_TRUE(container().map(range.first, memory(page))) << to_string(range);
    const Iova last_page{(range.last.value & ~(page - 1))};
    ASSERT_TRUE(container().map(last_page, memory(page))) << to_string(range);
  }
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, AnUnalignedIovaAddressOrLengthIsRefusedAndNamed) {
  const auto bytes = memory(2 * page);
  const auto iova = container().map(base + 1, bytes);
  const auto address = container().map(base, bytes.subspan(16, page));
  const auto length = container().map(base, bytes.first(page + 1));
  for (const auto* refused : {&iova, &address, &length}) {
    ASSERT_FALSE(*refused);
    EXPECT_EQ(refused->error().code(), EINVAL);
    EXPECT_THAT(refused->error().message(), HasSubstr("4 KiB"));
  }
  EXPECT_THAT(iova.error().message(), HasSubstr("iova 0x10000001"));
  EXPECT_THAT(address.error().message(), HasSubstr("address 0x"));
  EXPECT_THAT(length.error().message(), HasSubstr("length 0x1001"));
  EXPECT_FALSE(container().unmap(base + 1, page));
  EXPECT_FALSE(container().unmap(base, page + 1));
}

TEST_P(ContainerOnKernel, NothingCannotBeMappedOrUnmapped) {
  auto refused = container().map(base, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("length is zero"));
  EXPECT_THAT(container().unmap(base, 0).error().message(), HasSubstr("length is zero"));
}

TEST_P(ContainerOnKernel, MappingOverAnExistingMappingFailsWithEexistAndNamesBoth) {
  ASSERT_TRUE(container().map(base, memory(4 * page)));
  auto refused = container().map(base + 3 * page, memory(2 * page));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EEXIST);
  EXPECT_THAT(refused.error().message(), HasSubstr("0x10003000-0x10004fff"));
  EXPECT_THAT(refused.error().message(), HasSubstr("0x10000000-0x10003fff"));
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, MappingOutsideTheUsableRangesFailsWithErangeAndNamesThem) {
  const Iova past = container().usable_ranges().back().last + 1;
  for (const Iova iova : {past, Iova{~std::uint64_t{0} - page + 1}}) {
    auto refused = container().map(iova, memory(page));
    ASSERT_FALSE(refused) << to_string(iova);
    EXPECT_EQ(refused.error().code(), ERANGE) << refused.error().message();
    EXPECT_THAT(refused.error().message(), HasSubstr(to_string(container().usable_ranges().back())));
  }
}

TEST_P(ContainerOnKernel, ARangePastTheLastAddressIsRefusedWithEoverflow) {
  const Iova last_page{~std::uint64_t{0} - page + 1};
  EXPECT_EQ(container().map(last_page, memory(2 * page)).error().code(), EOVERFLOW);
  EXPECT_EQ(container().unmap(last_page, 2 * page).error().code(), EOVERFLOW);
  auto* const last_byte = reinterpret_cast<std::byte*>(last_page.value);
  for (const std::uint64_t length : {2 * page, ~(page - 1)}) {
    EXPECT_EQ(container().map(base, std::span(last_byte, length)).error().code(), EOVERFLOW) << length;
  }
  EXPECT_EQ(container().mapping_count(), 0U);
  if (auto* const tracker = container().get<DirtyTracker>()) {
    ASSERT_TRUE(container().map(base, memory(page)));
    ASSERT_TRUE(tracker->start());
    std::uint64_t word = 0;
    const DirtyBitmap bitmap{page, std::span(&word, 1)};
    EXPECT_EQ(tracker->query({last_page, {page - 1}}, bitmap).error().code(), EINVAL) << "it ends before it begins";
    EXPECT_EQ(tracker->unmap(last_page, 2 * page, bitmap).error().code(), EOVERFLOW);
    EXPECT_TRUE(tracker->stop());
    ASSERT_TRUE(container().unmap(base, page));
  }
  if (auto* const registered = container().get<Preregistration>()) {
    EXPECT_EQ(registered->add({reinterpret_cast<std::byte*>(~std::uint64_t{0xffff}), 0x20000}).error().code(),
              EOVERFLOW);
  }
}

// These ranges equal sentinels of the shadow map's tree.
TEST_P(ContainerOnKernel, AnUnmapOfWhatNoMappingCanBeChangesNothing) {
  constexpr std::uint64_t most = ~std::uint64_t{0};
  const auto bytes = memory(page);
  std::vector<IovaRange> live;
  const auto expect_nothing_changes = [&] {
    EXPECT_EQ(container().unmap({0}, most).error().code(), EINVAL);
    EXPECT_EQ(container().unmap({0}, 0).error().code(), EINVAL);
    EXPECT_EQ(container().unmap({most}, 2).error().code(), EINVAL);
    EXPECT_EQ(container().unmap({most}, 1).error().code(), EINVAL);
    std::vector<IovaRange> found;
    container().for_each_mapping([&](const Mapping& mapping) { found.push_back(mapping.range); });
    EXPECT_EQ(found, live);
  };
  expect_nothing_changes();
  for (std::uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(container().map(base + (i << 20), bytes));
    live.push_back({base + (i << 20), base + (i << 20) + (page - 1)});
    expect_nothing_changes();
  }
  while (!live.empty()) {
    ASSERT_TRUE(container().unmap(live.front().first, page)) << "the kernel has it still";
    live.erase(live.begin());
    expect_nothing_changes();
  }
}

TEST_P(ContainerOnKernel, UnmappingPartOfAMappingIsRefusedAndNamesIt) {
  ASSERT_TRUE(container().map(base, memory(4 * page)));
  for (const std::uint64_t offset : {std::uint64_t{0}, page, 3 * page}) {
    auto refused = container().unmap(base + offset, page);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EINVAL);
    EXPECT_THAT(refused.error().message(), HasSubstr("0x10000000-0x10003fff"));
  }
  EXPECT_EQ(container().mapping_count(), 1U);
  ASSERT_TRUE(container().unmap(base, 4 * page));
}

TEST_P(ContainerOnKernel, UnmappingWhatIsNotMappedFailsWithEnoent) {
  auto refused = container().unmap(base, page);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOENT);
}

TEST_P(ContainerOnKernel, MemoryThatIsNotThereIsRefusedAndNothingIsMapped) {
  auto bytes = memory(page);
  const std::span<std::byte> gone(bytes.data(), page);
  memory_.clear();
  auto refused = container().map(base, gone);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EFAULT) << refused.error().message();
  // type1 maps a BAR by its address; sPAPR cannot map one at all.
  EXPECT_EQ(refused.error().remedies().contains(RemedyCode::map_bar_as_dma_buf), backend() == "iommufd");
  EXPECT_EQ(refused.error().message().find("iommufd") != std::string::npos, backend() == "iommufd");
  EXPECT_EQ(container().mapping_count(), 0U);
  ASSERT_TRUE(container().map(base, memory(page))) << "the place is free";
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, ReadOnlyMemoryCannotBeMappedForWriting) {
  auto bytes = memory(page);
  ASSERT_EQ(::mprotect(bytes.data(), page, PROT_READ), 0);
  EXPECT_EQ(container().map(base, bytes, Access::read_write).error().code(), EFAULT);
  // sPAPR pins for writing, whatever the access (tce_iommu_use_page; mm_iommu_do_alloc).
  const bool pins_for_writing = backend() == "spapr";
  EXPECT_EQ(container().map(base, bytes, Access::read).has_value(), !pins_for_writing);
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, TheMappingLimitIsToldAndKept) {
  if (!container().mapping_limit()) {
    EXPECT_NE(backend(), "type1") << "the others take as many as memory allows";
    EXPECT_FALSE(container().mappings_left());
    return;
  }
  const std::uint64_t limit = *container().mapping_limit();
  EXPECT_EQ(limit, 65535U);
  const auto bytes = memory(page);
  for (std::uint64_t i = 0; i < limit; ++i) ASSERT_TRUE(container().map(base + i * page, bytes)) << i;
  EXPECT_EQ(container().mappings_left(), 0U);
  auto refused = container().map(base + limit * page, bytes);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOSPC);
  EXPECT_THAT(refused.error().message(), HasSubstr("65535"));
  EXPECT_THAT(refused.error().message(), HasSubstr("dma_entry_limit"));
  ASSERT_TRUE(container().unmap(base, page));
  EXPECT_EQ(container().mappings_left(), 1U);
  EXPECT_TRUE(container().map(base + limit * page, bytes));
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, IovasOfTheAllocatorCanAllBeMapped) {
  IovaAllocator iovas(container().usable_ranges(), container().page_sizes());
  for (const std::uint64_t length : {page, std::uint64_t{2} << 20, 3 * page, std::uint64_t{4} << 20}) {
    const Iova iova = iovas.allocate(length).value();
    EXPECT_TRUE(container().map(iova, memory(length))) << to_string(iova);
  }
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(ContainerOnKernel, CannotBeClosedUnderADeviceAndNamesIt) {
  auto refused = container().close();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().message(), HasSubstr(device_name()));
}

TEST_P(ContainerOnKernel, ADeviceCannotBeUsedAfterItWasDetachedNorItsContainerAfterItWasClosed) {
  const auto kept = device_->container();
  ASSERT_TRUE(kept->map(base, memory(page)));
  ASSERT_TRUE(device_->detach());
  std::byte byte{};
  EXPECT_EQ(device_->read(7, 0, std::span(&byte, 1)).error().code(), EBADF);
  EXPECT_EQ(device_->reset().error().code(), EBADF);
  EXPECT_EQ(device_->detach().error().code(), EBADF);
  EXPECT_EQ(kept->map(base + page, memory(page)).error().code(), ENODEV);
  ASSERT_TRUE(kept->close());
  EXPECT_EQ(kept->map(base, memory(page)).error().code(), EBADF);
  EXPECT_EQ(kept->unmap(base, page).error().code(), EBADF);
  EXPECT_EQ(kept->unmap_all().error().code(), EBADF);
  device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
}

TEST_P(ContainerOnKernel, ADeviceThatIsInItAlreadyIsRefused) {
  EXPECT_EQ(attach(test::kernel(), bound_.host(), {.container = device_->container()}).error().code(), EBUSY);
}

TEST_P(ContainerOnKernel, RemembersItsMappingsFromTheLastDeviceToTheNext) {
  const auto kept = device_->container();
  const auto bytes = memory(page);
  const auto limit = kept->mapping_limit();
  ASSERT_TRUE(kept->map(base, bytes));
  ASSERT_TRUE(device_->detach());
  EXPECT_EQ(kept->mapping_count(), 1U);
  device_.emplace(attach(test::kernel(), bound_.host(), {.container = kept}).value());
  EXPECT_EQ(kept->mapping_count(), 1U);
  EXPECT_EQ(kept->mapping_limit(), limit);
  ASSERT_TRUE(kept->unmap(base, page)) << "the kernel has it again";
}

// A disk's writes are tracked by page only by dirty bits of the IOMMU, which only iommufd uses.
TEST_P(ContainerOnKernel, SaysWhereNoSinglePagesAreTracked) {
  auto* const tracker = container().get<DirtyTracker>();
  if (tracker == nullptr) GTEST_SKIP() << "no dirty tracking";
  ASSERT_TRUE(container().map(base, memory(page)));
  ASSERT_TRUE(tracker->start());
  const TrackedDevice device = tracker->devices().at(0);
  EXPECT_EQ(device.marks_everything, backend() == "type1");
  const bool tracks_pages = device.source != DirtySource::none && !device.marks_everything;
  std::uint64_t word = 0;
  const auto answer = tracker->query({base, base + (page - 1)}, {page, std::span(&word, 1)});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, tracks_pages ? DirtyAnswer::pages : DirtyAnswer::everything);
  EXPECT_EQ(word, tracks_pages ? 0U : 1U);
  const auto unmapped = tracker->unmap(base, page, {page, std::span(&word, 1)});
  ASSERT_TRUE(unmapped) << unmapped.error().message();
  EXPECT_EQ(*unmapped, *answer);
  EXPECT_TRUE(tracker->stop());
}

TEST_P(ContainerOnKernel, ARefusalNamesNoCallAndNoneWasMade) {
  ASSERT_TRUE(device_->detach());
  device_.reset();
  test::WatchedKernel watched(test::kernel());
  {
    const Device device = attach(watched, bound_.host(), test::options_for(GetParam())).value();
    const auto kept = device.container();
    const auto bytes = memory(4 * page);
    ASSERT_TRUE(kept->map(base, bytes));
    const auto expect_refused = [&](const auto& refuse, int code) {
      watched.begin(-1, 0);
      const auto refused = refuse();
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().code(), code) << refused.error().message();
      EXPECT_TRUE(refused.error().refused()) << refused.error().message();
      EXPECT_THAT(refused.error().message(), HasSubstr("refused: " + errno_name(code)));
      EXPECT_TRUE(watched.calls_made().empty()) << watched.last_call();
    };
    expect_refused([&] { return kept->map(base + 1, bytes); }, EINVAL);
    expect_refused([&] { return kept->map(base, {}); }, EINVAL);
    expect_refused([&] { return kept->map(base + 2 * page, bytes); }, EEXIST);
    for (const int number : {0, 4, 9}) {
      const auto access = static_cast<Access>(number);
      expect_refused([&] { return kept->map(base + 8 * page, bytes, access); }, EINVAL);
      expect_refused([&] { return kept->map(base + 8 * page, Memory(bytes), access); }, EINVAL);
      expect_refused([&] { return kept->map_anywhere(bytes, access); }, EINVAL);
    }
    expect_refused([&] { return kept->map_anywhere(bytes, Access::read, {{0x100000}, {page}}); }, EINVAL);
    expect_refused([&] { return kept->map(kept->usable_ranges().back().last + 1, bytes); }, ERANGE);
    expect_refused([&] { return kept->unmap(base, 0); }, EINVAL);
    expect_refused([&] { return kept->unmap(base, page); }, EINVAL);
    expect_refused([&] { return kept->unmap(base + 8 * page, page); }, ENOENT);
    expect_refused([&] { return kept->close(); }, EBUSY);
    expect_refused([&] { return attach(watched, bound_.host(), {.container = kept}); }, EBUSY);
    expect_refused([&] { return device.read(99, 0, {}); }, ENODEV);
    expect_refused([&] { return device.map_region(0, 1, page); }, EINVAL);
    expect_refused([&] { return device.enable_interrupts(99, 0, {}); }, ENODEV);
    if (auto* const tracker = kept->get<DirtyTracker>()) {
      expect_refused([&] { return tracker->stop(); }, EINVAL);
      expect_refused([&] { return tracker->query({base, base + (page - 1)}, {}); }, EINVAL);
    }
    if (auto* const windows = kept->get<DmaWindows>()) {
      expect_refused([&] { return windows->remove({page}); }, ENOENT);
      expect_refused([&] { return windows->create({.size = 3 * page, .page_size = page}); }, EINVAL);
    }
    if (auto* const registered = kept->get<Preregistration>()) {
      expect_refused([&] { return registered->add({}); }, EINVAL);
      expect_refused([&] { return registered->remove(bytes.first(page)); }, ENOENT);
    }
    ASSERT_TRUE(kept->unmap_all());
  }
  device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
}

// Hides VFIO_UNMAP_ALL, as a kernel before Linux 5.10.
TEST_P(ContainerOnKernel, UnmapAllAfterARefusalUnmapsWhatIsLeft) {
  ASSERT_TRUE(device_->detach());
  device_.reset();
  sim::FailingKernel old(test::kernel());
  old.answer = [](unsigned long request, void* argument, int result) {
    const bool unmaps_all = reinterpret_cast<std::uintptr_t>(argument) == VFIO_UNMAP_ALL;
    return request == VFIO_CHECK_EXTENSION && unmaps_all ? 0 : result;
  };
  {
    const Device device = attach(old, bound_.host(), test::options_for(GetParam())).value();
    const auto& kept = device.container();
    for (const int refused : {1, 3}) {
      for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(kept->map(base + 2 * i * page, memory(page)));
      int unmaps = 0;
      old.refuse = [&](unsigned long request, void*) {
        const bool is_unmap = backend() == "iommufd" ? request == IOMMU_IOAS_UNMAP : request == VFIO_IOMMU_UNMAP_DMA;
        return is_unmap && ++unmaps == refused ? -EINTR : 0;
      };
      const auto first = kept->unmap_all();
      if (backend() != "iommufd" || refused == 1) {  // iommufd unmaps all in one call
        EXPECT_EQ(first.error().code(), EINTR);
      }
      EXPECT_TRUE(kept->unmap_all());
      EXPECT_EQ(kept->mapping_count(), 0U);
      old.refuse = nullptr;
    }
    ASSERT_TRUE(kept->map(base, memory(16 * page))) << "the kernel has nothing there any more";
    ASSERT_TRUE(kept->unmap_all());
  }
  device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
}

// Ranges that wrap around to end at 0 equal sentinels of the shadow map's tree.
TEST_P(ContainerOnKernel, UnmapsNothingWhereARangeWraps) {
  const auto piece = memory(16 * page);
  const auto refuse_all = [&] {
    for (const std::uint64_t first : {~std::uint64_t{0}, ~std::uint64_t{0} - 1, base.value, base.value + page, page}) {
      for (const std::uint64_t length : {1 - first, 2 - first, page - first, ~std::uint64_t{0}, std::uint64_t{0}}) {
        EXPECT_FALSE(container().unmap({first}, length)) << first << "+" << length;
      }
    }
    EXPECT_FALSE(container().unmap({0}, 0));
  };
  refuse_all();
  ASSERT_TRUE(container().map(base, piece));
  refuse_all();
  EXPECT_EQ(container().mapping_count(), 1U);
  ASSERT_TRUE(container().unmap(base, 16 * page));
  refuse_all();
}

INSTANTIATE_TEST_SUITE_P(Backends, ContainerOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace container_test
}  // namespace postern
