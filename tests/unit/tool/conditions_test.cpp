// SPDX-License-Identifier: Apache-2.0
// The conditions of passing a device through, judged on hosts that are made up.
#include "host/conditions.hpp"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <postern/host_device.hpp>

#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace conditions_test {

constexpr std::uint64_t mib = 1 << 20;
constexpr PciAddress nvme{.domain = 0, .bus = 0, .device = 1, .function = 0};

std::string limits_of(const std::string& soft) {
  return "Limit                     Soft Limit           Hard Limit           Units     \n"
         "Max processes             31234                31234                processes \n"
         "Max locked memory         " +
         soft + "             8388608              bytes     \n";
}

std::string status_of(const std::string& capabilities) {
  return "Name:\tpostern\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nCapEff:\t" + capabilities + "\n";
}

void add_device(test::TreeKernel& kernel, const std::string& address, const std::string& group,
                const std::string& driver) {
  const std::string path = "/sys/bus/pci/devices/" + address;
  const std::string member = "/sys/kernel/iommu_groups/" + group + "/devices/" + address;
  for (const std::string& each : {path, member}) {
    kernel.directory(each);
    kernel.link(each + "/subsystem", "../../../bus/pci");
    kernel.link(each + "/iommu_group", "../../../kernel/iommu_groups/" + group);
    if (!driver.empty()) kernel.link(each + "/driver", "../../../bus/pci/drivers/" + driver);
    const std::string cdev = each + "/vfio-dev/vfio" + address.back();
    kernel.remove(cdev + "/dev");
    kernel.remove(cdev);
    if (is_vfio_driver(driver)) kernel.directory(cdev);
    kernel.file(each + "/vendor", "0x1b36\n");
    kernel.file(each + "/device", "0x0010\n");
    kernel.file(each + "/class", "0x010802\n");
  }
  kernel.link(path + "/iommu", "../../virtual/iommu/dmar0");
  kernel.file("/sys/kernel/iommu_groups/" + group + "/reserved_regions", "0x00000000fee00000 0x00000000feefffff msi\n");
}

// A host on which an NVMe at 00:01.0 is ready to be passed through, by group and by cdev.
class Host : public test::TreeKernel {
 public:
  Host() {
    file("/proc/self/limits", limits_of("8388608"));
    file("/proc/self/status", status_of("0000000000000000"));
    file("/proc/cmdline", "console=ttyS0 intel_iommu=on\n");
    file("/sys/class/iommu/dmar0/intel-iommu/ecap", "f00f5a\n");
    link("/sys/class/iommu/dmar0/devices/0000:00:01.0", "../../../../pci0000:00/0000:00:01.0");
    directory("/sys/bus/pci/drivers/vfio-pci");
    node("/dev/vfio/vfio", {.mode = S_IFCHR | 0666U});
    node("/dev/iommu", {.mode = S_IFCHR | 0666U});
    node("/dev/vfio/2", {.mode = S_IFCHR | 0600U});
    add_device(*this, "0000:00:01.0", "2", "vfio-pci");
    file("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio0/dev", "243:0\n");
    node("/dev/vfio/devices/vfio0", {.mode = S_IFCHR | 0600U, .owner = 0, .group = 0, .device = makedev(243, 0)});
    link("/proc/self", "100");
    directory("/proc/100/fd");
  }
};

const Condition* find(const std::vector<Condition>& conditions, std::string_view key) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(), [&](const auto& each) { return each.key == key; });
  return found == conditions.end() ? nullptr : &*found;
}

Condition of_device(Kernel& kernel, std::string_view key, PciAddress address = nvme) {
  const auto conditions = judge_device(kernel, address);
  const Condition* found = find(conditions, key);
  if (found == nullptr) return {.key = "missing", .title = {}, .verdict = Verdict::unknown, .detail = {}, .remedy = {}};
  return *found;
}

