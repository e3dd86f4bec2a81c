// SPDX-License-Identifier: Apache-2.0
// The conditions for passing a device through, judged on fake hosts.
#include "host/conditions.hpp"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <limits>
#include <postern/host_device.hpp>

#include "host/backend_conditions.hpp"
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

constexpr const char* remapped =
    "            CPU0       CPU1\n   2:         11          0  IR-IO-APIC    2-edge      timer\n"
    "  24:          0          3  IR-PCI-MSIX-0000:00:02.0    0-edge      nvme0q0\n NMI:          0          0   "
    "Non-maskable interrupts\n";
constexpr const char* not_remapped =
    "            CPU0       CPU1\n   2:         11          0   IO-APIC    2-edge      timer\n"
    "  24:          0          3  DMAR-MSI    0-edge      dmar0\n"
    "  25:          0          3  PCI-MSI 524288-edge      IR-nvme0q0\n";

// A host on which an NVMe at 00:01.0 is ready to be passed through, by group and by cdev.
class Host : public test::TreeKernel {
 public:
  Host() {
    file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    file("/proc/self/limits", limits_of("8388608"));
    file("/proc/self/status", status_of("0000000000000000"));
    file("/proc/cmdline", "console=ttyS0 intel_iommu=on\n");
    file("/sys/class/iommu/dmar0/intel-iommu/ecap", "f00f5a\n");
    file("/proc/interrupts", remapped);
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

std::vector<Condition> conditions_of(Kernel& kernel, PciAddress address,
                                     const std::optional<VfToken>& token = std::nullopt) {
  const PciFunction function = find_pci_function(kernel, address).value();
  return judge_device(kernel, function, token, examine_backends(kernel, &function.host));
}

Condition one_of(const std::vector<Condition>& conditions, std::string_view key) {
  const Condition* found = find(conditions, key);
  if (found == nullptr) return {.key = "missing", .title = {}, .verdict = Verdict::unknown, .detail = {}, .remedy = {}};
  return *found;
}

Condition of_device(Kernel& kernel, std::string_view key, PciAddress address = nvme) {
  return one_of(conditions_of(kernel, address), key);
}

Condition of_host(Kernel& kernel, std::string_view key) { return one_of(diagnose(kernel, {}).host, key); }

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

class LockedMemoryOfBackends : public ::testing::Test {
 protected:
  // Of these backends, each of which can be used.
  [[nodiscard]] Condition judge(const std::vector<std::string_view>& names, std::optional<std::uint64_t> asked,
                                const std::vector<HostDevice>& devices = {}) {
    std::vector<Examined> examined;
    examined.reserve(names.size());
    for (const std::string_view name : names) {
      examined.push_back({.backend = find_backend(name).value(), .suits = true, .requirements = {}});
    }
    return judge_memory(find_memory_needs(host_, examined, devices, asked));
  }
  [[nodiscard]] Condition judge(std::optional<std::uint64_t> asked) { return judge({"iommufd", "type1"}, asked); }
  void use(std::uint64_t locked_kib, std::uint64_t pinned_kib) {
    host_.file("/proc/self/status", "VmLck:\t" + std::to_string(locked_kib) + " kB\nVmPin:\t" +
                                        std::to_string(pinned_kib) + " kB\nCapEff:\t0\n");
  }

  Host host_;
};

TEST_F(LockedMemoryOfBackends, HasNoLimitForAProcessWithCapIpcLock) {
  host_.file("/proc/self/status", status_of("0000000000004000"));
  const Condition condition = judge(64 * mib);
  EXPECT_EQ(condition.verdict, Verdict::met);
  EXPECT_TRUE(mentions(condition.detail, "type1 counts 64 MiB to be mapped: no limit")) << condition.detail;
}

TEST_F(LockedMemoryOfBackends, IsJudgedAgainstWhatIsNeededAndTheRemedyIsInKib) {
  EXPECT_EQ(judge(8 * mib).verdict, Verdict::met);
  const Condition condition = judge(8 * mib + 1);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "by user: too much; type1 counts")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "\"ulimit -l 8196\"")) << "whole pages: " << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "LimitMEMLOCK=8196K")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "\"sudo prlimit -p $$ -l$((8196*1024))\"")) << condition.remedy;
}

