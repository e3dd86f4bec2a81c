// SPDX-License-Identifier: Apache-2.0
// The remedy for a host whose kernel uses no IOMMU, on fake hosts.
#include "host/turn_iommu_on.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <postern-sim/kernel.hpp>
#include <postern/host_device.hpp>

#include "host/kernel_parameters.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace turn_iommu_on_test {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* intel = "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n";
constexpr const char* intel_guest = "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vme\n";
constexpr std::array<std::string_view, 2> on_off = {"on", "off"};

// An Intel PC without groups, whose firmware describes VT-d or not.
class Pc : public test::TreeKernel {
 public:
  explicit Pc(const std::string& command_line, bool describes_vtd = true) {
    directory("/sys/kernel/iommu_groups");
    file("/proc/cpuinfo", intel);
    file("/proc/cmdline", command_line + "\n");
    file("/sys/firmware/acpi/tables/FACP", "");
    if (describes_vtd) file("/sys/firmware/acpi/tables/DMAR", "");
  }
};

std::string last_word(const std::string& command_line) {
  Pc pc(command_line);
  const auto word = KernelParameters::read(pc)->last_of("intel_iommu", on_off);
  return word ? word->text : "none";
}

TEST(KernelParameters, AreListsOfWhichTheLastWordWins) {
  EXPECT_EQ(last_word("quiet"), "none");
  EXPECT_EQ(last_word("intel_iommu=on,igfx_off"), "on");
  EXPECT_EQ(last_word("intel_iommu=igfx_off"), "none");
  EXPECT_EQ(last_word("intel_iommu=off,strict"), "off");
  EXPECT_EQ(last_word("intel_iommu=off ro intel_iommu=on"), "on");
  EXPECT_EQ(last_word("intel_iommu=on,off"), "off");
  EXPECT_EQ(last_word("not_intel_iommu=on"), "none");
}

TEST(KernelParameters, MayBeQuotedAndEndWhereThoseOfInitBegin) {
  EXPECT_EQ(last_word("intel_iommu=\"on,sm_on\""), "on");
  EXPECT_EQ(last_word("\"intel_iommu=off\""), "off");
  EXPECT_EQ(last_word("dyndbg=\"file x +p; intel_iommu=off\" quiet"), "none");
  EXPECT_EQ(last_word("intel-iommu=on"), "on") << "the kernel takes '-' for '_'";
  EXPECT_EQ(last_word("quiet -- intel_iommu=on"), "none");
}

TEST(TurnIommuOn, TakesOffOffTheCommandLineWhereItIsTheLastWord) {
  Pc listed("intel_iommu=off,strict");
  EXPECT_EQ(turn_iommu_on(listed)->text(),
            "remove \"off\" from \"intel_iommu=off,strict\" on the kernel's command line, and reboot");
  Pc alone("ro intel_iommu=off");
  EXPECT_EQ(turn_iommu_on(alone)->text(), "remove \"intel_iommu=off\" from the kernel's command line, and reboot");
  Pc on_again("intel_iommu=off ro intel_iommu=on");
  EXPECT_THAT(turn_iommu_on(on_again)->text(), Not(HasSubstr("remove")));
}

TEST(TurnIommuOn, KnowsThatNothingTakesOffBackFromIommuAndAmdIommu) {
  Pc pc("iommu=off iommu=pt intel_iommu=on");
  EXPECT_THAT(turn_iommu_on(pc)->text(), HasSubstr("remove \"iommu=off\" from"));
  Pc amd("amd_iommu=off amd_iommu=force_isolation", false);
  EXPECT_THAT(turn_iommu_on(amd)->text(), HasSubstr("remove \"amd_iommu=off\" from"));
}

TEST(TurnIommuOn, LooksAtTheParametersOfTheIommuThatTheFirmwareDescribes) {
  Pc pc("amd_iommu=off");
  EXPECT_EQ(turn_iommu_on(pc)->text(), "boot with \"intel_iommu=on\" on the kernel's command line");
  Pc amd("intel_iommu=off", false);
  amd.file("/sys/firmware/acpi/tables/IVRS", "");
  EXPECT_THAT(turn_iommu_on(amd)->text(), AllOf(HasSubstr("AMD-Vi"), Not(HasSubstr("remove"))))
      << "though the processor is Intel's";
}

