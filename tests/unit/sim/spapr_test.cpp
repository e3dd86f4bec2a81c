// SPDX-License-Identifier: Apache-2.0
// sPAPR on the simulated POWER hosts with plain system calls, as measured on real kernels: the behaviour common to both
// machines.
#include <cerrno>

#include "spapr_rig.hpp"

namespace postern::sim::spapr_test {
namespace spapr_test {

constexpr std::uint32_t read_only = VFIO_DMA_MAP_FLAG_READ;

class OnPower : public SpaprRig, public ::testing::WithParamInterface<sim::Platform> {
 protected:
  void begin(int version, std::optional<std::uint64_t> limit = {}) { SpaprRig::begin(GetParam(), version, limit); }
  [[nodiscard]] bool is_powernv() const { return GetParam() == sim::Platform::powernv; }
  [[nodiscard]] std::uint64_t window() const { return is_powernv() ? 2 * gib : gib; }
  [[nodiscard]] std::uint64_t table() const { return is_powernv() ? 8 * mib : 2 * mib; }
};

TEST_P(OnPower, TellsItsExtensionsBeforeAndAfterItsIommuIsSet) {
  begin(0);
  for (int round = 0; round < 2; ++round) {
    for (const unsigned long there : {VFIO_SPAPR_TCE_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU}) {
      EXPECT_EQ(container->call(VFIO_CHECK_EXTENSION, there), 1) << there;
    }
    for (const unsigned long missing : {VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_DMA_CC_IOMMU, VFIO_NOIOMMU_IOMMU,
                                        VFIO_UNMAP_ALL, VFIO_UPDATE_VADDR}) {
      EXPECT_EQ(container->call(VFIO_CHECK_EXTENSION, missing), 0) << missing;
    }
    EXPECT_EQ(container->call(VFIO_CHECK_EXTENSION, VFIO_EEH), is_powernv() ? 1 : 0);
    EXPECT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), round == 0 ? 0 : -EINVAL);
  }
}

// pin_user_pages finds no pages in a BAR (check_vma_flags): neither tce_iommu_use_page nor mm_iommu_do_alloc can use
// it.
TEST_P(OnPower, TakesNoBarForDma) {
  for (const int version : {1, 2}) {
    begin(version);
    char name[] = "0000:00:00.0";
    if (is_powernv()) name[6] = '1';
    const int device = kernel->ioctl(container->group_fd(0), VFIO_GROUP_GET_DEVICE_FD, name);
    const Memory memory(2 * page);
    const std::intptr_t bar =
        kernel->mmap(memory.data() + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device, 0);
    ASSERT_EQ(static_cast<std::uint64_t>(bar), memory.at(page));
    if (version == 1) {
      ASSERT_EQ(container->enable(), 0);
      EXPECT_EQ(container->map(0, memory.at(page), page), -EFAULT);
      EXPECT_EQ(container->map(0, memory.at(), 2 * page), -EFAULT);
    } else {
      EXPECT_EQ(container->add(memory.at(page), page), -EFAULT);
      EXPECT_EQ(container->add(memory.at(), 2 * page), 1) << "a page was there";
    }
    EXPECT_EQ(kernel->close(device), 0);
    EXPECT_EQ(container->leave(0), -EBUSY);
    EXPECT_EQ(kernel->munmap(memory.data() + page, page), 0);
    EXPECT_EQ(container->leave(0), 0);
  }
}

TEST_P(OnPower, HasNoOtherIommuAndItsOwnOnceAGroupIsIn) {
  kernel.emplace(host_of(GetParam()));
  container.emplace(*kernel);
  EXPECT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), -EINVAL) << "no group";
  ASSERT_EQ(container->join(0), 0);
  for (const int type : {VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, 99}) EXPECT_EQ(container->set_iommu(type), -ENODEV);
  vfio_iommu_spapr_tce_info info{};
  EXPECT_EQ(container->info(info), -EINVAL);
  char device[] = "0000:00:00.0";
  if (is_powernv()) device[6] = '1';
  EXPECT_EQ(kernel->ioctl(container->group_fd(0), VFIO_GROUP_GET_DEVICE_FD, device), -EINVAL);
  EXPECT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), 0);
  EXPECT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), -EINVAL);
  const int opened = kernel->ioctl(container->group_fd(0), VFIO_GROUP_GET_DEVICE_FD, device);
  EXPECT_GE(opened, 0);
  kernel->close(opened);
  EXPECT_EQ(kernel->open("/dev/iommu", 0), -ENOENT);
}