TEST_F(LockedMemoryOfBackends, IsCountedBesideWhatIsInUseOfTheSameCounter) {
  use(1024, 2048);
  const Condition condition = judge(6 * mib);
  EXPECT_TRUE(mentions(condition.detail,
                       "by user, beside 2 MiB in use: allowed unless other processes of this user "
                       "have pinned more than 0 bytes"))
      << condition.detail;
  EXPECT_TRUE(mentions(condition.detail, "type1 counts 6 MiB to be mapped, beside 1 MiB in use: allowed"))
      << condition.detail;
  const Condition more = judge(7 * mib);
  EXPECT_EQ(more.verdict, Verdict::met) << "type1 will do: " << more.detail;
  const Condition most = judge(8 * mib);
  EXPECT_EQ(most.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(most.remedy, "\"ulimit -l 10240\"")) << "of the first: " << most.remedy;
}

TEST_F(LockedMemoryOfBackends, ThatTheUserSharesIsUncertain) {
  EXPECT_EQ(judge({"iommufd"}, 8 * mib).verdict, Verdict::unknown);
  EXPECT_EQ(judge({"iommufd"}, 8 * mib).remedy, "");
  EXPECT_EQ(judge({"iommufd"}, 9 * mib).verdict, Verdict::not_met);
}

TEST_F(LockedMemoryOfBackends, OfDevicesThatMayNeedTwoContainersIsUncertain) {
  std::vector<HostDevice> devices(2);
  devices[0].iommu_group = GroupId{1};
  devices[1].iommu_group = GroupId{2};
  EXPECT_EQ(judge({"type1"}, 4 * mib, devices).verdict, Verdict::met);
  const Condition condition = judge({"type1"}, 8 * mib, devices);
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "8 MiB to be mapped, in 1 to 2 containers: too much if they cannot share"))
      << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "\"ulimit -l 16384\"")) << condition.remedy;
}

TEST_F(LockedMemoryOfBackends, OfABackendThatCannotBeUsedDoesNotDecide) {
  std::vector<Examined> examined;
  examined.push_back({.backend = find_backend("type1").value(), .suits = true, .requirements = {}});
  examined.front().requirements.push_back(
      {.key = "iommu", .title = "IOMMU", .node = "", .found = tl::unexpected(Error({.code = ENODEV}))});
  examined.push_back({.backend = find_backend("iommufd").value(), .suits = true, .requirements = {}});
  const MemoryNeeds found = find_memory_needs(host_, examined, {}, 8 * mib);
  ASSERT_EQ(found.needs.size(), 2U);
  EXPECT_EQ(found.needs.front().backend, "iommufd");
  EXPECT_EQ(judge_memory(found).verdict, Verdict::unknown) << "type1 alone would be met";
}

TEST_F(LockedMemoryOfBackends, CannotBeJudgedAgainstNothing) {
  const Condition condition = judge(std::nullopt);
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "8 MiB")) << condition.detail;
  EXPECT_TRUE(mentions(condition.detail, "--memory SIZE")) << condition.detail;
  EXPECT_EQ(judge({}, mib).verdict, Verdict::unknown) << "no backend";
}

TEST_F(LockedMemoryOfBackends, IsMetWithoutALimit) {
  host_.file("/proc/self/limits", limits_of("unlimited"));
  EXPECT_EQ(judge(std::nullopt).verdict, Verdict::met);
  EXPECT_EQ(judge(std::numeric_limits<std::uint64_t>::max()).verdict, Verdict::met);
}

TEST_F(LockedMemoryOfBackends, IsUnknownWithoutProc) {
  test::TreeKernel kernel;
  const Condition condition = judge_memory(find_memory_needs(kernel, {}, {}, mib));
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.remedy, "/proc")) << condition.remedy;
}

TEST(InterruptIsolation, IsMetWhereTheKernelRemapsInterrupts) {
  Host host;
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).detail, "interrupt remapping by dmar0");
}

TEST(InterruptIsolation, IsNotMetWhereTheKernelDoesNotAlthoughVtdCould) {
  Host host;
  host.file("/proc/interrupts", not_remapped);
  const Condition condition = judge_interrupt_isolation(host, std::nullopt);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "/proc/interrupts")) << condition.detail;
}

