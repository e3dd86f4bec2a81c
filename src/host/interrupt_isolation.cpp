// SPDX-License-Identifier: Apache-2.0
// Whether interrupts are isolated: judged by what the kernel does, not by what the hardware supports or the command
// line requests.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <postern/host_device.hpp>
#include <sstream>

#include "base/remedy.hpp"
#include "host/kernel_parameters.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

Result<std::vector<std::string>> iommus_with_devices(Kernel& kernel) {
  std::vector<std::string> with_devices;
  for (const std::string& name : POSTERN_TRY(sysfs::entries(kernel, "/sys/class/iommu"))) {
    const auto devices = POSTERN_TRY(sysfs::entries(kernel, fmt::format("/sys/class/iommu/{}/devices", name)));
    if (!devices.empty()) with_devices.push_back(name);
  }
  return with_devices;
}

// All IOMMUs of VT-d or AMD-Vi remap, or none does; other IOMMUs are unknown (intel_irq_remapping_supported,
// amd_iommu_prepare, Linux 6.12).
bool is_of_x86(const std::string& iommu) { return iommu.starts_with("dmar") || iommu.starts_with("ivhd"); }

// VT-d's extended capability register, bit 3: interrupt remapping is supported. AMD-Vi always supports it.
Result<bool> lacks_remapping(Kernel& kernel, const std::string& iommu) {
  const auto text = POSTERN_TRY(sysfs::text(kernel, fmt::format("/sys/class/iommu/{}/intel-iommu/ecap", iommu)));
  std::uint64_t ecap = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), ecap, 16).ec != std::errc()) return false;
  return (ecap >> 3 & 1) == 0;
}

// Interrupts are remapped by an IOMMU if the names of their chips begin with "IR-" (ioapic_ir_chip, and the prefix of
// intel_ir's and amd_ir's MSI parents). Nothing if there is no chip of either kind.
Result<std::optional<bool>> are_remapped(Kernel& kernel) {
  std::optional<bool> remapped;
  std::istringstream lines(POSTERN_TRY(sysfs::text(kernel, "/proc/interrupts")).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string chip;
    words >> chip;  // the interrupt's number; then a count for each processor
    while (words >> chip && chip.find_first_not_of("0123456789") == std::string::npos) {
    }
    if (chip.starts_with("IR-")) return true;
    if (chip == "IO-APIC" || chip.starts_with("PCI-MSI")) remapped = false;
  }
  return remapped;
}

Result<std::optional<KernelParameters::Word>> what_turns_remapping_off(Kernel& kernel) {
  const auto parameters = POSTERN_TRY(KernelParameters::read(kernel));
  // setup_nointremap; setup_irqremap uses the last word.
  if (const auto words = parameters.words("nointremap"); !words.empty()) return words.back();
  constexpr std::array<std::string_view, 2> on_off = {"on", "off"};
  auto last = parameters.last_of("intremap", on_off);
  return last && last->text == "off" ? last : std::nullopt;
}

std::string unsafe_parameter(std::string_view module) {
  return fmt::format("/sys/module/{}/parameters/allow_unsafe_interrupts", module);
}

void explain_missing_isolation(CallFailed& what, const InterruptIsolation& isolation, std::string_view module) {
  what.kind = ErrorKind::interrupts_not_isolated;
  what.reason = "interrupts of this device cannot be isolated: " + isolation.reason;
  what.remedy = isolation.remedy.empty() ? Remedies(RemedyCode::turn_remapping_on) : isolation.remedy;
  what.remedy.add(remedy<RemedyCode::accept_unsafe_interrupts>(unsafe_parameter(module)));
}

Result<InterruptIsolation> find_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu) {
  InterruptIsolation isolation;
  std::vector<std::string> names;
  if (iommu) {
    names.push_back(*iommu);
  } else {
    names = POSTERN_TRY(iommus_with_devices(kernel));
  }
  if (names.empty()) {
    isolation.reason = "no IOMMU in /sys/class/iommu has a device";
    return isolation;
  }
  const auto stranger = std::find_if_not(names.begin(), names.end(), is_of_x86);
  if (stranger != names.end()) {
    isolation.reason = fmt::format("{} does not report it; attaching fails with EPERM if it is missing", *stranger);
    return isolation;
  }
  isolation.isolated = POSTERN_TRY(are_remapped(kernel));
  if (isolation.isolated == true) {
    isolation.reason = fmt::format("interrupt remapping by {}", names.size() == 1 ? names.front() : "every IOMMU");
    return isolation;
  }
  std::string weak;
  for (const std::string& name : names) {
    if (weak.empty() && POSTERN_TRY(lacks_remapping(kernel, name))) weak = name;
  }
  if (const auto off = POSTERN_TRY(what_turns_remapping_off(kernel))) {
    isolation.isolated = false;
    isolation.reason =
        fmt::format("interrupt remapping is turned off by \"{}\" on the kernel's command line", off->parameter);
    isolation.remedy = off->removal();
  } else if (!weak.empty()) {
    isolation.isolated = false;
    isolation.reason = fmt::format("{} cannot remap interrupts", weak);
    isolation.remedy = RemedyCode::turn_remapping_on_in_vm;
  } else if (isolation.isolated == false) {
    isolation.reason = "the kernel remaps no interrupts (no chip in /proc/interrupts begins with IR-)";
    isolation.remedy = RemedyCode::turn_remapping_on_in_firmware;
  } else {
    isolation.reason =
        "/proc/interrupts shows no interrupt that could be remapped; attaching fails with EPERM if remapping is "
        "missing";
  }
  return isolation;
}

Result<bool> accepts_unsafe_interrupts(Kernel& kernel, std::string_view module) {
  return POSTERN_TRY(sysfs::text(kernel, unsafe_parameter(module))) == "Y";
}

}  // namespace

InterruptIsolation read_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu) {
  auto isolation = find_interrupt_isolation(kernel, iommu);
  if (isolation) return *std::move(isolation);
  return {.isolated = std::nullopt, .reason = isolation.error().summary(), .remedy = isolation.error().remedies()};
}

Result<void> require_interrupt_isolation(Kernel& kernel, const HostDevice* device, std::string_view module,
                                         const std::string& object) {
  std::optional<std::string> iommu;
  if (device != nullptr) {
    auto own = sysfs::link_name(kernel, device->sysfs_path + "/iommu");
    if (!own) return {};  // unknown: the kernel decides
    iommu = *std::move(own);
  }
  const InterruptIsolation isolation = read_interrupt_isolation(kernel, iommu);
  if (isolation.isolated != false || POSTERN_TRY(accepts_unsafe_interrupts(kernel, module))) return {};
  CallFailed what{.result = -EPERM, .object = object};
  explain_missing_isolation(what, isolation, module);
  return refusal(std::move(what));
}

void explain_unsafe_interrupts(CallFailed& what, Kernel& kernel, std::string_view module) {
  const auto isolation = read_interrupt_isolation(kernel, std::nullopt);
  if (isolation.isolated == true) {
    what.reason =
        "the kernel refuses the device, but not because of its interrupts, which are remapped: the firmware may have "
        "reserved memory for it (RMRR)";
    what.remedy = RemedyCode::see_kernel_log;
    return;
  }
  explain_missing_isolation(what, isolation, module);
}

}  // namespace postern