TEST_P(OnPower, TellsItsDefaultWindowAndOfOthersToVersion2Alone) {
  for (const int version : {1, 2}) {
    begin(version);
    vfio_iommu_spapr_tce_info info{};
    ASSERT_EQ(container->info(info), 0);
    EXPECT_EQ(info.dma32_window_start, 0U);
    EXPECT_EQ(info.dma32_window_size, window());
    EXPECT_EQ(info.flags, version == 2 ? VFIO_IOMMU_SPAPR_INFO_DDW : 0U);
    EXPECT_EQ(info.ddw.pgsizes, version == 1 ? 0U : is_powernv() ? 0x40211000U : 0x1211000U);
    EXPECT_EQ(info.ddw.max_dynamic_windows_supported, version == 1 ? 0U : 2U);
    EXPECT_EQ(info.ddw.levels, version == 1 ? 0U : is_powernv() ? 5U : 1U);
    info.ddw.levels = 77;
    EXPECT_EQ(container->info(info, 16), 0) << "as it was before there were others";
    EXPECT_EQ(info.ddw.levels, 77U);
    EXPECT_EQ(container->info(info, 8), -EINVAL);
  }
}

TEST_P(OnPower, Version1CountsTheWholeWindowAndItsTableAtTheFirstMap) {
  begin(1);
  const Memory memory(page);
  EXPECT_EQ(container->map(0, memory.at(), page), -EPERM);
  EXPECT_EQ(container->unmap(0, page), -EPERM);
  EXPECT_EQ(container->add(memory.at(), page), -ENOTTY);
  EXPECT_EQ(container->drop(memory.at(), page), -ENOTTY);
  EXPECT_EQ(container->create(12, gib), -ENOTTY);
  EXPECT_EQ(container->remove(0), -ENOTTY);
  ASSERT_EQ(container->enable(), 0);
  EXPECT_EQ(container->enable(), -EBUSY);
  EXPECT_EQ(locked(), window());
  ASSERT_EQ(container->map(0, memory.at(), page), 0);
  EXPECT_EQ(locked(), window() + table());
  ASSERT_EQ(container->call(VFIO_IOMMU_DISABLE), 0);
  EXPECT_EQ(locked(), table());
  EXPECT_EQ(container->unmap(0, page), -EPERM);
  EXPECT_EQ(container->call(VFIO_IOMMU_DISABLE), 0) << "again";
  ASSERT_EQ(container->leave(0), 0);
  EXPECT_EQ(locked(), 0U);
}

TEST_P(OnPower, Version1NeedsTheLimitOfLockedMemoryThatItCounts) {
  begin(1, 8 * mib);
  EXPECT_EQ(container->enable(), -ENOMEM);
  begin(1, window());
  const Memory memory(page);
  ASSERT_EQ(container->enable(), 0);
  EXPECT_EQ(container->map(0, memory.at(), page), -ENOMEM) << "the table";
  EXPECT_EQ(container->unmap(0, page), -ENOMEM);
  EXPECT_EQ(locked(), window());
  begin(1, window() + table());
  ASSERT_EQ(container->enable(), 0);
  EXPECT_EQ(container->map(0, memory.at(), page), 0);
}

TEST_P(OnPower, Version1PinsForWritingWhateverTheAccess) {
  begin(1);
  const Memory memory(2 * page);
  ASSERT_EQ(container->enable(), 0);
  ASSERT_EQ(container->map(0, memory.at(), 2 * page, read_only), 0);
  ASSERT_EQ(::mprotect(memory.data() + page, page, PROT_READ), 0);
  EXPECT_EQ(container->map(0, memory.at(), 2 * page, read_only), -EFAULT);
}