TEST(InterruptIsolation, IsTakenFromTheKernelAndNotFromItsParameters) {
  Host host;
  host.file("/proc/cmdline", "intremap=off\n");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
  host.file("/proc/interrupts", not_remapped);
  host.file("/proc/cmdline", "intremap=off intremap=on\n");
  EXPECT_FALSE(mentions(judge_interrupt_isolation(host, std::nullopt).remedy, "take")) << "the last word counts";
  host.file("/proc/cmdline", "intremap=off,nosid\n");
  const Condition condition = judge_interrupt_isolation(host, std::nullopt);
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.remedy, "remove \"off\" from \"intremap=off,nosid\"")) << condition.remedy;
  host.file("/proc/cmdline", "nointremap\n");
  EXPECT_TRUE(mentions(judge_interrupt_isolation(host, std::nullopt).remedy, "remove \"nointremap\" from"));
}

TEST(InterruptIsolation, IsToldOfAmdInTheSameWay) {
  Host host;
  host.remove("/sys/class/iommu/dmar0/intel-iommu/ecap");
  host.remove("/sys/class/iommu/dmar0/devices/0000:00:01.0");
  host.directory("/sys/class/iommu/ivhd0/devices/0000:00:02.0");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
  host.file("/proc/interrupts", not_remapped);
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::not_met);
}

TEST(InterruptIsolation, IsNotMetWhereNothingShowsAndBit3OfEcapIsMissing) {
  Host host;
  host.remove("/proc/interrupts");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::unknown) << "that it could is no proof";
  host.file("/sys/class/iommu/dmar0/intel-iommu/ecap", "f00f52\n");
  const Condition condition = of_host(host, "interrupt-isolation");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "dmar0 cannot"));
  EXPECT_TRUE(mentions(condition.remedy, "allow_unsafe_interrupts"));
}

TEST(InterruptIsolation, IsNotNeededForTheBackendAloneThatWasToldSo) {
  Host host;
  host.file("/proc/interrupts", not_remapped);
  host.file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
  host.file("/sys/module/iommufd/parameters/allow_unsafe_interrupts", "N\n");
  const Condition condition = of_host(host, "interrupt-isolation");
  EXPECT_EQ(condition.verdict, Verdict::optional);
  EXPECT_TRUE(mentions(condition.detail, "allow_unsafe_interrupts makes type1 accept that")) << condition.detail;
  const Diagnosis diagnosis = diagnose(host, {.device = nvme, .memory = std::nullopt});
  const Condition* iommufd = find(diagnosis.device, "backend-iommufd");
  ASSERT_NE(iommufd, nullptr);
  EXPECT_NE(iommufd->verdict, Verdict::met);
  EXPECT_TRUE(mentions(iommufd->detail, "not isolated")) << iommufd->detail;
}

TEST(InterruptIsolation, IsUnknownOnArm) {
  Host host;
  host.directory("/sys/class/iommu/smmu3.0x9050000/devices/0000:00:02.0");
  const Condition condition = judge_interrupt_isolation(host, "smmu3.0x9050000");
  EXPECT_EQ(condition.verdict, Verdict::unknown);
  EXPECT_TRUE(mentions(condition.detail, "smmu3"));
}

TEST(InterruptIsolation, DoesNotDependOnAnIommuWithoutDevices) {
  Host host;
  host.directory("/sys/class/iommu/iommufd_selftest_iommu.0/devices");
  EXPECT_EQ(judge_interrupt_isolation(host, std::nullopt).verdict, Verdict::met);
}

TEST(Node, ThatDoesNotExistHasTheRemedyThatBringsIt) {
  test::TreeKernel kernel;
  const Condition condition = of_host(kernel, "iommufd-node");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_EQ(condition.detail, "does not exist");
  EXPECT_TRUE(mentions(condition.remedy, "modprobe iommufd")) << condition.remedy;
}

TEST(Node, ThatIsMissingInAContainerAloneIsGivenToIt) {
  test::TreeKernel kernel;
  kernel.file("/sys/class/misc/vfio/dev", "10:196\n");
  const Condition condition = of_host(kernel, "container-node");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_FALSE(mentions(condition.remedy, "modprobe")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "--device /dev/vfio/vfio")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "mknod /dev/vfio/vfio c 10 196")) << condition.remedy;
}

