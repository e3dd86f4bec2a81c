// SPDX-License-Identifier: Apache-2.0
// The contract of GuestMemory for each backend: every container maps the layout, whatever call fails and whichever
// devices are attached or detached; and devices access the same memory as the guest.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <postern-nvme/controller.hpp>
#include <postern-sim/faults.hpp>
#include <postern/guest_memory.hpp>

#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace guest_memory_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 65536;  // a multiple of every host's and IOMMU's page size
constexpr Iova base{0x4000000};        // usable with every IOMMU and by edu

Iova iova(std::uint64_t number) { return base + number * page; }
IovaRange range(std::uint64_t first, std::uint64_t pages) { return {iova(first), iova(first + pages) - 1}; }

// The mappings of a container, or the pieces of a layout: iova, length, address, access.
using Shown = std::vector<std::tuple<std::uint64_t, std::uint64_t, const std::byte*, Access>>;
Shown shown_by(const auto& source, auto for_each) {
  Shown shown;
  (source.*for_each)([&](const Mapping& mapping) {
    shown.emplace_back(mapping.range.first.value, mapping.range.length(), mapping.memory.address(), mapping.access);
  });
  return shown;
}

class GuestMemoryOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  GuestMemoryOnKernel()
      : bound_(test::first_nvme()),
        other_(test::last_nvme()),
        before_(ResourceUse::now()),
        bytes_(test::kernel(), ::mmap(nullptr, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               16 * page) {
    memory_.emplace(kernel_, GuestMemoryOptions{.backend = GetParam().backend,
                                                .container_options = {.version = GetParam().version}});
  }
  ~GuestMemoryOnKernel() override {
    kernel_.fail_call(-1, 0);
    kernel_.refuse = nullptr;
    first_.reset();
    second_.reset();
    memory_.reset();
    bytes_ = {};
    EXPECT_EQ(kernel_.open_files(), 0);
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  [[nodiscard]] Memory bytes(std::uint64_t number, std::uint64_t pages) {
    return bytes_.bytes().subspan(number * page, pages * page);
  }
  // A file of holes.
  [[nodiscard]] std::shared_ptr<const Fd> make_file(std::uint64_t pages) {
    auto file = std::make_shared<const Fd>(kernel_, kernel_.memfd_create("ram", 0));
    EXPECT_EQ(kernel_.ftruncate(file->get(), pages * page), 0);
    return file;
  }
  void attach_first() {
    auto attached = memory_->attach(bound_.host());
    ASSERT_TRUE(attached) << attached.error().message();
    EXPECT_FALSE(attached->joined);
    EXPECT_TRUE(attached->refusals.empty());
    first_.emplace(std::move(attached->device));
  }
  // Attaches the second device in a new container, since the first one refuses it.
  void attach_second_apart() {
    const bool by_page_table = GetParam().backend == "iommufd";
    kernel_.refuse = [=, refuses = true](unsigned long request, void*) mutable {
      if (request == (by_page_table ? IOMMU_IOAS_ALLOC : VFIO_GROUP_SET_CONTAINER)) {
        if (by_page_table) refuses = false;  // for the new container
        return std::exchange(refuses, false) ? -EINVAL : 0;
      }
      return by_page_table && refuses && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT ? -EINVAL : 0;
    };
    auto attached = memory_->attach(other_.host());
    kernel_.refuse = nullptr;
    ASSERT_TRUE(attached) << attached.error().message();
    EXPECT_FALSE(attached->joined);
    EXPECT_EQ(attached->refusals.size(), 1U);
    second_.emplace(std::move(attached->device));
    ASSERT_EQ(memory_->containers().size(), 2U);
  }
  [[nodiscard]] Shown layout() const { return shown_by(*memory_, &GuestMemory::for_each); }
  [[nodiscard]] bool is_in_step() const {
    const Shown wanted = layout();
    return std::all_of(memory_->containers().begin(), memory_->containers().end(), [&](const auto& container) {
      return shown_by(*container, &Container::for_each_mapping) == wanted;
    });
  }

  sim::FailingKernel kernel_{test::kernel()};
  Bound bound_;
  Bound other_;
  ResourceUse before_;
  Mmap bytes_;
  std::optional<GuestMemory> memory_;
  std::optional<Device> first_;
  std::optional<Device> second_;
};

bool is_map(unsigned long request) {
  return request == VFIO_IOMMU_MAP_DMA || request == IOMMU_IOAS_MAP || request == IOMMU_IOAS_COPY;
}

TEST_P(GuestMemoryOnKernel, ADeviceIsAttachedOnce) {
  attach_first();
  const auto again = memory_->attach(bound_.host());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), EBUSY);
  EXPECT_TRUE(again.error().refused());
  EXPECT_THAT(again.error().message(), HasSubstr("attached to it already"));
  ASSERT_TRUE(first_->detach());
  first_.reset();
  auto back = memory_->attach(bound_.host());
  ASSERT_TRUE(back) << back.error().message();
  first_.emplace(std::move(back->device));
}