TEST_P(OnPower, Version2MapsWhatIsRegistered) {
  begin(2);
  const Memory memory(4 * page);
  EXPECT_EQ(container->enable(), -ENOTTY);
  EXPECT_EQ(container->call(VFIO_IOMMU_DISABLE), -ENOTTY);
  EXPECT_EQ(container->map(0, memory.at(), page), -EPERM) << "nothing was ever registered";
  EXPECT_EQ(container->drop(memory.at(), page), -EPERM);
  ASSERT_EQ(container->add(memory.at(), page), 0);
  ASSERT_EQ(container->add(memory.at(page), page), 0);
  EXPECT_EQ(container->map(0, memory.at(), 2 * page), 0) << "each page is in one region";
  EXPECT_EQ(container->map(0, memory.at(2 * page), page), -EINVAL) << "not registered";
  EXPECT_EQ(container->map(0, memory.at(page), 2 * page), -EINVAL) << "runs past what is";
  EXPECT_EQ(container->unmap(0, 4 * page), 0);
}

TEST_P(OnPower, RegistersEachMemoryOnce) {
  begin(2);
  Memory memory(4 * page);
  EXPECT_EQ(container->add(memory.at(16), page), -EINVAL);
  EXPECT_EQ(container->add(memory.at(), page + 16), -EINVAL);
  EXPECT_EQ(container->add(memory.at(), page, 1), -EINVAL) << "there are no flags";
  EXPECT_EQ(container->add(memory.at(), 0), -ENOMEM);
  ASSERT_EQ(container->add(memory.at(page), 2 * page), 0);
  EXPECT_EQ(container->add(memory.at(page), 2 * page), -EBUSY);
  EXPECT_EQ(container->add(memory.at(page), page), -EINVAL) << "part of it";
  EXPECT_EQ(container->add(memory.at(), 2 * page), -EINVAL) << "its begin";
  EXPECT_EQ(container->add(memory.at(2 * page), 2 * page), -EINVAL) << "its end";
  EXPECT_EQ(container->add(memory.at(), 4 * page), -EINVAL) << "all around it";
  EXPECT_EQ(locked(), 2 * page) << "what is refused is not counted";
  EXPECT_EQ(container->drop(memory.at(page), page), -ENOENT);
  EXPECT_EQ(container->drop(memory.at(16), page), -EINVAL);
  ASSERT_EQ(container->drop(memory.at(page), 2 * page), 0);
  EXPECT_EQ(container->drop(memory.at(page), 2 * page), -ENOENT);
  EXPECT_EQ(locked(), 0U);
  ASSERT_EQ(::mprotect(memory.data(), page, PROT_READ), 0);
  EXPECT_EQ(container->add(memory.at(), page), -EFAULT);
  ASSERT_EQ(::munmap(memory.data(), page), 0);
  EXPECT_EQ(container->add(memory.at(), page), -EFAULT);
}

TEST_P(OnPower, SeveralContainersOfAProcessShareWhatIsRegistered) {
  begin(2);
  Handle other(*kernel);
  ASSERT_EQ(other.join(1), 0);
  ASSERT_EQ(other.set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), 0);
  const Memory memory(2 * page);
  ASSERT_EQ(container->add(memory.at(), 2 * page), 0);
  EXPECT_EQ(other.add(memory.at(), page), -EINVAL) << "with other bounds";
  ASSERT_EQ(other.add(memory.at(), 2 * page), 0);
  EXPECT_EQ(locked(), 2 * page);
  ASSERT_EQ(container->drop(memory.at(), 2 * page), 0);
  EXPECT_EQ(locked(), 2 * page);
  EXPECT_EQ(container->drop(memory.at(), 2 * page), -ENOENT) << "the other's";
  ASSERT_EQ(other.drop(memory.at(), 2 * page), 0);
  EXPECT_EQ(locked(), 0U);
}