TEST(Node, WhoseFolderIsMissingTooIsMadeWithIt) {
  test::TreeKernel kernel;
  kernel.file("/sys/class/misc/vfio/dev", "10:196\n");
  EXPECT_TRUE(
      mentions(of_host(kernel, "container-node").remedy, "\"mkdir -p /dev/vfio && mknod /dev/vfio/vfio c 10 196\""));
  kernel.directory("/dev/vfio");
  EXPECT_FALSE(mentions(of_host(kernel, "container-node").remedy, "mkdir"));
}

TEST(Node, ThatMayNotBeOpenedIsShownWithModeAndOwnerAndHowToChangeThem) {
  Host host;
  host.access_gives("/dev/vfio/2", -EACCES);
  const Condition condition = of_device(host, "group-node");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "crw------- root root")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "chown")) << condition.remedy;
}

TEST(Node, OfWhichTheModeAllowsWhatADeviceCgroupForbidsIsNotMet) {
  Host host;
  for (const char* const path : {"/dev/vfio/2", "/dev/vfio/devices/vfio0"}) host.open_gives(path, -EPERM);
  for (const char* const key : {"group-node", "cdev-node"}) {
    const Condition condition = of_device(host, key);
    EXPECT_EQ(condition.verdict, Verdict::not_met) << key;
    EXPECT_TRUE(mentions(condition.detail, "device cgroup")) << condition.detail;
    EXPECT_TRUE(mentions(condition.remedy, "DeviceAllow=/dev/vfio/")) << condition.remedy;
  }
}

TEST(Node, OfAGroupThatSomebodyHasOpenIsThere) {
  Host host;
  host.open_gives("/dev/vfio/2", -EBUSY);
  EXPECT_EQ(of_device(host, "group-node").verdict, Verdict::met) << "\"in use\" tells of that";
}

// A host on which every read from a device returns ones.
class SilentHost : public Host {
 public:
  SilentHost() { node("/sys/bus/pci/devices/0000:00:01.0/config", {.mode = S_IFREG | 0644U}); }
  ssize_t pread(int /*fd*/, void* buffer, std::size_t length, std::uint64_t /*offset*/) override {
    std::fill_n(static_cast<unsigned char*>(buffer), length, value);
    return static_cast<ssize_t>(length);
  }
  unsigned char value = 0xff;
};

TEST(Device, ThatDoesNotAnswerIsToldWithWhatToTry) {
  SilentHost host;
  host.file("/sys/bus/pci/devices/0000:00:01.0/power_state", "D3cold\n");
  const Condition condition = of_device(host, "answers");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "D3cold")) << condition.detail;
  EXPECT_TRUE(mentions(condition.detail, "EIO")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "0000:00:01.0/remove")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "pci/rescan")) << condition.remedy;
  host.value = 1;
  EXPECT_EQ(of_device(host, "answers").key, "missing");
}

TEST(AddressWidth, IsTheNarrowerOfWhatVtdTakesAndWhatItsPageTablesReach) {
  Host host;
  constexpr std::uint64_t gib = 1 << 30;
  EXPECT_EQ(judge_address_width(host, "dmar0", gib).verdict, Verdict::unknown) << "it does not say";
  // MGAW 39 bits, and page tables of 39 and 48 bits.
  host.file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40260662\n");
  EXPECT_EQ(judge_address_width(host, "dmar0", 256 * gib).verdict, Verdict::met);
  const Condition narrow = judge_address_width(host, std::nullopt, 1024 * gib);
  EXPECT_EQ(narrow.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(narrow.detail, "0x0-0x7fffffffff")) << narrow.detail;
  EXPECT_EQ(judge_address_width(host, "dmar0", 512 * gib).verdict, Verdict::not_met) << "interrupts take a part of it";
  // MGAW 57 bits, but page tables for only 48.
  host.file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40380462\n");
  EXPECT_EQ(judge_address_width(host, "dmar0", 1024 * gib).verdict, Verdict::met);
  EXPECT_EQ(judge_address_width(host, "dmar0", gib << 18).verdict, Verdict::not_met);
}