TEST_P(GuestMemoryOnKernel, ALayoutThatWasMadeBeforeIsThereForTheFirstDevice) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 2)));
  ASSERT_TRUE(memory_->add(iova(4), bytes(4, 2), Access::read));
  EXPECT_TRUE(memory_->containers().empty());
  attach_first();
  EXPECT_TRUE(is_in_step());
  EXPECT_EQ(first_->container()->mapping_count(), 2U);
  EXPECT_EQ(memory_->total_length(), 4 * page);
  EXPECT_EQ(memory_->find(iova(5))->memory.address(), bytes_.data() + 4 * page);
  EXPECT_EQ(memory_->find(bytes_.data() + page + 1), iova(1) + 1);
}

TEST_P(GuestMemoryOnKernel, EveryContainerShowsEveryChange) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  attach_second_apart();
  EXPECT_TRUE(is_in_step());
  auto change = memory_->begin().value();
  ASSERT_TRUE(change.remove(range(1, 1)));
  ASSERT_TRUE(change.set_access(range(3, 1), Access::read));
  ASSERT_TRUE(change.add(iova(8), bytes(8, 4)));
  EXPECT_EQ(layout().size(), 1U) << "before commit()";
  EXPECT_TRUE(is_in_step());
  ASSERT_TRUE(change.commit());
  EXPECT_TRUE(is_in_step());
  EXPECT_EQ(layout().size(), 4U);
  EXPECT_FALSE(memory_->find(iova(1)));
  ASSERT_TRUE(memory_->remove(range(8, 4)));
  EXPECT_TRUE(is_in_step());
  EXPECT_EQ(change.commit().error().code(), EINVAL) << "a second time";
}

TEST_P(GuestMemoryOnKernel, ADroppedTransactionChangesNothing) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  const Shown before = layout();
  {
    auto change = memory_->begin().value();
    ASSERT_TRUE(change.remove(range(0, 4)));
    ASSERT_TRUE(change.add(iova(8), bytes(8, 1)));
    EXPECT_EQ(memory_->begin().error().code(), EBUSY);
    EXPECT_EQ(memory_->add(iova(9), bytes(9, 1)).error().code(), EBUSY);
  }
  EXPECT_EQ(layout(), before);
  EXPECT_TRUE(is_in_step());
  EXPECT_TRUE(memory_->begin());
}

TEST_P(GuestMemoryOnKernel, AFailureAtAnyCallOfACommitLeavesEveryContainerAsItWas) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  ASSERT_TRUE(memory_->add(iova(6), bytes(6, 1)));
  attach_first();
  attach_second_apart();
  const Shown before = layout();
  const ResourceUse held = ResourceUse::now();
  for (int failing = 0;; ++failing) {
    auto change = memory_->begin().value();
    ASSERT_TRUE(change.remove(range(1, 1)));
    ASSERT_TRUE(change.remove(range(6, 1)));
    ASSERT_TRUE(change.add(iova(8), bytes(8, 2)));
    kernel_.fail_call(failing, ENOMEM);
    const auto committed = change.commit();
    const bool failed = kernel_.failed();
    kernel_.fail_call(-1, 0);
    ASSERT_TRUE(is_in_step()) << "after call " << failing << " failed";
    if (!committed) {
      ASSERT_TRUE(failed) << committed.error().message();
      EXPECT_EQ(layout(), before);
      ASSERT_TRUE(held == ResourceUse::now()) << "after call " << failing << " failed";
      continue;
    }
    EXPECT_EQ(layout().size(), 3U);
    if (!failed) {
      EXPECT_GE(failing, 8) << "the commit makes fewer calls than that";
      break;
    }
    EXPECT_EQ(GetParam().backend, "spapr") << "call " << failing << " failed: only unregistering memory may";
    auto back = memory_->begin().value();
    ASSERT_TRUE(back.remove(range(0, 1)) && back.remove(range(2, 2)) && back.remove(range(8, 2)));
    ASSERT_TRUE(back.add(iova(0), bytes(0, 4)) && back.add(iova(6), bytes(6, 1)) && back.commit());
  }
}