TEST(TurnIommuOn, BlamesTheFirmwareOnlyWhereItDescribesNone) {
  Pc without("intel_iommu=on,igfx_off", false);
  EXPECT_THAT(turn_iommu_on(without)->text(),
              AllOf(HasSubstr("no DMAR"), HasSubstr("turn on VT-d"), Not(HasSubstr("boot"))));
  Pc with("intel_iommu=on,igfx_off");
  EXPECT_THAT(turn_iommu_on(with)->text(), AllOf(HasSubstr("dmesg"), Not(HasSubstr("turn on VT-d"))));
}

TEST(TurnIommuOn, SaysUnderXenThatXenHasTheIommu) {
  Pc dom0("intel_iommu=on", false);
  dom0.file("/sys/hypervisor/type", "xen\n");
  dom0.file("/proc/xen/capabilities", "control_d\n");
  EXPECT_THAT(turn_iommu_on(dom0)->text(), AllOf(HasSubstr("dom0"), Not(HasSubstr("QEMU"))));
  dom0.file("/proc/xen/capabilities", "\n");
  EXPECT_THAT(turn_iommu_on(dom0)->text(), AllOf(HasSubstr("Xen guest"), Not(HasSubstr("QEMU"))));
}

TEST(TurnIommuOn, SaysInACloudThatItGivesNone) {
  Pc guest("quiet", false);
  guest.file("/proc/cpuinfo", intel_guest);
  EXPECT_THAT(turn_iommu_on(guest)->text(), AllOf(HasSubstr("QEMU"), HasSubstr("intel_iommu=on")));
  guest.file("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
  EXPECT_THAT(turn_iommu_on(guest)->text(), AllOf(HasSubstr(".metal"), Not(HasSubstr("QEMU"))));
  guest.file("/sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n");
  EXPECT_THAT(turn_iommu_on(guest)->text(), HasSubstr("Hyper-V"));
}

TEST(TurnIommuOn, TakesAVirtualMachineWithAVirtualIommuForAnyOther) {
  Pc guest("quiet");
  guest.file("/proc/cpuinfo", intel_guest);
  EXPECT_EQ(turn_iommu_on(guest)->text(), "boot with \"intel_iommu=on\" on the kernel's command line");
}

TEST(TurnIommuOn, OnASimulatedHostIsOfThatHost) {
  sim::Host host = sim::pc();
  for (sim::HostFunction& function : host.functions) {
    function.iommu_group = -1;
    function.driver.clear();
  }
  sim::Kernel pc(host);
  EXPECT_THAT(turn_iommu_on(pc)->text(), AllOf(HasSubstr("no DMAR"), HasSubstr("intel_iommu=on")));
  host.platform = sim::Platform::arm;
  host.address_bits = 48;
  sim::Kernel arm(host);
  EXPECT_THAT(turn_iommu_on(arm)->text(), AllOf(HasSubstr("device tree"), Not(HasSubstr("VT-d"))));
}

TEST(SimulatedProc, ShowsNothingOfThisMachineButTheProcessItself) {
  sim::Kernel kernel(sim::pc());
  std::string text;
  ASSERT_EQ(kernel.read_file("/proc/cmdline", text), 0);
  EXPECT_EQ(text, "quiet intel_iommu=on\n");
  ASSERT_EQ(kernel.read_file("/proc/interrupts", text), 0);
  EXPECT_THAT(text, HasSubstr(" IR-IO-APIC "));
  EXPECT_EQ(kernel.read_file("/proc/swaps", text), -ENOENT);
  EXPECT_EQ(kernel.read_file("/proc/self/status", text), 0);
  // Otherwise a program with this machine's /dev/vfio/1 open would seem to use the simulated one.
  std::vector<std::string> names;
  ASSERT_EQ(kernel.list_directory("/proc", names), 0);
  for (const std::string& name : names)
    EXPECT_TRUE(name == "1" || name.find_first_of("0123456789") == std::string::npos) << name;
  ASSERT_EQ(kernel.list_directory("/proc/1/fd", names), 0);
  EXPECT_TRUE(names.empty()) << "its own first process has nothing open";
}

}  // namespace turn_iommu_on_test
}  // namespace postern