bool mentions(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

TEST(Iommu, IsOnWhereThereAreGroups) {
  Host host;
  EXPECT_EQ(judge_iommu(host).verdict, Verdict::met);
  EXPECT_EQ(judge_iommu(host).detail, "on, 1 group");
}

TEST(Iommu, IsOffWithoutGroupsAndTheRemedyFitsTheMachine) {
  test::TreeKernel kernel;
  kernel.directory("/sys/kernel/iommu_groups");
  kernel.file("/proc/cmdline", "quiet\n");
  kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n");
  EXPECT_EQ(judge_iommu(kernel).verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(judge_iommu(kernel).remedy, "intel_iommu=on"));
  kernel.file("/proc/cmdline", "quiet intel_iommu=on\n");
  EXPECT_TRUE(mentions(judge_iommu(kernel).remedy, "VT-d"));
  EXPECT_FALSE(mentions(judge_iommu(kernel).remedy, "boot with"));
  kernel.file("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu vme\n");
  EXPECT_TRUE(mentions(judge_iommu(kernel).remedy, "AMD-Vi"));
  kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vme\n");
  EXPECT_TRUE(mentions(judge_iommu(kernel).remedy, "virtual IOMMU"));
  kernel.file("/proc/cmdline", "quiet iommu=off\n");
  EXPECT_TRUE(mentions(judge_iommu(kernel).remedy, "\"iommu=off\""));
}

TEST(LockedMemory, HasNoLimitForAProcessWithCapIpcLock) {
  Host host;
  host.file("/proc/self/status", status_of("0000000000004000"));
  EXPECT_EQ(judge_locked_memory(host, 64 * mib).verdict, Verdict::met);
}

TEST(LockedMemory, IsJudgedAgainstWhatIsNeededAndTheRemedyIsInKib) {
  Host host;
  EXPECT_EQ(judge_locked_memory(host, 8 * mib).verdict, Verdict::met);
  const Condition condition = judge_locked_memory(host, 8 * mib + 1);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "\"ulimit -l 8193\"")) << condition.remedy;
}

TEST(LockedMemory, CannotBeJudgedAgainstNothing) {
  Host host;
  EXPECT_EQ(judge_locked_memory(host, std::nullopt).verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(judge_locked_memory(host, std::nullopt).detail, "8 MiB"));
}

TEST(LockedMemory, IsMetWithoutALimit) {
  Host host;
  host.file("/proc/self/limits", limits_of("unlimited"));
  EXPECT_EQ(judge_locked_memory(host, std::nullopt).verdict, Verdict::met);
}

TEST(LockedMemory, IsUnknownWithoutProc) {
  test::TreeKernel kernel;
  EXPECT_EQ(judge_locked_memory(kernel, mib).verdict, Verdict::unknown);
}

TEST(InterruptIsolation, IsMetWhereVtdRemapsInterrupts) {
  Host host;
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
}

TEST(InterruptIsolation, IsNotMetWhereBit3OfEcapIsMissing) {
  Host host;
  host.file("/sys/class/iommu/dmar0/intel-iommu/ecap", "f00f52\n");
  const Condition condition = judge_interrupt_isolation(host, std::nullopt);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "allow_unsafe_interrupts"));
}

TEST(InterruptIsolation, IsNotNeededWhereTheKernelWasToldSo) {
  Host host;
  host.file("/sys/class/iommu/dmar0/intel-iommu/ecap", "f00f52\n");
  host.file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::optional);
}

TEST(InterruptIsolation, IsNotMetWhereTheCommandLineTurnsItOff) {
  Host host;
  host.file("/proc/cmdline", "intel_iommu=on intremap=off\n");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::not_met);
}

TEST(InterruptIsolation, LooksAtTheDevicesOwnIommuAlone) {
  Host host;
  host.file("/sys/class/iommu/dmar1/intel-iommu/ecap", "f00f52\n");
  host.directory("/sys/class/iommu/dmar1/devices/0000:00:02.0");
  EXPECT_EQ(judge_interrupt_isolation(host, "dmar0").verdict, Verdict::met);
  EXPECT_EQ(judge_interrupt_isolation(host, "dmar1").verdict, Verdict::not_met);
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::not_met);
}

TEST(InterruptIsolation, CannotBeToldOfAmdAndArm) {
  Host host;
  host.remove("/sys/class/iommu/dmar0/intel-iommu/ecap");
  host.file("/sys/class/iommu/ivhd0/amd-iommu/cap", "190b640f\n");
  host.directory("/sys/class/iommu/ivhd0/devices/0000:00:02.0");
  const Condition condition = judge_interrupt_isolation(host, std::nullopt);
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "ivhd0"));
}