TEST(Device, ThatIsReadyMeetsEveryCondition) {
  Host host;
  for (const Condition& condition : conditions_of(host, nvme)) {
    EXPECT_EQ(condition.verdict, Verdict::met) << condition.key << ": " << condition.detail;
    EXPECT_EQ(condition.remedy, "") << condition.key;
  }
}

TEST(Device, ThatDoesNotExistHasNoOtherCondition) {
  Host host;
  const auto conditions =
      diagnose(host, {.device = PciAddress{.domain = 0, .bus = 9, .device = 9, .function = 0}}).device;
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
  EXPECT_EQ(condition.detail,
            "in the way: 0000:00:01.1 (nvme) and 0000:00:01.2 (ahci); they share the group because the functions of "
            "0000:00:01 have no ACS between them");
  EXPECT_TRUE(mentions(condition.remedy, "\"postern bind 0000:00:01.1\", \"postern bind 0000:00:01.2\""))
      << condition.remedy;
}

TEST(Device, ThatSharesItsGroupWithItsPhysicalFunctionIsNotToldToTakeThat) {
  Host host;
  add_device(host, "0000:00:01.1", "2", "nvme");
  host.link("/sys/bus/pci/devices/0000:00:01.0/physfn", "../0000:00:01.1");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_FALSE(mentions(condition.remedy, "postern bind")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "another slot")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.detail, "does not isolate 0000:00:01.0 from 0000:00:01.1")) << condition.detail;
}

TEST(Device, ThatIsAVirtualFunctionOfOneThatVfioHasNeedsAToken) {
  Host host;
  EXPECT_EQ(of_device(host, "vf-token").key, "missing");
  add_device(host, "0000:00:02.0", "3", "nvme");
  host.link("/sys/bus/pci/devices/0000:00:01.0/physfn", "../0000:00:02.0");
  EXPECT_EQ(of_device(host, "vf-token").key, "missing") << "the host's driver asks for none";
  add_device(host, "0000:00:02.0", "3", "vfio-pci");
  const Condition condition = of_device(host, "vf-token");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_TRUE(mentions(condition.detail, "0000:00:02.0")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "--vf-token")) << condition.remedy;
  const auto conditions = conditions_of(host, nvme, VfToken());
  ASSERT_NE(find(conditions, "vf-token"), nullptr);
  EXPECT_EQ(find(conditions, "vf-token")->verdict, Verdict::unknown);
}

TEST(Device, OfTheChipsetIsNotToldToTakeTheChipset) {
  Host host;
  add_device(host, "0000:00:01.1", "2", "i801_smbus");
  add_device(host, "0000:00:01.2", "2", "snd_hda_intel");
  for (const char* const folder : {"/sys/bus/pci/devices/", "/sys/kernel/iommu_groups/2/devices/"}) {
    host.file(std::string(folder) + "0000:00:01.1/class", "0x0c0500\n");
  }
  const Condition condition = of_device(host, "group-viable");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_FALSE(mentions(condition.remedy, "postern bind")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "another slot")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "0000:00:01.1 must keep its driver: it is part of the chipset"))
      << condition.remedy;
  EXPECT_TRUE(mentions(condition.detail, "functions of 0000:00:01 have no ACS")) << condition.detail;
}

TEST(Device, WhosePortDoesNotIsolateItNamesThePort) {
  Host host;
  add_device(host, "0000:00:00.0", "2", "pcieport");
  add_device(host, "0000:02:00.0", "2", "nvme");
  host.file("/sys/kernel/iommu_groups/2/devices/0000:00:00.0/class", "0x060400\n");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_TRUE(mentions(condition.detail, "because 0000:00:00.0 has no ACS")) << condition.detail;
  EXPECT_TRUE(mentions(condition.remedy, "\"postern bind 0000:02:00.0\"")) << condition.remedy;
}

// Adds a disk controller to the device's group. `opened` is the result of opening the disk's partition exclusively.
void add_disk_in_group(Host& host, int opened) {
  add_device(host, "0000:00:01.1", "2", "ahci");
  host.link("/sys/class/block/sda1", "../../devices/pci0000:00/0000:00:01.1/ata1/host0/block/sda/sda1");
  host.file("/sys/class/block/sda1/dev", "8:1\n");
  host.node("/dev/sda1", {.mode = S_IFBLK | 0660U, .device = makedev(8, 1)});
  host.open_gives("/dev/sda1", opened);
}

