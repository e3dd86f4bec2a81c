// SPDX-License-Identifier: Apache-2.0
// turn_iommu_on(): the remedy for a host whose kernel uses no IOMMU.
#include "host/turn_iommu_on.hpp"

#include <array>

#include "base/remedy.hpp"
#include "host/kernel_parameters.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

using namespace std::string_view_literals;

// The IOMMU that this host has or would have.
enum class Unit : std::uint8_t { vtd, amd_vi, unknown };

struct Firmware {
  bool is_visible = false;  // its ACPI tables are visible; a container may hide them
  bool dmar = false;        // VT-d
  bool ivrs = false;        // AMD-Vi
};

bool contains(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

Result<Firmware> read_firmware(Kernel& kernel) {
  const std::string tables = "/sys/firmware/acpi/tables";
  Firmware firmware;
  firmware.is_visible = POSTERN_TRY(sysfs::is_there(kernel, tables));
  firmware.dmar = POSTERN_TRY(sysfs::is_there(kernel, tables + "/DMAR"));
  firmware.ivrs = POSTERN_TRY(sysfs::is_there(kernel, tables + "/IVRS"));
  return firmware;
}

Unit unit_of(const Firmware& firmware, const std::string& cpu) {
  if (firmware.dmar != firmware.ivrs) return firmware.dmar ? Unit::vtd : Unit::amd_vi;
  if (contains(cpu, "GenuineIntel")) return Unit::vtd;
  return contains(cpu, "AuthenticAMD") ? Unit::amd_vi : Unit::unknown;
}

// intel_iommu_setup uses the last word. The others have no word that reverts "off" (parse_amd_iommu_options,
// iommu_setup, Linux 6.12). Only the firmware's tables show which parameters count: a virtual machine's processor and
// IOMMU may be from different vendors.
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
Result<Remedies> under_xen(Kernel& kernel) {
  const auto capabilities = POSTERN_TRY(sysfs::text(kernel, "/proc/xen/capabilities"));
  const bool is_dom0 = contains(capabilities.value_or(""), "control_d");
  return is_dom0 ? RemedyCode::pass_through_with_xen : RemedyCode::use_host_without_xen;
}

// Machines that have no IOMMU, and what to use instead.
struct Cloud {
  std::string_view vendor;  // as /sys/class/dmi/id/sys_vendor begins
  std::string_view machine;
  std::string_view instead;
};
constexpr std::array clouds = {
    Cloud{"Amazon EC2", "an EC2 instance", "one of a \".metal\" type"},
    Cloud{"Google", "a machine of Google Compute Engine", "a bare-metal one"},
    Cloud{"Microsoft", "a guest of Hyper-V (or Azure)", "a host of its own"},
    Cloud{"Alibaba Cloud", "an instance of Alibaba Cloud", "a bare-metal one"},
    Cloud{"DigitalOcean", "a virtual machine of DigitalOcean", "a host of its own"},
};

Result<Remedies> in_virtual_machine(Kernel& kernel, bool is_requested) {
  const std::string maker = POSTERN_TRY(sysfs::text(kernel, "/sys/class/dmi/id/sys_vendor")).value_or("");
  for (const Cloud& cloud : clouds) {
    if (maker.starts_with(cloud.vendor)) return remedy<RemedyCode::use_host_with_iommu>(cloud.machine, cloud.instead);
  }
  if (maker.starts_with("VMware"))
    return remedy<RemedyCode::give_guest_iommu>("turn on \"Expose IOMMU to the guest\" in its CPU settings");
  if (maker.starts_with("innotek"))
    return remedy<RemedyCode::give_guest_iommu>("\"VBoxManage modifyvm NAME --chipset=ich9 --iommu=intel\"");
  Remedies remedies = remedy<RemedyCode::give_guest_iommu>("QEMU: -device intel-iommu,intremap=on");
  if (!is_requested) remedies.add(RemedyCode::boot_with_intel_iommu);
  return remedies;
}

Remedies for_vtd(const Firmware& firmware, bool is_requested) {
  if (firmware.dmar && is_requested) return remedy<RemedyCode::see_log_for_iommu>("VT-d", "-e DMAR -e IOMMU");
  if (firmware.dmar) return RemedyCode::boot_with_intel_iommu;
  Remedies remedies =
      firmware.is_visible ? Remedies(RemedyCode::turn_vtd_on_without_dmar) : remedy<RemedyCode::turn_iommu_on>("VT-d");
  if (!is_requested) remedies.add(RemedyCode::boot_with_intel_iommu);
  return remedies;
}

}  // namespace

Result<Remedies> turn_iommu_on(Kernel& kernel) {
  const std::string cpu = POSTERN_TRY(sysfs::text(kernel, "/proc/cpuinfo")).value_or("") + "\n";
  if (POSTERN_TRY(is_power(kernel)) == true)
    return remedy<RemedyCode::use_kernel_with_iommu_driver>("PCI host bridge", "CONFIG_SPAPR_TCE_IOMMU");
  if (contains(cpu, "IBM/S390"))
    return remedy<RemedyCode::use_kernel_with_iommu_driver>("PCI function", "CONFIG_S390_IOMMU");
  if (POSTERN_TRY(sysfs::text(kernel, "/sys/hypervisor/type")) == "xen") return under_xen(kernel);

  const auto parameters = POSTERN_TRY(KernelParameters::read(kernel));
  const auto firmware = POSTERN_TRY(read_firmware(kernel));
  if (const auto off = what_turns_it_off(parameters, firmware)) return off->removal();
  constexpr std::array on = {"on"sv};
  const bool is_requested = parameters.last_of("intel_iommu", on).has_value();
  const bool describes_one = firmware.dmar || firmware.ivrs;
  if (contains(cpu, " hypervisor") && !describes_one) return in_virtual_machine(kernel, is_requested);
  switch (unit_of(firmware, cpu)) {
    case Unit::vtd:
      return for_vtd(firmware, is_requested);
    case Unit::amd_vi:
      return firmware.ivrs ? remedy<RemedyCode::see_log_for_iommu>("AMD-Vi", "AMD-Vi")
                           : remedy<RemedyCode::turn_iommu_on>("AMD-Vi");
    case Unit::unknown:
      break;
  }
  return RemedyCode::describe_iommu;
}

}  // namespace postern
