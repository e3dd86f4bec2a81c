// SPDX-License-Identifier: Apache-2.0
// sPAPR on the simulated POWER hosts: differences between the two machines, and DMA of their devices.
#include <algorithm>
#include <array>
#include <cerrno>

#include "sim/spapr/spapr.hpp"
#include "spapr_rig.hpp"

namespace postern::sim::spapr_test {
namespace spapr_machines_test {

class OnPseries : public SpaprRig {
 protected:
  void begin(int version, std::optional<std::uint64_t> limit = {}) {
    SpaprRig::begin(sim::Platform::pseries, version, limit);
  }
  // Whether windows can still be created on the host bridge of group 0.
  bool gives_windows() {
    container.emplace(*kernel);
    EXPECT_EQ(container->join(0), 0);
    EXPECT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), 0);
    const int result = container->create(12, 4 * gib);
    EXPECT_TRUE(result == 0 || result == -ENODEV) << result;
    return result == 0;
  }
};

class OnPowernv : public SpaprRig {
 protected:
  void begin(int version, std::optional<std::uint64_t> limit = {}) {
    SpaprRig::begin(sim::Platform::powernv, version, limit);
  }
};

TEST_F(OnPseries, ATableHasOneLevelAndWhatIsRefusedStaysCounted) {
  begin(2);
  EXPECT_EQ(container->create(12, gib, 0), 0) << "which is one";
  ASSERT_EQ(container->remove(high), 0);
  const std::uint64_t before = locked();
  EXPECT_EQ(container->create(12, gib, 2), -EINVAL);
  EXPECT_EQ(locked(), before + (4 * gib - 1) / page * page);
  EXPECT_EQ(container->create(12, 3 * gib), -EINVAL);
  EXPECT_EQ(locked(), before + (4 * gib - 1) / page * page + 6 * mib);
  begin(2, 8 * mib);
  EXPECT_EQ(container->create(12, gib, 2), -ENOMEM) << "without the privilege";
}

TEST_F(OnPseries, AnotherDynamicWindowIsRefusedAndItsTableStaysCounted) {
  begin(2);
  ASSERT_EQ(container->create(12, 4 * gib), 0);
  ASSERT_EQ(container->remove(0), 0);
  const std::uint64_t before = locked();
  EXPECT_EQ(container->create(12, 2 * gib), -EPERM);
  EXPECT_EQ(container->create(12, gib), -EPERM) << "the default window would take the other along";
  EXPECT_EQ(locked(), before + 4 * mib + 2 * mib);
  ASSERT_EQ(container->remove(high), 0);
  EXPECT_EQ(container->create(12, 512 * mib), 0);
  EXPECT_EQ(container->start, 0U) << "a smaller default window";
  EXPECT_TRUE(gives_windows());
}

TEST_F(OnPseries, AskingForTwoDynamicWindowsLosesAllOfTheHostBridgeForGood) {
  begin(2);
  ASSERT_EQ(container->remove(0), 0);
  ASSERT_EQ(container->create(16, 4 * gib), 0);
  EXPECT_EQ(container->start, high) << "in the first slot, too";
  EXPECT_EQ(container->create(16, 4 * gib), -ENODEV);
  EXPECT_FALSE(gives_windows());
  container.emplace(*kernel);
  ASSERT_EQ(container->join(0), 0);
  ASSERT_EQ(container->set_iommu(VFIO_SPAPR_TCE_IOMMU), 0);
  ASSERT_EQ(container->enable(), 0);
  const Memory memory(page);
  EXPECT_EQ(container->map(0, memory.at(), page), -ENODEV) << "even the default window";
  container.emplace(*kernel);
  ASSERT_EQ(container->join(1), 0);
  ASSERT_EQ(container->set_iommu(VFIO_SPAPR_TCE_v2_IOMMU), 0);
  EXPECT_EQ(container->create(12, 4 * gib), 0) << "the other host bridge";
}

