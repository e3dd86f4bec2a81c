// SPDX-License-Identifier: Apache-2.0
// What to do on a host whose kernel uses no IOMMU: the first of the reasons that this host shows.
#include "host/turn_iommu_on.hpp"

#include <fmt/format.h>
#include <array>

#include "host/kernel_parameters.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

using namespace std::string_view_literals;

// Which IOMMU this host has or would have.
enum class Unit : std::uint8_t { vtd, amd_vi, unknown };

struct Firmware {
  bool tells = false;  // its ACPI tables are seen; a container may hide them
  bool dmar = false;   // VT-d
  bool ivrs = false;   // AMD-Vi
};

bool contains(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

Firmware read_firmware(Kernel& kernel) {
  const std::string tables = "/sys/firmware/acpi/tables";
  FileStatus status;
  return {.tells = kernel.status(tables, status) >= 0,
          .dmar = kernel.status(tables + "/DMAR", status) >= 0,
          .ivrs = kernel.status(tables + "/IVRS", status) >= 0};
}

Unit unit_of(const Firmware& firmware, const std::string& cpu) {
  if (firmware.dmar != firmware.ivrs) return firmware.dmar ? Unit::vtd : Unit::amd_vi;
  if (contains(cpu, "GenuineIntel")) return Unit::vtd;
  return contains(cpu, "AuthenticAMD") ? Unit::amd_vi : Unit::unknown;
}

// intel_iommu_setup obeys the last word. The others know no word that takes "off" back (parse_amd_iommu_options,
// iommu_setup, Linux 6.12). The firmware's tables alone say whose parameters count: a virtual machine's processor and
// IOMMU may be of different makers.
std::optional<KernelParameters::Word> what_turns_it_off(const KernelParameters& parameters, const Firmware& firmware) {
  constexpr std::array off = {"off"sv};
  constexpr std::array on_off = {"on"sv, "off"sv};
  if (!firmware.ivrs) {
    auto last = parameters.last_of("intel_iommu", on_off);
    if (last && last->text == "off") return last;
  }
  if (!firmware.dmar) {
    if (auto word = parameters.last_of("amd_iommu", off)) return word;
  }
  return parameters.last_of("iommu", off);
}

// Xen keeps the IOMMU, and hides its tables from Linux.
std::string under_xen(Kernel& kernel) {
  const bool is_dom0 = contains(sysfs::text(kernel, "/proc/xen/capabilities").value_or(""), "control_d");
  return is_dom0 ? "this is Xen's dom0: Xen keeps the IOMMU to itself, and VFIO gets none here; pass devices through "
                   "with Xen (\"xl pci-assignable-add\"), or boot Linux without Xen"
                 : "this is a Xen guest, and Xen gives its guests no IOMMU: use VFIO on a host without Xen";
}

struct Vendor {
  std::string_view name;  // as /sys/class/dmi/id/sys_vendor begins
  std::string_view remedy;
};
constexpr std::array vendors = {
    Vendor{"Amazon EC2", "this is an EC2 instance, which has no IOMMU: use one of a \".metal\" type"},
    Vendor{"Google", "this is a machine of Google Compute Engine, which has no IOMMU: use a bare-metal one"},
    Vendor{"Microsoft",
           "this machine runs under Hyper-V (or Azure), which gives its guests no IOMMU: use a host of "
           "its own"},
    Vendor{"Alibaba Cloud", "this is an instance of Alibaba Cloud, which has no IOMMU: use a bare-metal one"},
    Vendor{"DigitalOcean", "this is a virtual machine of DigitalOcean, which has no IOMMU: use a host of its own"},
    Vendor{"VMware", "this is a virtual machine: turn \"Expose IOMMU to the guest\" on in its CPU settings"},
    Vendor{"innotek",
           "this is a virtual machine: give it a virtual IOMMU (\"VBoxManage modifyvm NAME "
           "--chipset=ich9 --iommu=intel\")"},
};

std::string in_virtual_machine(Kernel& kernel, bool told) {
  const std::string maker = sysfs::text(kernel, "/sys/class/dmi/id/sys_vendor").value_or("");
  for (const Vendor& vendor : vendors) {
    if (maker.starts_with(vendor.name)) return std::string(vendor.remedy);
  }
  return fmt::format("this is a virtual machine: give it a virtual IOMMU (QEMU: -device intel-iommu,intremap=on){}",
                     told ? "" : ", and boot it with \"intel_iommu=on\"");
}

std::string for_vtd(const Firmware& firmware, bool told) {
  if (firmware.dmar) {
    return told ? "the firmware describes VT-d and the kernel is told \"intel_iommu=on\": see its log for why it does "
                  "not use it (\"dmesg | grep -e DMAR -e IOMMU\")"
                : "boot with \"intel_iommu=on\" on the kernel's command line";
  }
  const std::string where =
      firmware.tells ? "the firmware describes none (no DMAR in /sys/firmware/acpi/tables): " : "";
  if (told && where.empty()) return "the kernel is told \"intel_iommu=on\", so turn VT-d on in the firmware's setup";
  return where + (told ? "turn VT-d on in its setup"
                       : "boot with \"intel_iommu=on\" on the kernel's command line, with VT-d turned on in the "
                         "firmware's setup");
}

}  // namespace

std::string turn_iommu_on(Kernel& kernel) {
  const std::string cpu = sysfs::text(kernel, "/proc/cpuinfo").value_or("") + "\n";
  if (is_power(kernel) == true)
    return "each PCI host bridge has an IOMMU, which the kernel uses where it is built with CONFIG_SPAPR_TCE_IOMMU";
  if (contains(cpu, "IBM/S390"))
    return "each PCI function has an IOMMU, which the kernel uses where it is built with CONFIG_S390_IOMMU";
  if (sysfs::text(kernel, "/sys/hypervisor/type") == "xen") return under_xen(kernel);

  const KernelParameters parameters = KernelParameters::read(kernel);
  const Firmware firmware = read_firmware(kernel);
  if (const auto off = what_turns_it_off(parameters, firmware)) return off->removal();
  constexpr std::array on = {"on"sv};
  const bool told = parameters.last_of("intel_iommu", on).has_value();
  const bool describes_one = firmware.dmar || firmware.ivrs;
  if (contains(cpu, " hypervisor") && !describes_one) return in_virtual_machine(kernel, told);
  switch (unit_of(firmware, cpu)) {
    case Unit::vtd:
      return for_vtd(firmware, told);
    case Unit::amd_vi:
      return firmware.ivrs ? "the firmware describes AMD-Vi: see the kernel's log for why it does not use it "
                             "(\"dmesg | grep AMD-Vi\")"
                           : "turn the IOMMU (AMD-Vi) on in the firmware's setup";
    case Unit::unknown:
      break;
  }
  return "the firmware must describe an IOMMU (ACPI or device tree), and the kernel must have the driver for it";
}

}  // namespace postern