TEST(InterruptIsolation, DoesNotDependOnAnIommuWithoutDevices) {
  Host host;
  host.directory("/sys/class/iommu/iommufd_selftest_iommu.0/devices");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
}

TEST(Node, ThatDoesNotExistHasTheRemedyItWasGiven) {
  test::TreeKernel kernel;
  const Condition condition = judge_node(kernel, "iommufd-node", "/dev/iommu", "load it");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_EQ(condition.detail, "does not exist");
  EXPECT_EQ(condition.remedy, "load it");
}

TEST(Node, ThatMayNotBeOpenedIsShownWithModeAndOwnerAndHowToChangeThem) {
  Host host;
  host.access_gives("/dev/vfio/2", -EACCES);
  const Condition condition = judge_node(host, "group-node", "/dev/vfio/2", "");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "crw------- root root")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "chown")) << condition.remedy;
}

TEST(Device, ThatIsReadyMeetsEveryCondition) {
  Host host;
  for (const Condition& condition : judge_device(host, nvme)) {
    EXPECT_EQ(condition.verdict, Verdict::met) << condition.key << ": " << condition.detail;
    EXPECT_EQ(condition.remedy, "") << condition.key;
  }
}

TEST(Device, ThatDoesNotExistHasNoOtherCondition) {
  Host host;
  const auto conditions = judge_device(host, {.domain = 0, .bus = 9, .device = 9, .function = 0});
  ASSERT_EQ(conditions.size(), 1U);
  EXPECT_EQ(conditions.front().verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(conditions.front().remedy, "postern devices"));
}

TEST(Device, OnItsOwnDriverIsToBeBound) {
  Host host;
  add_device(host, "0000:00:01.0", "2", "nvme");
  const Condition condition = of_device(host, "driver");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "nvme"));
  EXPECT_EQ(condition.remedy, "\"postern bind 0000:00:01.0\"");
  EXPECT_EQ(of_device(host, "group-viable").verdict, Verdict::met) << "it does not stand in its own way";
  EXPECT_EQ(of_device(host, "group-node").verdict, Verdict::unknown);
  EXPECT_EQ(of_device(host, "cdev").verdict, Verdict::unknown);
}

TEST(Device, OfAVendorsDriverThatServesVfioIsBound) {
  Host host;
  add_device(host, "0000:00:01.0", "2", "nvidia");
  host.file("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio0/dev", "243:0\n");
  const Condition condition = of_device(host, "driver");
  EXPECT_EQ(condition.verdict, Verdict::met) << condition.detail;
  EXPECT_EQ(condition.detail, "nvidia");
}

TEST(Device, OfADriverThatIsOnlyCalledLikeOneOfVfioIsNotBound) {
  Host host;
  add_device(host, "0000:00:01.0", "2", "not-really-vfio");
  host.remove("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio0");
  host.directory("/sys/class/vfio-dev");
  EXPECT_EQ(of_device(host, "driver").verdict, Verdict::not_met);
}

TEST(Device, WithOthersInItsGroupNamesEachThatStandsInTheWay) {
  Host host;
  add_device(host, "0000:00:01.1", "2", "nvme");
  add_device(host, "0000:00:01.2", "2", "ahci");
  add_device(host, "0000:00:01.3", "2", "");
  add_device(host, "0000:00:01.4", "2", "vfio-pci");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_EQ(condition.detail, "in the way: 0000:00:01.1 (nvme) and 0000:00:01.2 (ahci)");
  EXPECT_TRUE(mentions(condition.remedy, "\"postern bind 0000:00:01.1\" and \"postern bind 0000:00:01.2\""));
}

TEST(Device, BehindNoIommuSaysSo) {
  Host host;
  host.remove("/sys/bus/pci/devices/0000:00:01.0/iommu_group");
  const Condition condition = of_device(host, "iommu-group");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_FALSE(condition.remedy.empty());
}

TEST(Device, WhoseFirmwareKeepsMemoryMappedCannotBePassedThrough) {
  Host host;
  host.file("/sys/kernel/iommu_groups/2/reserved_regions",
            "0x00000000ddd5f000 0x00000000ddd6dfff direct\n0x00000000fee00000 0x00000000feefffff msi\n");
  const Condition condition = of_device(host, "firmware-ranges");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "0x00000000ddd5f000"));
}