TEST_F(OnPseries, TwoHostBridgesHaveNoWindowInOneContainer) {
  begin(2);
  const Memory memory(page);
  ASSERT_EQ(container->add(memory.at(), page), 0);
  ASSERT_EQ(container->unmap(0, page), 0);  // creates the default window
  EXPECT_EQ(container->join(1), -EPERM);
  begin(2);
  ASSERT_EQ(container->join(1), 0) << "while there is none";
  ASSERT_EQ(container->add(memory.at(), page), 0);
  EXPECT_EQ(container->map(0, memory.at(), page), -EPERM);
  EXPECT_EQ(container->create(12, gib), -EPERM);
  EXPECT_EQ(locked(), page);
  ASSERT_EQ(container->remove(0), 0);
  EXPECT_EQ(container->create(16, 4 * gib), -EPERM);
  ASSERT_EQ(container->leave(1), 0);
  EXPECT_EQ(container->create(16, 4 * gib), 0) << "alone again";
}

TEST_F(OnPseries, AMapPastAWindowsEndIsInterruptedAndUndone) {
  begin(1);
  const Memory memory(2 * page);
  ASSERT_EQ(container->enable(), 0);
  EXPECT_EQ(container->map(gib - page, memory.at(), 2 * page), -EINTR);
}

TEST_F(OnPseries, HasNoEeh) {
  begin(2);
  EXPECT_EQ(container->eeh(VFIO_EEH_PE_GET_STATE), -ENODEV);
  EXPECT_EQ(container->eeh(99), -ENODEV);
}

TEST_F(OnPseries, Version2FitsIntoDebiansLimit) {
  begin(2, 8 * mib);
  const Memory memory(8 * mib);
  ASSERT_EQ(container->add(memory.at(), 4 * mib), 0);
  EXPECT_EQ(container->map(0, memory.at(), 4 * mib), 0);
  EXPECT_EQ(locked(), 6 * mib);
  EXPECT_EQ(container->add(memory.at(4 * mib), 4 * mib), -ENOMEM);
}

TEST_F(OnPowernv, TablesOfSeveralLevelsAreMadeAsFarAsTheTreeFits) {
  begin(2);
  const std::uint32_t deepest = page == 4 * kib ? 4 : 3;
  for (std::uint32_t levels = 1; levels <= deepest; ++levels) {
    EXPECT_EQ(container->create(12, gib, levels), 0) << levels;
    EXPECT_EQ(container->remove(high), 0);
  }
  const std::uint64_t before = locked();
  for (const std::uint32_t levels : {0U, 6U}) EXPECT_EQ(container->create(12, gib, levels), -EINVAL) << levels;
  EXPECT_EQ(container->create(12, 3 * gib), -EINVAL);
  EXPECT_EQ(locked(), before);
  EXPECT_EQ(container->create(12, gib, 5), -EINVAL) << "though GET_INFO says that there are 5";
  EXPECT_GT(locked(), before) << "and what it would have cost stays counted";
}

TEST_F(OnPowernv, WindowsFollowTheSlotsThatAreFree) {
  begin(2);
  ASSERT_EQ(container->remove(0), 0);
  ASSERT_EQ(container->create(12, 4 * gib), 0);
  EXPECT_EQ(container->start, 0U);
  ASSERT_EQ(container->create(16, 4 * gib), 0);
  EXPECT_EQ(container->start, high);
  EXPECT_EQ(container->create(12, gib), -ENOSPC);
  ASSERT_EQ(container->remove(0), 0);
  ASSERT_EQ(container->create(30, std::uint64_t{1} << 40), 0) << "of pages of 1 GiB";
  EXPECT_EQ(container->start, 0U);
}

TEST_F(OnPowernv, ASmallWindowIsMadeAsLargeAsAPageOfItsTable) {
  begin(2);
  const Memory memory(page);
  const std::uint64_t smallest = page / 8 * 4 * kib;
  ASSERT_EQ(container->add(memory.at(), page), 0);
  ASSERT_EQ(container->create(12, smallest / 2), 0);
  EXPECT_EQ(locked(), page + 8 * mib + 2 * page);
  EXPECT_EQ(container->map(high + smallest - page, memory.at(), page), 0);
  EXPECT_EQ(container->map(high + smallest, memory.at(), page), -ENXIO);
}

