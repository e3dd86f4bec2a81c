// SPDX-License-Identifier: Apache-2.0
// The conditions that the host must meet, and the diagnosis as a whole.
#include "host/conditions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <postern/pci_function.hpp>

#include "host/backend_conditions.hpp"
#include "host/holders.hpp"
#include "host/power.hpp"
#include "host/reading.hpp"
#include "text/errors.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

// The address width of an IOMMU from VT-d's capability register: MGAW (bits 16 to 21) is the maximum width minus one;
// SAGAW (bits 8 to 12) has a bit for each supported depth of page tables, the second for 39 bits.
Result<std::optional<unsigned>> address_bits(Kernel& kernel, const std::string& iommu) {
  const std::string path = fmt::format("/sys/class/iommu/{}/intel-iommu/cap", iommu);
  const std::string text = POSTERN_TRY(read_text(kernel, path)).value_or("");
  std::uint64_t cap = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), cap, 16).ec != std::errc()) return std::nullopt;
  const unsigned taken = static_cast<unsigned>(cap >> 16 & 0x3f) + 1;
  const auto depths = static_cast<unsigned>(cap >> 8 & 0x1f);
  if (depths == 0) return std::nullopt;
  return std::min(taken, 30 + 9 * (std::bit_width(depths) - 1U));
}

// The name of the IOMMU that translates for the device, under /sys/class/iommu.
Result<std::optional<std::string>> iommu_of(Kernel& kernel, const HostDevice& device) {
  auto target = POSTERN_TRY(read_target(kernel, device.sysfs_path + "/iommu"));
  if (target) target->erase(0, target->rfind('/') + 1);
  return target;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::met:
      return "met";
    case Verdict::not_met:
      return "not met";
    case Verdict::unknown:
      return "unknown";
    case Verdict::optional:
      return "optional";
  }
  return "unknown";
}

std::size_t Diagnosis::not_met() const {
  const auto failed = [](const Condition& condition) { return condition.verdict == Verdict::not_met; };
  return static_cast<std::size_t>(std::count_if(host.begin(), host.end(), failed) +
                                  std::count_if(device.begin(), device.end(), failed));
}

std::size_t Diagnosis::unknown() const {
  const auto open = [](const Condition& condition) { return condition.verdict == Verdict::unknown; };
  return static_cast<std::size_t>(std::count_if(host.begin(), host.end(), open) +
                                  std::count_if(device.begin(), device.end(), open));
}