TEST(Device, IsNotToldToTakeTheControllerThatADiskOfTheHostIsBehind) {
  Host host;
  add_disk_in_group(host, -EBUSY);
  host.file("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_FALSE(mentions(condition.remedy, "postern bind")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "sda1 holds the root file system")) << condition.remedy;
}

TEST(Device, IsNotAdvisedToTakeMembersWhoseUseIsUnknown) {
  Host host;
  add_disk_in_group(host, -EACCES);
  host.file("/proc/self/mountinfo", "");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_EQ(condition.verdict, Verdict::not_met);
  EXPECT_FALSE(mentions(condition.remedy, "postern bind")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "0000:00:01.1")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "unknown whether")) << condition.remedy;
}

TEST(Device, IsNotToldToTakeAMemberOfAnotherBus) {
  Host host;
  const std::string member = "/sys/kernel/iommu_groups/2/devices/a0000.ethernet";
  host.link(member + "/subsystem", "../../../bus/platform");
  host.link(member + "/driver", "../../../bus/platform/drivers/stmmac");
  const Condition condition = of_device(host, "group-viable");
  EXPECT_TRUE(mentions(condition.detail, "a0000.ethernet (stmmac)")) << condition.detail;
  EXPECT_FALSE(mentions(condition.remedy, "unbind")) << condition.remedy;
  EXPECT_TRUE(mentions(condition.remedy, "platform")) << condition.remedy;
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
  EXPECT_TRUE(mentions(condition.detail, "unknown: this is a PID namespace")) << condition.detail;
}

TEST(Device, ThatThisHostUsesIsToldSoBeforeItIsBound) {
  Host host;
  add_device(host, "0000:00:01.0", "2", "mlx5_core");
  host.file("/sys/bus/pci/devices/0000:00:01.0/sriov_numvfs", "2\n");
  const auto conditions = conditions_of(host, nvme);
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

// A process without free fds: a failed read does not mean that something does not exist.
class ExhaustedHost : public Host {
 public:
  int lack = -EMFILE;
  int open(const char* /*path*/, int /*flags*/) override { return lack; }
  int read_file(const std::string& /*path*/, std::string& /*contents*/) override { return lack; }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return called_by_itself_ ? Host::list_directory(path, names) : lack;
  }
  int status(const std::string& path, FileStatus& status) override {
    if (hides_all) return lack;
    called_by_itself_ = true;
    const int result = Host::status(path, status);
    called_by_itself_ = false;
    return result;
  }
  bool hides_all = false;

 private:
  bool called_by_itself_ = false;
};

TEST(Diagnosis, OfAProcessWithoutFileDescriptorsCannotTell) {
  ExhaustedHost host;
  for (const bool hides_all : {false, true}) {
    host.hides_all = hides_all;
    const Diagnosis diagnosis = diagnose(host, {.device = nvme, .memory = mib});
    for (const char* key : {"iommu", "container-node", "iommufd-node", "locked-memory"}) {
      const Condition* condition = find(diagnosis.host, key);
      ASSERT_NE(condition, nullptr) << key;
      EXPECT_EQ(condition->verdict, Verdict::unknown) << key;
      EXPECT_TRUE(mentions(condition->detail, "EMFILE")) << condition->detail;
    }
    EXPECT_TRUE(mentions(find(diagnosis.host, "interrupt-isolation")->detail, "EMFILE"));
    EXPECT_EQ(find(diagnosis.host, "vfio-pci")->verdict, hides_all ? Verdict::unknown : Verdict::met);
    EXPECT_TRUE(mentions(diagnosis.device.front().detail, "EMFILE")) << diagnosis.device.front().detail;
    for (const auto* part : {&diagnosis.host, &diagnosis.device}) {
      for (const Condition& condition : *part) {
        for (const char* wrong : {"mount /proc", "modprobe", "firmware", "postern bind"})
          EXPECT_FALSE(mentions(condition.remedy, wrong)) << condition.key << ": " << condition.remedy;
      }
    }
    EXPECT_TRUE(mentions(find(diagnosis.host, "locked-memory")->remedy, "ulimit -n"));
  }
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
  // Forgiven only if the other backend can be used, as its probe decides.
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