TEST_P(OnPower, UnregisteringWhatIsMappedSucceedsAndNeverGivesItBack) {
  begin(2);
  const Memory memory(page);
  ASSERT_EQ(container->remove(0), 0);
  ASSERT_EQ(container->create(12, 64 * mib), 0);
  const std::uint64_t before = locked();
  ASSERT_EQ(container->add(memory.at(), page), 0);
  ASSERT_EQ(container->map(container->start, memory.at(), page), 0);
  EXPECT_EQ(container->drop(memory.at(), page), 0);
  EXPECT_EQ(container->drop(memory.at(), page), -ENOENT);
  EXPECT_EQ(container->map(container->start, memory.at(), page), 0) << "it is as good as registered";
  ASSERT_EQ(container->unmap(container->start, page), 0);
  EXPECT_EQ(container->drop(memory.at(), page), -ENOENT);
  EXPECT_EQ(container->add(memory.at(), page), 0);
  EXPECT_EQ(container->drop(memory.at(), page), 0);
  EXPECT_EQ(locked(), before + page);
  ASSERT_EQ(container->leave(0), 0);
  EXPECT_EQ(locked(), page) << "as long as the process lives";
}

TEST_P(OnPower, AMapIsOfWholePagesOfItsWindow) {
  begin(2);
  const Memory memory(4 * page);
  ASSERT_EQ(container->add(memory.at(), 4 * page), 0);
  EXPECT_EQ(container->map(0, memory.at(16), page), -EINVAL);
  EXPECT_EQ(container->map(0, memory.at(), page + 16), -EINVAL);
  EXPECT_EQ(container->map(0, memory.at(), 0), 0) << "nothing, and well";
  EXPECT_EQ(container->map(0, memory.at(), page, 0), -EINVAL);
  EXPECT_EQ(container->map(0, memory.at(), page, 4), -EINVAL);
  EXPECT_EQ(container->map(16, memory.at(), page), 1) << "which is no errno";
  EXPECT_EQ(container->map(window(), memory.at(), page), -ENXIO);
  EXPECT_EQ(container->map(high, memory.at(), page), -ENXIO);
  EXPECT_EQ(container->map(window() - 4096, memory.at(), 4096), 0) << "the last page";
  EXPECT_EQ(container->map(0, memory.at(), page), 0);
  EXPECT_EQ(container->map(0, memory.at(page), page), 0) << "over the first, without a word";
}

TEST_P(OnPower, AnUnmapTakesWhateverItFinds) {
  begin(2);
  const Memory memory(4 * page);
  ASSERT_EQ(container->add(memory.at(), 4 * page), 0);
  EXPECT_EQ(container->unmap(0, page), 0) << "nothing there";
  ASSERT_EQ(container->map(0, memory.at(), 4 * page), 0);
  EXPECT_EQ(container->unmap(page, page), 0) << "out of its middle";
  EXPECT_EQ(container->unmap(0, 4 * page), 0) << "with a hole";
  EXPECT_EQ(container->unmap(0, page + 16), -EINVAL);
  EXPECT_EQ(container->unmap(0, page, VFIO_DMA_UNMAP_FLAG_ALL), -EINVAL);
  EXPECT_EQ(container->unmap(16, page), 1);
  EXPECT_EQ(container->unmap(window() - 4096, 8192), 1) << "past the end; Linux 6.12 still said 0";
  EXPECT_EQ(container->unmap(window(), page), -ENXIO);
  EXPECT_EQ(container->unmap(0, window()), 0);
}

TEST_P(OnPower, TheDefaultWindowIsMadeWhenItIsNeededAndCanBeDoneWithout) {
  begin(2);
  const Memory memory(page);
  ASSERT_EQ(container->add(memory.at(), page), 0);
  EXPECT_EQ(locked(), page);
  ASSERT_EQ(container->unmap(0, page), 0);
  EXPECT_EQ(locked(), page + table());
  EXPECT_EQ(container->remove(0), 0);
  EXPECT_EQ(locked(), page);
  EXPECT_EQ(container->map(0, memory.at(), page), -ENXIO);
  begin(2);
  EXPECT_EQ(container->remove(4096), -EINVAL) << "it is not there yet";
  EXPECT_EQ(container->remove(0), 0);
  EXPECT_EQ(container->remove(0), -EINVAL);
  EXPECT_EQ(locked(), 0U);
}