TEST_F(OnPowernv, ALevelOfATableIsOnePieceOfMemory) {
  begin(2);
  EXPECT_EQ(container->create(12, 8 * gib, 1), 0);
  ASSERT_EQ(container->remove(high), 0);
  EXPECT_EQ(container->create(12, 16 * gib, 1), -ENOMEM);
  EXPECT_EQ(container->create(12, 16 * gib, 2), 0);
}

TEST_F(OnPowernv, TheDefaultTableAloneIsDebiansLimitAndASmallerOneFits) {
  begin(2, 8 * mib);
  const Memory memory(512 * kib);
  ASSERT_EQ(container->add(memory.at(), 512 * kib), 0);
  EXPECT_EQ(container->map(0, memory.at(), page), -ENOMEM);
  ASSERT_EQ(container->remove(0), 0);
  ASSERT_EQ(container->create(12, 64 * mib), 0);
  EXPECT_EQ(container->start, 0U);
  EXPECT_EQ(container->map(0, memory.at(), 512 * kib), 0);
  EXPECT_EQ(locked(), 768 * kib) << "as the kernel says";
}

TEST_F(OnPowernv, AMapPastAWindowsEndSucceedsAndDoesNoHarmHere) {
  begin(2);
  const Memory memory(2 * page);
  ASSERT_EQ(container->add(memory.at(), 2 * page), 0);
  EXPECT_EQ(container->map(2 * gib - page, memory.at(), 2 * page), 0);
  EXPECT_EQ(container->map(2 * gib, memory.at(), page), -ENXIO);
}

TEST_F(OnPowernv, EehAnswersAsAMachineThatNeverFreezes) {
  begin(2);
  EXPECT_EQ(container->eeh(VFIO_EEH_PE_GET_STATE), VFIO_EEH_PE_STATE_NORMAL);
  for (const std::uint32_t operation :
       {VFIO_EEH_PE_ENABLE, VFIO_EEH_PE_DISABLE, VFIO_EEH_PE_UNFREEZE_IO, VFIO_EEH_PE_UNFREEZE_DMA,
        VFIO_EEH_PE_RESET_HOT, VFIO_EEH_PE_RESET_FUNDAMENTAL, VFIO_EEH_PE_RESET_DEACTIVATE, VFIO_EEH_PE_CONFIGURE}) {
    EXPECT_EQ(container->eeh(operation), 0) << operation;
  }
  EXPECT_EQ(container->eeh(VFIO_EEH_PE_INJECT_ERR), -EIO);
  EXPECT_EQ(container->eeh(99), -EINVAL);
  EXPECT_EQ(container->eeh(VFIO_EEH_PE_GET_STATE, 1), -EINVAL);
}

// Makes DMA accesses through the domain of a container.
class Wires {
 public:
  explicit Wires(sim::Platform platform) : tce(make_tce_platform(platform)) {
    spapr.emplace(process, regions, *tce, Spapr::ResetGroup{}, 2);
    EXPECT_EQ(spapr->attach(0), 0);
  }
  void add(const Memory& memory, std::uint64_t size) {
    vfio_iommu_spapr_register_memory add{.argsz = sizeof add, .flags = 0, .vaddr = memory.at(), .size = size};
    ASSERT_EQ(spapr->ioctl(VFIO_IOMMU_SPAPR_REGISTER_MEMORY, &add), 0);
  }
  [[nodiscard]] int map(std::uint64_t iova, std::uint64_t address, std::uint64_t size, std::uint32_t flags = 3) {
    vfio_iommu_type1_dma_map map{.argsz = sizeof map, .flags = flags, .vaddr = address, .iova = iova, .size = size};
    return spapr->ioctl(VFIO_IOMMU_MAP_DMA, &map);
  }
  [[nodiscard]] bool writes(std::uint64_t iova) {
    constexpr std::array<std::byte, 8> bytes{std::byte{0xee}};
    return spapr->domain()->write({iova}, bytes);
  }
  [[nodiscard]] bool reads(std::uint64_t iova) {
    std::array<std::byte, 8> bytes{};
    return spapr->domain()->read({iova}, bytes);
  }

