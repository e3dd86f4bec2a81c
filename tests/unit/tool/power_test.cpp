// SPDX-License-Identifier: Apache-2.0
// Conditions of POWER hosts, judged on fake hosts with figures of real kernels.
#include "host/power.hpp"

#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <postern-sim/kernel.hpp>
#include <postern/backend.hpp>
#include <postern/forwarding_kernel.hpp>

#include "host/backend_conditions.hpp"
#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace power_test {

using namespace std::string_literals;

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t gib = 1 << 30;
constexpr PciAddress nvme{.domain = 0, .bus = 0, .device = 0, .function = 0};
const std::string device_path = "/sys/bus/pci/devices/0000:00:00.0";
const std::string bridge_node = "/sys/firmware/devicetree/base/pci@800000020000000";

std::string limits_of(std::uint64_t bytes) {
  return "Max locked memory         " + std::to_string(bytes) + "             8388608              bytes     \n";
}

// A partition of a POWER machine, with an NVMe at 0000:00:00.0 bound to vfio-pci.
class Partition : public test::TreeKernel {
 public:
  Partition() {
    file("/proc/cpuinfo", "cpu\t\t: POWER9 (architected), altivec supported\nplatform\t: pSeries\nMMU\t\t: Radix\n");
    file("/proc/self/status", "Name:\tpostern\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nCapEff:\t0\n");
    file("/proc/self/limits", limits_of(8 * mib));
    link(device_path + "/of_node", "../../../firmware/devicetree/base/pci@800000020000000/mass-storage@0");
    link(device_path + "/subsystem", "../../../bus/pci");
    link(device_path + "/driver", "../../../bus/pci/drivers/vfio-pci");
    link(device_path + "/iommu_group", "../../../kernel/iommu_groups/0");
    directory("/sys/class/vfio/0");
    for (const char* name : {"/vendor", "/device"}) file(device_path + name, "0x1b36\n");
    file(device_path + "/class", "0x010802\n");
    link("/sys/kernel/iommu_groups/0/devices/0000:00:00.0", "../../../../devices/pci0000:00/0000:00:00.0");
    directory(bridge_node + "/mass-storage@0");
    file("/sys/firmware/devicetree/base/#address-cells", "\0\0\0\x02"s);  // a property, listed among the nodes
    file(bridge_node + "/ibm,dma-window", "\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0"s);
    file(bridge_node + "/ibm,ddw-applicable", "\0\0\0\x63"s);
  }
};

HostDevice device_of(Kernel& kernel) { return find_host_device(kernel, "pci", "0000:00:00.0").value(); }

bool mentions(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

const Condition* find(const std::vector<Condition>& conditions, std::string_view key) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(), [&](const auto& each) { return each.key == key; });
  return found == conditions.end() ? nullptr : &*found;
}

TEST(Machine, IsReadFromThePlatformOfTheProcessors) {
  test::TreeKernel kernel;
  EXPECT_EQ(read_machine(kernel), Machine::other);
  kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
  EXPECT_EQ(read_machine(kernel), Machine::other);
  kernel.file("/proc/cpuinfo", "platform\t: PowerNV\nmodel\t\t: IBM\n");
  EXPECT_EQ(read_machine(kernel), Machine::powernv);
  kernel.file("/proc/cpuinfo", "platform\t: pSeries\nmodel\t\t: IBM\n");
  EXPECT_EQ(read_machine(kernel), Machine::pseries);
}

TEST(Machine, OfTheSimulatedHostsIsWhatTheyAre) {
  sim::Kernel partition(sim::pseries());
  EXPECT_EQ(read_machine(partition), Machine::pseries);
  EXPECT_EQ(judge_dma_windows(partition, device_of(partition)).verdict, Verdict::met);
  sim::Kernel bare(sim::powernv());
  EXPECT_EQ(read_machine(bare), Machine::powernv);
  EXPECT_FALSE(device_of(bare).iommu_group) << "a root port";
  EXPECT_EQ(find_host_device(bare, "pci", "0001:01:00.0").value().iommu_group, GroupId{1});
  sim::Kernel pc;
  EXPECT_NE(read_machine(pc), Machine::pseries);
}

class LockedOnPower : public ::testing::Test {
 protected:
  [[nodiscard]] Condition judge(std::optional<std::uint64_t> asked) {
    const Backend* const spapr = find_backend("spapr").value();
    const std::vector<Examined> examined = {{.backend = spapr, .suits = true, .requirements = {}}};
    const HostDevice device = device_of(host_);
    return judge_memory(find_memory_needs(host_, examined, std::span(&device, 1), asked));
  }
  void SetUp() override {
    if (!find_backend("spapr")) GTEST_SKIP() << "this build leaves it out";
  }

  Partition host_;
};

TEST_F(LockedOnPower, IsJudgedByVersion2) {
  const Condition condition = judge(8 * mib);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "8 MiB to be mapped and 2 MiB for tables: too much")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "\"ulimit -l 10240\"")) << condition.remedy;
  host_.file("/proc/self/limits", limits_of(10 * mib));
  const Condition raised = judge(8 * mib);
  EXPECT_EQ(raised.verdict, Verdict::met);
  EXPECT_EQ(raised.remedy, "");
  EXPECT_TRUE(mentions(raised.detail, "for tables: allowed")) << raised.detail;
  EXPECT_TRUE(mentions(raised.detail, "1026 MiB for its whole window and table: too much")) << raised.detail;
  host_.file("/proc/self/limits", limits_of(gib + 2 * mib));
  EXPECT_FALSE(mentions(judge(8 * mib).detail, "too much"));
}