TEST_P(GuestMemoryOnKernel, AFailedUndoIsReportedAndRepeatedByTheNextCommit) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  attach_second_apart();
  const Shown before = layout();
  int maps = 0;
  kernel_.refuse = [&](unsigned long request, void*) { return is_map(request) && ++maps > 1 ? -ENOMEM : 0; };
  const auto failed = memory_->set_access(range(0, 4), Access::read);
  kernel_.refuse = nullptr;
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("could not be undone"));
  EXPECT_EQ(layout(), before);
  EXPECT_FALSE(is_in_step());
  ASSERT_TRUE(memory_->add(iova(8), bytes(8, 1)));
  EXPECT_TRUE(is_in_step());
}

// From the second map on all calls fail, so that the first map cannot be undone, and its range must be unmapped before
// the old mapping is restored.
TEST_P(GuestMemoryOnKernel, FailedUndosAreRepeatedInTheRightOrder) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  attach_second_apart();
  int maps = 0;
  kernel_.refuse = [&](unsigned long request, void*) {
    if (is_map(request)) ++maps;
    return maps > 1 && (is_map(request) || request == VFIO_IOMMU_UNMAP_DMA || request == IOMMU_IOAS_UNMAP) ? -EIO : 0;
  };
  const auto failed = memory_->set_access(range(0, 4), Access::read);
  kernel_.refuse = nullptr;
  ASSERT_FALSE(failed);
  EXPECT_FALSE(is_in_step());
  const auto added = memory_->add(iova(8), bytes(8, 1));
  ASSERT_TRUE(added) << added.error().message();
  EXPECT_TRUE(is_in_step());
}

TEST_P(GuestMemoryOnKernel, WhatAContainerCannotAddressIsRefusedBeforeAnythingIsDone) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 1)));
  attach_first();
  auto change = memory_->begin().value();
  ASSERT_TRUE(change.remove(range(0, 1)));
  ASSERT_TRUE(change.add(Iova{std::uint64_t{1} << 62}, bytes(2, 1)));
  const int calls = kernel_.calls();
  const auto committed = change.commit();
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code(), ERANGE);
  EXPECT_THAT(committed.error().message(), AllOf(HasSubstr("needs address bit 62"), HasSubstr("the lowest")));
  EXPECT_EQ(kernel_.calls(), calls);
  EXPECT_TRUE(is_in_step());
}

TEST_P(GuestMemoryOnKernel, ALayoutThatTheFirstDeviceCannotAddressIsRefusedByItsBit) {
  ASSERT_TRUE(memory_->add(Iova{std::uint64_t{1} << 62}, bytes(0, 1)));
  const auto attached = memory_->attach(bound_.host());
  ASSERT_FALSE(attached);
  EXPECT_EQ(attached.error().code(), ERANGE);
  EXPECT_THAT(attached.error().message(), HasSubstr("needs address bit 62"));
  EXPECT_TRUE(memory_->containers().empty());
}

TEST_P(GuestMemoryOnKernel, ASecondDeviceSharesTheContainerWhereItCan) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  const std::uint64_t locked = ResourceUse::now().locked;
  auto attached = memory_->attach(other_.host());
  ASSERT_TRUE(attached) << attached.error().message();
  second_.emplace(std::move(attached->device));
  EXPECT_TRUE(is_in_step());
  EXPECT_EQ(attached->joined, memory_->containers().size() == 1);
  EXPECT_EQ(attached->joined, attached->refusals.empty());
  if (GetParam().backend == "spapr") return;  // groups on different host bridges cannot share there
  EXPECT_TRUE(attached->joined);
  EXPECT_EQ(ResourceUse::now().locked, locked) << "memory in one container is counted once";
}

TEST_P(GuestMemoryOnKernel, TheLastDeviceMayLeaveAndComeBack) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  first_.reset();
  {
    auto attached = memory_->attach(bound_.host());
    ASSERT_TRUE(attached) << attached.error().message();
    EXPECT_TRUE(attached->joined);
    EXPECT_TRUE(is_in_step());
  }
  ASSERT_TRUE(memory_->close_unused());
  EXPECT_TRUE(memory_->containers().empty());
  EXPECT_EQ(ResourceUse::now().locked, before_.locked);
  ASSERT_TRUE(memory_->add(iova(8), bytes(8, 1)));
  attach_first();
  EXPECT_TRUE(is_in_step());
}

