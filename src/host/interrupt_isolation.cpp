// SPDX-License-Identifier: Apache-2.0
// Whether interrupts are isolated, by what the kernel does: not by what the hardware could, or what the kernel was
// told.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <postern/host_device.hpp>
#include <sstream>

#include "host/kernel_parameters.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

std::vector<std::string> iommus_with_devices(Kernel& kernel, int& listed) {
  std::vector<std::string> names;
  listed = kernel.list_directory("/sys/class/iommu", names);
  if (listed < 0) return {};
  std::erase_if(names, [&](const std::string& name) {
    std::vector<std::string> devices;
    return kernel.list_directory(fmt::format("/sys/class/iommu/{}/devices", name), devices) < 0 || devices.empty();
  });
  return names;
}

// VT-d's and AMD-Vi's are all on or all off; nothing can be told of others (intel_irq_remapping_supported,
// amd_iommu_prepare, Linux 6.12).
bool is_of_x86(const std::string& iommu) { return iommu.starts_with("dmar") || iommu.starts_with("ivhd"); }

// Of VT-d's extended capability register, bit 3: interrupt remapping is supported. AMD-Vi always has it.
bool lacks_remapping(Kernel& kernel, const std::string& iommu) {
  const auto text = sysfs::text(kernel, fmt::format("/sys/class/iommu/{}/intel-iommu/ecap", iommu));
  std::uint64_t ecap = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), ecap, 16).ec != std::errc()) return false;
  return (ecap >> 3 & 1) == 0;
}

// Interrupts go through a remapping IOMMU where their chips' names begin with "IR-" (ioapic_ir_chip, and the prefix of
// intel_ir's and amd_ir's MSI parents). Nothing where no chip is seen that could be either.
std::optional<bool> are_remapped(Kernel& kernel) {
  std::string text;
  if (kernel.read_file("/proc/interrupts", text) < 0) return std::nullopt;
  std::optional<bool> remapped;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string chip;
    words >> chip;  // the interrupt's number; behind it a count for each processor
    while (words >> chip && chip.find_first_not_of("0123456789") == std::string::npos) {
    }
    if (chip.starts_with("IR-")) return true;
    if (chip == "IO-APIC" || chip.starts_with("PCI-MSI")) remapped = false;
  }
  return remapped;
}

std::optional<KernelParameters::Word> what_turns_remapping_off(Kernel& kernel) {
  const KernelParameters parameters = KernelParameters::read(kernel);
  // setup_nointremap; setup_irqremap obeys the last word.
  if (const auto words = parameters.words("nointremap"); !words.empty()) return words.back();
  constexpr std::array<std::string_view, 2> on_off = {"on", "off"};
  auto last = parameters.last_of("intremap", on_off);
  return last && last->text == "off" ? last : std::nullopt;
}

std::string unsafe_parameter(std::string_view backend) {
  return fmt::format("/sys/module/{}/parameters/allow_unsafe_interrupts",
                     backend == "type1" ? "vfio_iommu_type1" : backend);
}

void explain_missing_isolation(CallFailed& what, const InterruptIsolation& isolation, std::string_view backend) {
  what.reason = "interrupts of this device cannot be isolated: " + isolation.reason;
  what.remedy = fmt::format("{}; {}", isolation.remedy.empty() ? "turn interrupt remapping on" : isolation.remedy,
                            accept_unsafe_interrupts(backend));
}

}  // namespace

InterruptIsolation read_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu) {
  InterruptIsolation isolation;
  int listed = 0;
  const std::vector<std::string> names = iommu ? std::vector{*iommu} : iommus_with_devices(kernel, listed);
  if (names.empty()) {
    isolation.reason = sysfs::tells_nothing(listed)
                           ? fmt::format("/sys/class/iommu cannot be listed ({})", errno_name(-listed))
                           : "no IOMMU in /sys/class/iommu has a device";
    return isolation;
  }
  const auto stranger = std::find_if_not(names.begin(), names.end(), is_of_x86);
  if (stranger != names.end()) {
    isolation.reason = fmt::format("{} does not say; attaching fails with EPERM where it is missing", *stranger);
    return isolation;
  }
  isolation.isolated = are_remapped(kernel);
  if (isolation.isolated == true) {
    isolation.reason = fmt::format("interrupt remapping by {}", names.size() == 1 ? names.front() : "every IOMMU");
    return isolation;
  }
  const auto weak =
      std::find_if(names.begin(), names.end(), [&](const auto& name) { return lacks_remapping(kernel, name); });
  if (const auto off = what_turns_remapping_off(kernel)) {
    isolation.isolated = false;
    isolation.reason =
        fmt::format("interrupt remapping is turned off by \"{}\" on the kernel's command line", off->parameter);
    isolation.remedy = off->removal();
  } else if (weak != names.end()) {
    isolation.isolated = false;
    isolation.reason = fmt::format("{} cannot remap interrupts", *weak);
    isolation.remedy =
        "in a virtual machine, give its IOMMU interrupt remapping (QEMU: -device intel-iommu,intremap=on)";
  } else if (isolation.isolated == false) {
    isolation.reason = "the kernel remaps no interrupts (no chip in /proc/interrupts begins with IR-)";
    isolation.remedy =
        "turn interrupt remapping on in the firmware's setup (QEMU: -device intel-iommu,intremap=on); the kernel's log "
        "says why it is off (\"dmesg | grep -e DMAR-IR -e AMD-Vi\")";
  } else {
    isolation.reason =
        "/proc/interrupts shows no interrupt that could be remapped; attaching fails with EPERM where "
        "remapping is missing";
  }
  return isolation;
}

bool accepts_unsafe_interrupts(Kernel& kernel, std::string_view backend) {
  return sysfs::text(kernel, unsafe_parameter(backend)) == "Y";
}

std::string accept_unsafe_interrupts(std::string_view backend) {
  return fmt::format("only if you trust the device and its driver: \"echo Y > {}\"", unsafe_parameter(backend));
}

Result<void> require_interrupt_isolation(Kernel& kernel, const HostDevice* device, std::string_view backend) {
  const auto iommu = device != nullptr ? sysfs::link_name(kernel, device->sysfs_path + "/iommu") : std::nullopt;
  const InterruptIsolation isolation = read_interrupt_isolation(kernel, iommu);
  if (isolation.isolated != false || accepts_unsafe_interrupts(kernel, backend)) return {};
  CallFailed what{.result = -EPERM, .object = device != nullptr ? device->name : fmt::format("backend {}", backend)};
  explain_missing_isolation(what, isolation, backend);
  return refusal(std::move(what));
}

void explain_unsafe_interrupts(CallFailed& what, Kernel& kernel, std::string_view backend) {
  const auto isolation = read_interrupt_isolation(kernel, std::nullopt);
  if (isolation.isolated == true) {
    what.reason =
        "the kernel refuses the device, and not for its interrupts, which are remapped: it may be that the "
        "firmware keeps memory mapped for it (RMRR)";
    what.remedy = "see the kernel's log (dmesg) for the reason";
    return;
  }
  explain_missing_isolation(what, isolation, backend);
}

}  // namespace postern