TEST_F(LockedOnPower, CannotBeJudgedWithoutAnAmountUnlessTheTableAloneIsTooMuch) {
  EXPECT_EQ(judge(std::nullopt).verdict, Verdict::unknown);
  host_.file("/proc/self/limits", limits_of(mib));
  EXPECT_EQ(judge(std::nullopt).verdict, Verdict::not_met);
}

TEST_F(LockedOnPower, IsUnknownWithoutADefaultWindow) {
  host_.remove(bridge_node + "/ibm,dma-window");
  const Condition condition = judge(8 * mib);
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "the size of the default DMA window is unknown")) << condition.detail;
  EXPECT_EQ(condition.remedy, "");
}

TEST_F(LockedOnPower, HasNoLimitForAProcessWithCapIpcLock) {
  host_.file("/proc/self/status", "VmLck:\t0 kB\nVmPin:\t0 kB\nCapEff:\t0000000000004000\n");
  EXPECT_EQ(judge(64 * gib).verdict, Verdict::met);
}

TEST(DmaWindows, AreMadeByAHypervisorThatSaysSo) {
  Partition host;
  EXPECT_EQ(judge_dma_windows(host, device_of(host)).verdict, Verdict::met);
}

TEST(DmaWindows, AreSoughtAboveBridgesToo) {
  Partition host;
  host.link(device_path + "/of_node",
            "../../../firmware/devicetree/base/pci@800000020000000/pci@1/pci@2/mass-storage@0");
  EXPECT_EQ(judge_dma_windows(host, device_of(host)).verdict, Verdict::met);
}

TEST(DmaWindows, ThatTheHypervisorDoesNotMakeHaveARemedy) {
  Partition host;
  host.remove(bridge_node + "/ibm,ddw-applicable");
  const Condition condition = judge_dma_windows(host, device_of(host));
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "ibm,ddw-applicable"));
  EXPECT_TRUE(mentions(condition.remedy, "ddw=on"));
}

TEST(DmaWindows, CannotBeJudgedWhereTheDeviceTreeIsSilent) {
  Partition host;
  host.remove(bridge_node + "/ibm,dma-window");
  EXPECT_EQ(judge_dma_windows(host, device_of(host)).verdict, Verdict::unknown);
  host.remove(device_path + "/of_node");
  EXPECT_EQ(judge_dma_windows(host, device_of(host)).verdict, Verdict::unknown);
}

TEST(PowerHost, LacksIommufdAndCdevsWithoutFault) {
  Partition host;
  const Diagnosis diagnosis = diagnose(host, {.device = nvme, .memory = std::nullopt});
  for (const Condition* condition : {find(diagnosis.host, "iommufd-node"), find(diagnosis.device, "cdev")}) {
    ASSERT_NE(condition, nullptr);
    EXPECT_EQ(condition->verdict, Verdict::optional);
    EXPECT_TRUE(mentions(condition->detail, "not for this processor"));
    EXPECT_EQ(condition->remedy, "");
  }
  EXPECT_EQ(find(diagnosis.device, "cdev-node"), nullptr);
}

// A partition whose kernel has not loaded the module for its IOMMU.
class WithoutModule : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    return request == VFIO_CHECK_EXTENSION ? 0 : ForwardingKernel::ioctl(fd, request, argument);
  }
};

TEST(PowerHost, WithoutItsModuleHasOneFaultWithOneRemedy) {
  if (!find_backend("spapr")) GTEST_SKIP() << "this build leaves it out";
  sim::Kernel partition(sim::pseries());
  WithoutModule kernel(partition);
  const Diagnosis diagnosis = diagnose(kernel, {.device = nvme, .memory = std::nullopt});
  EXPECT_EQ(diagnosis.not_met(), 1U);
  const Condition* backend = find(diagnosis.device, "backend-spapr");
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(backend->remedy, "\"modprobe vfio_iommu_spapr_tce\"")) << backend->remedy;
}

TEST(PowerHost, IsolatesInterruptsByItsHostBridges) {
  Partition host;
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
}

TEST(PowerHost, HasNothingToTurnOnThatIntelHas) {
  Partition host;
  host.remove("/sys/kernel/iommu_groups/0/devices/0000:00:00.0");
  const Condition condition = judge_iommu(host);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "CONFIG_SPAPR_TCE_IOMMU")) << condition.remedy;
  EXPECT_FALSE(mentions(condition.remedy, "intel"));
}

TEST(PowerHost, OfTheBareMachineHasNoHypervisorToAskForWindows) {
  Partition host;
  EXPECT_NE(find(judge_device(host, find_pci_function(host, nvme).value()), "dma-windows"), nullptr);
  host.file("/proc/cpuinfo", "platform\t: PowerNV\n");
  EXPECT_EQ(find(judge_device(host, find_pci_function(host, nvme).value()), "dma-windows"), nullptr);
}

}  // namespace power_test
}  // namespace postern::tool