TEST_P(GuestMemoryOnKernel, ALayoutThatCannotBeMappedLeavesTheDeviceUnattached) {
  // Inaccessible rather than unmapped: an allocation in between could take an address that is free.
  const Mmap inaccessible(test::kernel(), ::mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), page);
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  ASSERT_TRUE(memory_->add(iova(8), inaccessible.bytes()));
  const auto refused = memory_->attach(bound_.host());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr(to_string(iova(8))));
  EXPECT_TRUE(memory_->containers().empty());
  EXPECT_EQ(kernel_.open_files(), 0);
  ASSERT_TRUE(memory_->remove(range(8, 1)));
  attach_first();
}

// A virtual IOMMU's view of the guest's memory is a GuestMemory of its own: what the guest asks to be mapped, where it
// wants it, beside the RAM that others see.
TEST_P(GuestMemoryOnKernel, AViewOfAVirtualIommuIsShownToADeviceThatComesLater) {
  if (GetParam().backend == "spapr" && GetParam().version == 2)
    GTEST_SKIP() << "a process registers memory with the same bounds in all containers";
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 8)));
  attach_first();
  {
    GuestMemory view(kernel_, {.backend = GetParam().backend, .container_options = {.version = GetParam().version}});
    const auto map = [&](std::uint64_t at, std::uint64_t guest_page, std::uint64_t pages, Access access) {
      const Mapping ram = memory_->find(iova(guest_page)).value();
      const std::uint64_t offset = iova(guest_page).value - ram.range.first.value;
      return view.add(iova(at), ram.memory.part(offset, pages * page), access);
    };
    ASSERT_TRUE(map(32, 2, 1, Access::read_write));
    ASSERT_TRUE(map(40, 5, 2, Access::read));
    const auto attached = view.attach(other_.host());
    ASSERT_TRUE(attached) << attached.error().message();
    const Container& container = *attached->device.container();
    EXPECT_EQ(container.find(iova(32))->memory.address(), bytes(2, 1).address());
    EXPECT_EQ(container.find(iova(41))->memory.address(), bytes(5, 1).address());
    EXPECT_EQ(container.find(iova(41))->access, Access::read);
    EXPECT_FALSE(container.find(iova(2))) << "the RAM itself is not shown";
    ASSERT_TRUE(view.remove(range(40, 2)));
    EXPECT_FALSE(container.find(iova(41)));
    EXPECT_TRUE(memory_->find(iova(5))) << "it is still the guest's";
  }
}

TEST_P(GuestMemoryOnKernel, GranulesOfSparseMemoryComeAndGoInEveryContainer) {
  attach_first();
  auto change = memory_->begin().value();
  EXPECT_EQ(change.add_sparse(iova(0), bytes(0, 8), 2 * page).value(), 2 * page);
  ASSERT_TRUE(change.populate(range(0, 4)));
  ASSERT_TRUE(change.commit());
  attach_second_apart();
  EXPECT_TRUE(is_in_step());
  EXPECT_EQ(layout().size(), 2U);
  auto next = memory_->begin().value();
  ASSERT_TRUE(next.discard(range(0, 2)));
  ASSERT_TRUE(next.populate(range(6, 2)));
  ASSERT_TRUE(next.commit());
  EXPECT_TRUE(is_in_step());
  EXPECT_FALSE(memory_->find(iova(0)));
  EXPECT_TRUE(memory_->find(iova(2)) && memory_->find(iova(6)));
  ASSERT_TRUE(memory_->remove(range(0, 8)));
  EXPECT_TRUE(layout().empty());
}