  Process process;
  MmRegions regions{process};
  std::unique_ptr<TcePlatform> tce;
  std::optional<Spapr> spapr;
};

class DmaOnPower : public ::testing::TestWithParam<sim::Platform> {
 protected:
  Wires wires{GetParam()};
  const std::uint64_t page = host_page();
  const Memory first{4 * page};
  const Memory second{4 * page};
};

TEST_P(DmaOnPower, GoesWhereItIsMappedAndTheLastMapWins) {
  wires.add(first, 4 * page);
  wires.add(second, 4 * page);
  EXPECT_FALSE(wires.writes(0));
  ASSERT_EQ(wires.map(0, first.at(), page), 0);
  ASSERT_EQ(wires.map(0, second.at(page), page), 0);
  EXPECT_TRUE(wires.writes(0));
  EXPECT_EQ(first.data()[0], std::byte{0});
  EXPECT_EQ(second.data()[page], std::byte{0xee});
}

TEST_P(DmaOnPower, IsHeldToTheAccessButForReadingOnPowernvWhatMayBeWritten) {
  wires.add(first, 4 * page);
  ASSERT_EQ(wires.map(0, first.at(), page, VFIO_DMA_MAP_FLAG_READ), 0);
  ASSERT_EQ(wires.map(page, first.at(page), page, VFIO_DMA_MAP_FLAG_WRITE), 0);
  EXPECT_TRUE(wires.reads(0));
  EXPECT_FALSE(wires.writes(0));
  EXPECT_TRUE(wires.writes(page));
  EXPECT_EQ(wires.reads(page), GetParam() == sim::Platform::powernv);
}

TEST_P(DmaOnPower, AFailingMapTakesAlongWhatItReplaced) {
  wires.add(first, 4 * page);
  wires.add(second, page);
  ASSERT_EQ(wires.map(0, first.at(), 4 * page), 0);
  EXPECT_EQ(wires.map(0, second.at(), 2 * page), -EINVAL);
  EXPECT_FALSE(wires.writes(0)) << "neither the old nor the new";
  EXPECT_TRUE(wires.writes(page)) << "not reached";
}

TEST_P(DmaOnPower, AGroupThatLeavesTakesAlongWhatIsMappedForTheOthers) {
  wires.add(first, 4 * page);
  ASSERT_EQ(wires.map(0, first.at(), page), 0);
  const bool shares = GetParam() == sim::Platform::powernv;
  EXPECT_EQ(wires.spapr->attach(1), shares ? 0 : -EPERM);
  EXPECT_TRUE(wires.writes(0));
  if (!shares) return;
  wires.spapr->detach(1);
  EXPECT_FALSE(wires.writes(0));
  EXPECT_EQ(wires.map(0, first.at(), page), 0) << "the window is still there";
  EXPECT_TRUE(wires.writes(0));
}

TEST_P(DmaOnPower, EndsWithTheWindow) {
  wires.add(first, 4 * page);
  ASSERT_EQ(wires.map(0, first.at(), page), 0);
  vfio_iommu_spapr_tce_remove remove{.argsz = sizeof remove, .flags = 0, .start_addr = 0};
  ASSERT_EQ(wires.spapr->ioctl(VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove), 0);
  EXPECT_FALSE(wires.writes(0));
}

TEST_P(DmaOnPower, AMapPastTheEndReachesNothingThere) {
  const bool is_powernv = GetParam() == sim::Platform::powernv;
  const std::uint64_t end = is_powernv ? 2 * gib : gib;
  wires.add(first, 4 * page);
  EXPECT_EQ(wires.map(end - page, first.at(), 2 * page), is_powernv ? 0 : -EINTR);
  EXPECT_EQ(wires.writes(end - page), is_powernv);
  EXPECT_FALSE(wires.writes(end));
}

INSTANTIATE_TEST_SUITE_P(Machines, DmaOnPower, ::testing::Values(sim::Platform::pseries, sim::Platform::powernv),
                         [](const auto& test) { return test.param == sim::Platform::pseries ? "pseries" : "powernv"; });

}  // namespace spapr_machines_test
}  // namespace postern::sim::spapr_test