TEST(Device, WhoseFirmwareRangesAreRelaxableCanBePassedThrough) {
  Host host;
  host.file("/sys/kernel/iommu_groups/2/reserved_regions", "0x00000000ddd5f000 0x00000000ddd6dfff direct-relaxable\n");
  EXPECT_EQ(of_device(host, "firmware-ranges").verdict, Verdict::met);
}

TEST(Device, WithoutANumberOfItsCdevBlamesTheKernelsConfiguration) {
  Host host;
  host.remove("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio0/dev");
  host.directory("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio0");
  const Condition condition = of_device(host, "cdev");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "CONFIG_VFIO_DEVICE_CDEV"));
}

TEST(Device, WithACdevNodeOfAnotherNumberIsStale) {
  Host host;
  host.node("/dev/vfio/devices/vfio0", {.mode = S_IFCHR | 0600U, .owner = 0, .group = 0, .device = makedev(243, 7)});
  const Condition condition = of_device(host, "cdev-node");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "udevadm"));
}

TEST(Device, ThatSomebodyHasOpenNamesTheProcess) {
  Host host;
  host.link("/proc/4711/fd/9", "/dev/vfio/2");
  host.file("/proc/4711/comm", "qemu-system-x86\n");
  const Condition condition = of_device(host, "not-in-use");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "qemu-system-x86 (pid 4711)")) << condition.detail;
}

TEST(Device, ThatMayBeOpenOutsideOfThisPidNamespaceIsNotCalledUnused) {
  Host host;
  host.link("/proc/self/ns/pid", "pid:[4026532441]");
  const Condition condition = of_device(host, "not-in-use");
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "cannot tell: this is a PID namespace")) << condition.detail;
}

TEST(Device, ThatThisHostUsesIsToldSoBeforeItIsBound) {
  Host host;
  add_device(host, "0000:00:01.0", "2", "mlx5_core");
  host.file("/sys/bus/pci/devices/0000:00:01.0/sriov_numvfs", "2\n");
  const auto conditions = judge_device(host, nvme);
  const Condition* use = find(conditions, "not-in-use");
  ASSERT_NE(use, nullptr);
  EXPECT_EQ(use->verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(use->detail, "2 virtual functions")) << use->detail;
  EXPECT_LT(use, find(conditions, "driver")) << "what is first to be put right stands first";
}

TEST(Device, ThatIsABridgeIsNotPassedThrough) {
  Host host;
  host.file("/sys/bus/pci/devices/0000:00:01.0/class", "0x060400\n");
  EXPECT_EQ(of_device(host, "device").verdict, Verdict::not_met);
}

TEST(Diagnosis, OfAHostAloneHasNoDevice) {
  Host host;
  const Diagnosis diagnosis = diagnose(host, {});
  EXPECT_TRUE(diagnosis.device.empty());
  EXPECT_NE(find(diagnosis.host, "iommu"), nullptr);
  EXPECT_NE(find(diagnosis.host, "locked-memory"), nullptr);
}

TEST(Diagnosis, ForgivesWhatOnlyOneOfTwoWaysNeeds) {
  Host host;
  host.remove("/dev/vfio/vfio");
  const Diagnosis diagnosis = diagnose(host, {.device = nvme, .memory = std::nullopt});
  const Condition* node = find(diagnosis.host, "container-node");
  ASSERT_NE(node, nullptr);
  // Only where the other way is open, which the probe of the backend decides.
  const Condition* iommufd = find(diagnosis.device, "backend-iommufd");
  if (iommufd != nullptr && iommufd->verdict == Verdict::met) {
    EXPECT_EQ(node->verdict, Verdict::optional);
  } else {
    EXPECT_EQ(node->verdict, Verdict::not_met);
  }
}

TEST(Diagnosis, ForgivesNothingWhereNoWayIsOpen) {
  Host host;
  host.remove("/dev/vfio/vfio");
  host.remove("/dev/iommu");
  const Diagnosis diagnosis = diagnose(host, {.device = nvme, .memory = std::nullopt});
  for (const char* key : {"container-node", "iommufd-node"}) {
    ASSERT_NE(find(diagnosis.host, key), nullptr);
    EXPECT_EQ(find(diagnosis.host, key)->verdict, Verdict::not_met) << key;
  }
  EXPECT_GE(diagnosis.not_met(), 2U);
}

}  // namespace conditions_test
}  // namespace postern::tool