TEST_P(GuestMemoryOnKernel, PiecesOfOneFileCostNoMoreCallsThanTheirMappings) {
  const auto file = make_file(16);
  const Mmap written(kernel_,
                     ::mmap(nullptr, 16 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file->get(), 0),
                     16 * page);
  attach_first();
  const auto calls_of = [&](std::uint64_t pieces) {
    auto change = memory_->begin().value();
    for (std::uint64_t i = 0; i < pieces; ++i)
      EXPECT_TRUE(change.add(iova(2 * i), Memory::of_file(file, i * page, page)));
    const int before = kernel_.calls();
    EXPECT_TRUE(change.commit());
    const int calls = kernel_.calls() - before;
    auto back = memory_->begin().value();
    for (std::uint64_t i = 0; i < pieces; ++i) EXPECT_TRUE(back.remove(range(2 * i, 1)));
    EXPECT_TRUE(back.commit());
    return calls;
  };
  const int of_one = calls_of(1);
  EXPECT_GT(of_one, 5) << "the file is examined";
  EXPECT_LE(calls_of(9), of_one + 8 * 4) << "fstat, mmap, and the ioctls that register and map it at most";
}

// A second container whose devices leave while a commit goes on is not in the way, and not used again.
TEST_P(GuestMemoryOnKernel, ADeviceMayLeaveDuringACommit) {
  ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
  attach_first();
  attach_second_apart();
  bool has_left = false;
  kernel_.refuse = [&](unsigned long request, void*) {
    if (is_map(request) && !std::exchange(has_left, true)) second_.reset();
    return 0;
  };
  const auto changed = memory_->set_access(range(0, 4), Access::read);
  kernel_.refuse = nullptr;
  EXPECT_TRUE(has_left);
  EXPECT_TRUE(changed) << changed.error().message();
  auto again = memory_->attach(other_.host());
  ASSERT_TRUE(again) << again.error().message();
  second_.emplace(std::move(again->device));
  EXPECT_TRUE(is_in_step());
}

// Kernels allocate pages of a file when they pin them.
TEST_P(GuestMemoryOnKernel, AFailedCommitGivesBackThePagesThatItAddedToFiles) {
  const auto file = make_file(8);
  attach_first();
  const auto commit = [&](bool can_undo) {
    std::uint64_t maps = 0;
    kernel_.refuse = [&](unsigned long request, void*) {
      if (request == VFIO_IOMMU_UNMAP_DMA || request == IOMMU_IOAS_UNMAP) return can_undo ? 0 : -EIO;
      if (!is_map(request) && request != IOMMU_IOAS_MAP_FILE) return 0;
      EXPECT_EQ(::fallocate(file->get(), 0, static_cast<off_t>(2 * maps * page), page), 0);
      return ++maps > 1 ? -ENOMEM : 0;
    };
    auto change = memory_->begin().value();
    EXPECT_TRUE(change.add(iova(0), Memory::of_file(file, 0, page)));
    EXPECT_TRUE(change.add(iova(2), Memory::of_file(file, 2 * page, page)));
    const auto committed = change.commit();
    kernel_.refuse = nullptr;
    ASSERT_FALSE(committed);
    EXPECT_EQ(committed.error().code(), ENOMEM);
  };
  const auto blocks = [&] {
    FileStatus status;
    EXPECT_EQ(kernel_.fstat(file->get(), status), 0);
    return status.blocks;
  };
  commit(true);
  EXPECT_EQ(blocks(), 0U);
  commit(false);
  EXPECT_GE(blocks(), page / 512) << "what may be mapped still keeps its pages";
  ASSERT_TRUE(memory_->add(iova(8), bytes(8, 1)));
  EXPECT_TRUE(is_in_step());
}

// The guest's RAM is one file, mapped in two ranges with a hole between them.
TEST_P(GuestMemoryOnKernel, ADeviceFillsTheFileThatTheGuestSees) {
  const auto file = make_file(4);
  auto change = memory_->begin().value();
  ASSERT_TRUE(change.add(iova(0), Memory::of_file(file, 0, page)));
  ASSERT_TRUE(change.add(iova(1), Memory::of_file(file, page, page)));
  ASSERT_TRUE(change.add(iova(32), Memory::of_file(file, 2 * page, 2 * page)));
  ASSERT_TRUE(change.commit());
  EXPECT_EQ(memory_->mapping_count(), 2U);
  attach_first();
  {
    PciDevice disk = PciDevice::open(std::move(*first_)).value();
    first_.reset();
    const Iova queues = iova(64);
    IovaAllocator iovas(std::vector<IovaRange>{{queues, queues + 0xffffff}}, 4096);
    auto controller = nvme::Controller::open(disk, iovas);
    ASSERT_TRUE(controller) << controller.error().message();
    const nvme::Namespace& ns = controller->namespaces().at(0);
    ASSERT_TRUE(controller->read(ns, 0, static_cast<std::uint32_t>(page / ns.block_size), iova(33)));
  }
  std::vector<std::byte> seen(page);
  ASSERT_EQ(::pread(file->get(), seen.data(), page, 3 * page), static_cast<ssize_t>(page));
  EXPECT_TRUE(test::came_from_disk(seen));
}