TEST_P(OnPower, ASecondWindowIsMadeHighUpAndAThirdNot) {
  begin(2);
  ASSERT_EQ(container->create(16, 4 * gib), 0);
  EXPECT_EQ(container->start, high);
  const std::uint64_t copies = is_powernv() ? 2 : 1;
  EXPECT_EQ(locked(), table() + copies * 4 * gib / (64 * kib) * 8) << "both tables are counted";
  EXPECT_EQ(container->create(12, gib), -ENOSPC);
  EXPECT_EQ(container->remove(high + 4 * gib), -EINVAL);
  EXPECT_EQ(container->remove(high + 12345), 0) << "any address in it is its name";
  EXPECT_EQ(locked(), table());
}

TEST_P(OnPower, AWindowIsOneOfThePlatforms) {
  begin(2);
  for (const std::uint32_t shift : {0U, 13U, 24U + (is_powernv() ? 0 : 1), 64U, 76U}) {
    EXPECT_EQ(container->create(shift, gib), -EINVAL) << shift;
  }
  EXPECT_EQ(container->create(12, 0), -EINVAL);
  vfio_iommu_spapr_tce_create create{};
  create.argsz = sizeof create - 8;
  EXPECT_EQ(container->call(VFIO_IOMMU_SPAPR_TCE_CREATE, create), -EINVAL);
  create.argsz = sizeof create;
  create.flags = 1;
  EXPECT_EQ(container->call(VFIO_IOMMU_SPAPR_TCE_CREATE, create), -EINVAL);
  EXPECT_EQ(locked(), table()) << "the default window's";
}

TEST_P(OnPower, AWindowOfPagesLargerThanTheMemorysTakesNone) {
  if (page >= 64 * kib) GTEST_SKIP() << "this host's pages are as large";
  begin(2);
  const Memory memory(256 * kib);
  const std::uint64_t aligned = (memory.at() + 64 * kib - 1) & ~(64 * kib - 1);
  ASSERT_EQ(container->add(aligned, 128 * kib), 0);
  ASSERT_EQ(container->create(16, gib), 0);
  EXPECT_EQ(container->map(high, aligned, 64 * kib), -EINVAL);
  EXPECT_EQ(container->map(high, aligned, page), -EINVAL);
  EXPECT_EQ(container->map(0, aligned, 64 * kib), 0) << "the default window's are small enough";
}

TEST_P(OnPower, HugePagesOfMemoryMakeHugePagesOfAWindow) {
  const Memory memory(4 * mib, MAP_HUGETLB);
  if (!memory.is_there()) GTEST_SKIP() << "no huge pages are reserved here";
  begin(2);
  ASSERT_EQ(container->add(memory.at(), 4 * mib), 0);
  ASSERT_EQ(container->create(21, 4 * gib), 0);
  EXPECT_EQ(container->map(high, memory.at(), 4 * mib), 0);
}

TEST_P(OnPower, ADeviceThatIsOpenKeepsItsGroupIn) {
  begin(2);
  char device[] = "0000:00:00.0";
  if (is_powernv()) device[6] = '1';
  const int fd = kernel->ioctl(container->group_fd(0), VFIO_GROUP_GET_DEVICE_FD, device);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(container->leave(0), -EBUSY);
  ASSERT_EQ(kernel->close(fd), 0);
  EXPECT_EQ(container->leave(0), 0);
}

TEST_P(OnPower, Version1IsForOneGroup) {
  begin(1);
  EXPECT_EQ(container->join(1), -EBUSY);
  Handle both(*kernel);
  ASSERT_EQ(container->leave(0), 0);
  container.reset();
  ASSERT_EQ(both.join(0), 0);
  ASSERT_EQ(both.join(1), 0);
  EXPECT_EQ(both.set_iommu(VFIO_SPAPR_TCE_IOMMU), -EBUSY);
  EXPECT_EQ(both.set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), 0) << "nothing was left half done";
}

INSTANTIATE_TEST_SUITE_P(Machines, OnPower, ::testing::Values(sim::Platform::pseries, sim::Platform::powernv),
                         [](const auto& test) { return test.param == sim::Platform::pseries ? "pseries" : "powernv"; });

}  // namespace spapr_test
}  // namespace postern::sim::spapr_test