Condition judge_iommu(Kernel& kernel) {
  Condition condition{.key = "iommu", .title = "IOMMU", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  std::vector<std::string> groups;
  const int result = kernel.list_directory("/sys/kernel/iommu_groups", groups);
  const bool listed = result >= 0;
  if (!listed && result != -ENOENT) {
    condition.verdict = Verdict::unknown;
    condition.detail = fmt::format("unknown: /sys/kernel/iommu_groups cannot be listed ({})", errno_name(-result));
    return condition;
  }
  const bool empty = groups.empty();
  std::vector<std::string> unknown;
  // Groups that VFIO created in no-IOMMU mode do not count.
  std::erase_if(groups, [&](const std::string& group) {
    const auto is_noiommu = is_there(kernel, "/sys/class/vfio/noiommu-" + group);
    if (!is_noiommu) unknown.push_back(error_line(is_noiommu.error()));
    return !is_noiommu || *is_noiommu;
  });
  if (listed && !groups.empty()) {
    condition.detail = "on, " + counted(groups.size(), "group", "groups");
    return condition;
  }
  if (!unknown.empty()) {
    condition.verdict = Verdict::unknown;
    condition.detail = "unknown: " + unknown.front();
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.detail = empty ? "off: /sys/kernel/iommu_groups is empty" : "off: all groups are those of no-IOMMU mode";
  if (auto used = require_iommu(kernel); !used) condition.remedy = words_of(used.error().remedies());
  return condition;
}

Condition unread(std::string key, std::string title, const Error& error) {
  return {.key = std::move(key),
          .title = std::move(title),
          .verdict = Verdict::unknown,
          .detail = "unknown: " + error_line(error),
          .remedy = words_of(error.remedies())};
}

Condition judge_vfio_pci(Kernel& kernel) {
  FileStatus status;
  const int result = kernel.status("/sys/bus/pci/drivers/vfio-pci", status);
  if (result >= 0) {
    return {.key = "vfio-pci", .title = "vfio-pci driver", .verdict = Verdict::met, .detail = "loaded", .remedy = {}};
  }
  if (result != -ENOENT) {
    return {.key = "vfio-pci",
            .title = "vfio-pci driver",
            .verdict = Verdict::unknown,
            .detail = fmt::format("unknown: /sys/bus/pci/drivers/vfio-pci: {}", errno_name(-result)),
            .remedy = {}};
  }
  return {.key = "vfio-pci",
          .title = "vfio-pci driver",
          .verdict = Verdict::not_met,
          .detail = "not loaded",
          .remedy = words_of(Remedy{.code = RemedyCode::load_module, .arguments = {"vfio-pci", "CONFIG_VFIO_PCI"}})};
}

Condition judge_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu,
                                    std::span<const Examined> examined) {
  Condition condition{.key = "interrupt-isolation",
                      .title = "interrupt isolation",
                      .verdict = Verdict::unknown,
                      .detail = {},
                      .remedy = {}};
  if (is_power(kernel)) {
    condition.verdict = Verdict::met;
    condition.detail = "by the PCI host bridge, which lets a group raise only its own interrupts";
    return condition;
  }
  InterruptIsolation isolation = read_interrupt_isolation(kernel, iommu);
  condition.detail = std::move(isolation.reason);
  condition.remedy = words_of(isolation.remedy);
  if (!isolation.isolated) {
    condition.detail.insert(0, "unknown: ");
    return condition;
  }
  condition.verdict = *isolation.isolated ? Verdict::met : Verdict::not_met;
  if (*isolation.isolated) return condition;
  std::vector<std::string> accepting;
  std::string accept;
  for (const Examined& each : examined) {
    const auto& all = each.requirements;
    const auto needed =
        std::find_if(all.begin(), all.end(), [&](const auto& state) { return state.key == condition.key; });
    if (needed == all.end()) continue;
    if (needed->found) {
      accepting.emplace_back(each.backend->name);
      continue;
    }
    const Error& error = needed->found.error();
    if (error.kind() != ErrorKind::interrupts_not_isolated) {
      condition.verdict = Verdict::unknown;
      condition.detail +=
          fmt::format("; it is unknown whether {} accepts that: {}", each.backend->name, error_line(error));
      return condition;
    }
    for (const Remedy& remedy : error.remedies()) {
      if (remedy.code == RemedyCode::accept_unsafe_interrupts)
        accept += fmt::format("; {} with {}", words_of(remedy), each.backend->name);
    }
  }
  if (accepting.empty()) {
    condition.remedy += accept;
    return condition;
  }
  condition.verdict = Verdict::optional;
  condition.detail += fmt::format("; allow_unsafe_interrupts makes {} accept that, so a device can fake interrupts",
                                  list_of(accepting));
  return condition;
}

Condition judge_address_width(Kernel& kernel, const std::optional<std::string>& iommu, std::uint64_t memory) {
  const auto cannot_tell = [](const Error& error) { return unread("address-width", "address width", error); };
  auto names = iommu ? Result<std::vector<std::string>>({*iommu}) : read_entries(kernel, "/sys/class/iommu");
  if (!names) return cannot_tell(names.error());
  std::optional<unsigned> narrowest;
  std::string whose;
  for (const std::string& name : *names) {
    const auto bits = address_bits(kernel, name);
    if (!bits) return cannot_tell(bits.error());
    if (!*bits || (narrowest && *narrowest <= **bits)) continue;
    narrowest = *bits;
    whose = name;
  }
  if (!narrowest) {
    return {.key = "address-width",
            .title = "address width",
            .verdict = Verdict::unknown,
            .detail = fmt::format("whether {} has room is unknown: this host's IOMMU does not show its width in sysfs",
                                  size_text(memory)),
            .remedy = {}};
  }
  // The doorbells of interrupts are never usable (IOAPIC_RANGE_START to IOAPIC_RANGE_END).
  constexpr std::uint64_t doorbells = std::uint64_t{1} << 20;
  const std::uint64_t all = *narrowest >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << *narrowest) - 1;
  const bool fits = memory <= all - doorbells;
  return Condition{.key = "address-width",
                   .title = "address width",
                   .verdict = fits ? Verdict::met : Verdict::not_met,
                   .detail = fmt::format("{} bits: {} translates 0x0-{:#x}, where {} {}", *narrowest, whose, all,
                                         size_text(memory), fits ? "fits" : "does not fit"),
                   .remedy = fits ? ""
                                  : "map less memory; a virtual machine may get a wider IOMMU (QEMU: -device "
                                    "intel-iommu,aw-bits=48)"};
}

Diagnosis diagnose(Kernel& kernel, const Question& question) {
  Diagnosis diagnosis;
  std::optional<PciFunction> function;
  std::optional<std::string> iommu;
  std::optional<Error> iommu_unread;
  if (question.device) {
    auto found = find_pci_function(kernel, *question.device);
    if (found) {
      function = std::move(*found);
      auto name = iommu_of(kernel, function->host);
      if (name) {
        iommu = std::move(*name);
      } else {
        iommu_unread = std::move(name).error();
      }
    } else {
      const bool known = found.error().code() == ENOENT;
      diagnosis.device.push_back({.key = "device",
                                  .title = "device",
                                  .verdict = known ? Verdict::not_met : Verdict::unknown,
                                  .detail = error_line(found.error()),
                                  .remedy = words_of(found.error().remedies())});
      if (!known) iommu_unread = std::move(found).error();
    }
  }
  const auto known_machine = read_machine(kernel);
  const Machine machine = known_machine.value_or(Machine::other);
  const bool power = machine != Machine::other;
  const auto examined = examine_backends(kernel, function && !judge_kind(*function) ? &function->host : nullptr);
  if (function) diagnosis.device = judge_device(kernel, *function, question.vf_token, examined);
  diagnosis.host = {
      judge_iommu(kernel),
      iommu_unread && !power ? unread("interrupt-isolation", "interrupt isolation", *iommu_unread)
                             : judge_interrupt_isolation(kernel, iommu, examined),
      judge_vfio_pci(kernel),
  };
  add_requirements(kernel, examined, false, diagnosis.host);
  const std::span<const HostDevice> devices = function ? std::span(&function->host, 1) : std::span<const HostDevice>();
  diagnosis.memory = find_memory_needs(kernel, examined, devices, question.memory);
  diagnosis.host.push_back(judge_memory(diagnosis.memory));
  if (!known_machine) diagnosis.host.push_back(unread("processor", "processor", known_machine.error()));
  if (question.memory && !power) {
    diagnosis.host.push_back(iommu_unread ? unread("address-width", "address width", *iommu_unread)
                                          : judge_address_width(kernel, iommu, *question.memory));
  }
  add_backends(kernel, examined, function ? diagnosis.device : diagnosis.host, diagnosis);
  return diagnosis;
}

}  // namespace postern::tool