class GuestMemoryWithEdu : public GuestMemoryOnKernel {
 protected:
  void SetUp() override {
    const auto address = test::find_edu();
    if (!address) GTEST_SKIP() << "this host has no edu device";
    if (GetParam().backend == "spapr") GTEST_SKIP() << "a write that is not allowed freezes the device (EEH)";
    edu_bound_.emplace(*address);
    ASSERT_TRUE(memory_->add(iova(0), bytes(0, 4)));
    edu_.emplace(PciDevice::open(memory_->attach(edu_bound_->host()).value().device).value());
    ASSERT_TRUE(edu_->enable_bus_master());
    before_ = {};  // the binding of edu belongs to the test
  }
  void TearDown() override {
    edu_.reset();
    memory_.reset();
    edu_bound_.reset();
    before_ = ResourceUse::now();
  }
  // Makes the device copy 64 bytes from one page to another.
  void copy(std::uint64_t from, std::uint64_t to) {
    const test::EduRegisters registers(edu_->device());
    registers.copy(iova(from).value, test::EduRegisters::buffer, 64, 0);
    registers.copy(test::EduRegisters::buffer, iova(to).value, 64, test::EduRegisters::to_memory);
  }

  std::optional<Bound> edu_bound_;
  std::optional<PciDevice> edu_;
};

TEST_P(GuestMemoryWithEdu, DevicesWriteOnlyWhereTheyMay) {
  std::fill_n(bytes_.data(), 64, std::byte{1});
  copy(0, 1);
  EXPECT_EQ(bytes_.data()[page], std::byte{1});
  ASSERT_TRUE(memory_->set_access(range(2, 1), Access::read));
  copy(0, 2);
  EXPECT_EQ(bytes_.data()[2 * page], std::byte{0}) << "read only for devices";
  std::fill_n(bytes_.data() + 2 * page, 64, std::byte{2});
  copy(2, 3);
  EXPECT_EQ(bytes_.data()[3 * page], std::byte{2});
}

TEST_P(GuestMemoryWithEdu, APageThatWasWrittenStaysDirtyWhenItsMemoryMovesOrGoes) {
  if (edu_->container()->get<DirtyTracker>() == nullptr) GTEST_SKIP() << "this backend does not track";
  ASSERT_TRUE(memory_->start_tracking());
  EXPECT_EQ(memory_->start_tracking().error().code(), EBUSY);
  constexpr std::uint64_t small = 4096;
  std::vector<std::uint64_t> words(4 * page / small / 64);
  const DirtyBitmap bitmap{.page_size = small, .words = words};
  const auto is_dirty = [&](std::uint64_t number) {
    return (words[number * (page / small) / 64] >> (number * (page / small) % 64) & 1) != 0;
  };
  copy(0, 1);
  copy(0, 2);
  ASSERT_TRUE(memory_->remove(range(2, 1)));  // page 1 is mapped again, page 2 is not
  ASSERT_TRUE(memory_->query_dirty(range(0, 4), bitmap, AfterQuery::keep));
  EXPECT_TRUE(is_dirty(1));
  EXPECT_TRUE(is_dirty(2));
  std::fill(words.begin(), words.end(), 0);
  ASSERT_TRUE(memory_->query_dirty(range(0, 4), bitmap));
  EXPECT_TRUE(is_dirty(1)) << "it was only looked at";
  edu_.reset();
  ASSERT_TRUE(memory_->close_unused());
  std::fill(words.begin(), words.end(), 0);
  ASSERT_TRUE(memory_->query_dirty(range(0, 4), bitmap));
  EXPECT_FALSE(is_dirty(2)) << "it was reported, and is gone";
  ASSERT_TRUE(memory_->stop_tracking());
  EXPECT_EQ(memory_->query_dirty(range(0, 4), bitmap).error().code(), EINVAL);
}

INSTANTIATE_TEST_SUITE_P(Backends, GuestMemoryOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);
INSTANTIATE_TEST_SUITE_P(Backends, GuestMemoryWithEdu, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace guest_memory_test
}  // namespace postern
