// SPDX-License-Identifier: Apache-2.0
// The conditions that the host must meet, and the diagnosis as a whole.
#include "host/conditions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <postern/backend.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_function.hpp>

#include "host/holders.hpp"
#include "host/power.hpp"
#include "host/usable.hpp"
#include "text/errors.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

// Of VT-d's capability register: MGAW (bits 16 to 21) is one less than the bits that it takes, and SAGAW (bits 8 to 12)
// has a bit for each depth of its page tables, of which the second stands for 39 bits.
std::optional<unsigned> address_bits(Kernel& kernel, const std::string& iommu) {
  std::string text;
  if (kernel.read_file(fmt::format("/sys/class/iommu/{}/intel-iommu/cap", iommu), text) < 0) return std::nullopt;
  std::uint64_t cap = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), cap, 16).ec != std::errc()) return std::nullopt;
  const unsigned taken = static_cast<unsigned>(cap >> 16 & 0x3f) + 1;
  const auto depths = static_cast<unsigned>(cap >> 8 & 0x1f);
  if (depths == 0) return std::nullopt;
  return std::min(taken, 30 + 9 * (std::bit_width(depths) - 1U));
}

Condition judge_backend(Kernel& kernel, const HostDevice* device, const Backend& backend) {
  Condition condition{.key = fmt::format("backend-{}", backend.name),
                      .title = fmt::format("backend {}", backend.name),
                      .verdict = Verdict::met,
                      .detail = "can be used",
                      .remedy = {}};
  const auto usable = require_usable(kernel, device, backend);
  if (usable) return condition;
  condition.verdict = Verdict::not_met;
  // Of its own a probe gives that errno for interrupts alone, which have a condition of their own, with the remedy.
  if (usable.error().refused() && usable.error().code() == EPERM) {
    condition.detail = "refuses devices whose interrupts are not isolated";
  } else {
    condition.detail = reason_line(usable.error());
    condition.remedy = usable.error().remedy();
  }
  return condition;
}

// Those of this build; and where none of them is for hosts of this kind, those that are.
std::vector<Condition> judge_backends(Kernel& kernel, const HostDevice* device) {
  const bool power = is_power(kernel);
  const auto is_for_host = [&](std::string_view name) { return (name == "spapr") == power; };
  std::vector<Condition> conditions;
  bool any_for_host = false;
  for (const Backend* backend : backends()) {
    Condition condition = judge_backend(kernel, device, *backend);
    any_for_host = any_for_host || is_for_host(backend->name);
    if (condition.verdict != Verdict::met && !is_for_host(backend->name)) {
      condition.verdict = Verdict::optional;
      condition.detail = power ? "not for this processor: POWER has spapr" : "for POWER alone";
      condition.remedy.clear();
    }
    conditions.push_back(std::move(condition));
  }
  for (const std::string_view name : known_backends()) {
    if (any_for_host || !is_for_host(name)) continue;
    conditions.push_back(
        {.key = fmt::format("backend-{}", name),
         .title = fmt::format("backend {}", name),
         .verdict = Verdict::not_met,
         .detail = "this host needs it, and this build of postern leaves it out",
         .remedy =
             "build postern with every backend: \"cmake --preset default && cmake --build --preset default\" makes "
             "build/bin/postern"});
  }
  return conditions;
}

// The ways to a device, each by what it needs that the others do not.
struct Route {
  std::string_view name;
  std::vector<std::string_view> keys;
};

const std::vector<Route>& routes() {
  static const std::vector<Route> all = {
      {"type1", {"backend-type1", "container-node", "group-node"}},
      {"spapr", {"backend-spapr", "container-node", "group-node"}},
      {"iommufd", {"backend-iommufd", "iommufd-node", "cdev", "cdev-node"}},
  };
  return all;
}

Condition* find_condition(Diagnosis& diagnosis, std::string_view key) {
  for (auto* part : {&diagnosis.host, &diagnosis.device}) {
    const auto found = std::find_if(part->begin(), part->end(), [&](const auto& each) { return each.key == key; });
    if (found != part->end()) return &*found;
  }
  return nullptr;
}

// A backend that is refused for what stands above it needs no remedy of its own.
void say_remedies_once(Diagnosis& diagnosis) {
  for (const Route& route : routes()) {
    Condition* backend = find_condition(diagnosis, route.keys.front());
    if (backend == nullptr) continue;
    const bool said = std::any_of(route.keys.begin() + 1, route.keys.end(), [&](std::string_view key) {
      const Condition* condition = find_condition(diagnosis, key);
      return condition != nullptr && condition->verdict != Verdict::met && !condition->remedy.empty();
    });
    if (said) backend->remedy.clear();
  }
}

// One way is enough: what only the others lack is no longer a fault.
void forgive_what_is_not_needed(Diagnosis& diagnosis) {
  std::string works;
  for (const Route& route : routes()) {
    const Condition* backend = find_condition(diagnosis, route.keys.front());
    const bool usable = backend != nullptr && backend->verdict == Verdict::met;
    const bool open = usable && std::all_of(route.keys.begin(), route.keys.end(), [&](std::string_view key) {
                        const Condition* condition = find_condition(diagnosis, key);
                        return condition == nullptr || condition->verdict != Verdict::not_met;
                      });
    if (open) works += fmt::format("{}{}", works.empty() ? "" : ", ", route.name);
  }
  if (works.empty()) return;
  for (const Route& route : routes()) {
    for (const std::string_view key : route.keys) {
      Condition* condition = find_condition(diagnosis, key);
      if (condition == nullptr || condition->verdict != Verdict::not_met) continue;
      condition->verdict = Verdict::optional;
      condition->detail += fmt::format("; not needed: {} will do", works);
    }
  }
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
    condition.detail = fmt::format("cannot tell: /sys/kernel/iommu_groups cannot be listed ({})", errno_name(-result));
    return condition;
  }
  const bool empty = groups.empty();
  // Those that VFIO made for devices without an IOMMU are none of its.
  std::erase_if(groups, [&](const std::string& group) {
    FileStatus status;
    return kernel.status("/sys/class/vfio/noiommu-" + group, status) >= 0;
  });
  if (listed && !groups.empty()) {
    condition.detail = "on, " + counted(groups.size(), "group", "groups");
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.detail = empty ? "off: /sys/kernel/iommu_groups is empty" : "off: all groups are those of no-IOMMU mode";
  if (auto used = require_iommu(kernel); !used) condition.remedy = used.error().remedy();
  return condition;
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
            .detail = fmt::format("cannot tell: /sys/bus/pci/drivers/vfio-pci: {}", errno_name(-result)),
            .remedy = {}};
  }
  return {.key = "vfio-pci",
          .title = "vfio-pci driver",
          .verdict = Verdict::not_met,
          .detail = "not loaded",
          .remedy = "\"modprobe vfio-pci\" (a kernel without that module is built without CONFIG_VFIO_PCI)"};
}

std::string raise_locked_memory(std::uint64_t bytes) {
  const std::uint64_t kib = bytes / 1024 + (bytes % 1024 != 0 ? 1 : 0);
  return fmt::format(
      "\"ulimit -l {}\" in the shell that starts the program; where that is refused, first raise "
      "\"memlock\" in /etc/security/limits.conf (of a systemd unit, LimitMEMLOCK={}K), or give "
      "the program CAP_IPC_LOCK",
      kib, kib);
}

Condition judge_locked_memory(Kernel& kernel, std::optional<std::uint64_t> needed) {
  Condition condition{
      .key = "locked-memory", .title = "locked memory", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  const auto memory = LockedMemory::read(kernel);
  if (!memory) {
    condition.verdict = Verdict::unknown;
    condition.detail = error_line(memory.error());
    condition.remedy = memory.error().remedy();
  } else if (memory->exempt) {
    condition.detail = "no limit for this process (CAP_IPC_LOCK)";
  } else if (!memory->limit) {
    condition.detail = "no limit";
  } else if (!needed) {
    condition.verdict = Verdict::unknown;
    condition.detail = fmt::format("limited to {}; give --memory SIZE to have it judged", size_text(*memory->limit));
  } else if (memory->allows(*needed)) {
    condition.detail = fmt::format("limited to {}, and {} is needed", size_text(*memory->limit), size_text(*needed));
  } else {
    condition.verdict = Verdict::not_met;
    condition.detail = fmt::format("limited to {}, but {} is needed", size_text(*memory->limit), size_text(*needed));
    condition.remedy = raise_locked_memory(*needed);
  }
  return condition;
}

Condition judge_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu) {
  Condition condition{.key = "interrupt-isolation",
                      .title = "interrupt isolation",
                      .verdict = Verdict::unknown,
                      .detail = {},
                      .remedy = {}};
  if (is_power(kernel)) {
    condition.verdict = Verdict::met;
    condition.detail = "by the PCI host bridge, which lets a group raise its own interrupts alone";
    return condition;
  }
  InterruptIsolation isolation = read_interrupt_isolation(kernel, iommu);
  condition.detail = std::move(isolation.reason);
  condition.remedy = std::move(isolation.remedy);
  if (!isolation.isolated) {
    condition.detail.insert(0, "cannot tell: ");
    return condition;
  }
  condition.verdict = *isolation.isolated ? Verdict::met : Verdict::not_met;
  if (*isolation.isolated) return condition;
  std::vector<std::string> accepting;
  std::string accept;
  for (const std::string name : {"type1", "iommufd"}) {
    if (accepts_unsafe_interrupts(kernel, name)) accepting.push_back(name);
    accept += fmt::format("; {} with {}", accept_unsafe_interrupts(name), name);
  }
  if (accepting.empty()) {
    condition.remedy += accept;
    return condition;
  }
  condition.verdict = Verdict::optional;
  condition.detail += fmt::format(
      "; {} is told to accept that (allow_unsafe_interrupts), so a device can fake interrupts", list_of(accepting));
  return condition;
}

std::optional<Condition> judge_address_width(Kernel& kernel, const std::optional<std::string>& iommu,
                                             std::uint64_t memory) {
  std::vector<std::string> names;
  if (iommu) {
    names.push_back(*iommu);
  } else if (kernel.list_directory("/sys/class/iommu", names) < 0) {
    return std::nullopt;
  }
  std::optional<unsigned> narrowest;
  std::string whose;
  for (const std::string& name : names) {
    const auto bits = address_bits(kernel, name);
    if (!bits || (narrowest && *narrowest <= *bits)) continue;
    narrowest = bits;
    whose = name;
  }
  if (!narrowest) return std::nullopt;
  // Of it the doorbells of interrupts are never usable (IOAPIC_RANGE_START to IOAPIC_RANGE_END).
  constexpr std::uint64_t doorbells = std::uint64_t{1} << 20;
  const std::uint64_t all = *narrowest >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << *narrowest) - 1;
  const bool fits = memory <= all - doorbells;
  return Condition{.key = "address-width",
                   .title = "address width",
                   .verdict = fits ? Verdict::met : Verdict::not_met,
                   .detail = fmt::format("{} bits: {} translates 0x0-{:#x}, and {} {} there", *narrowest, whose, all,
                                         size_text(memory), fits ? "have room" : "have no room"),
                   .remedy = fits ? ""
                                  : "map less memory; a virtual machine may get a wider IOMMU (QEMU: -device "
                                    "intel-iommu,aw-bits=48)"};
}

Diagnosis diagnose(Kernel& kernel, const Question& question) {
  Diagnosis diagnosis;
  std::optional<std::string> iommu;
  std::optional<HostDevice> host;
  if (question.device) {
    diagnosis.device = judge_device(kernel, *question.device, question.vf_token);
    if (auto found = find_host_device(kernel, "pci", to_string(*question.device))) host = std::move(*found);
    std::string target;
    if (host && kernel.read_link(host->sysfs_path + "/iommu", target) >= 0)
      iommu = target.substr(target.rfind('/') + 1);
  }
  const Machine machine = read_machine(kernel);
  const bool power = machine != Machine::other;
  const auto window = power ? default_window_size(kernel, machine, host ? &*host : nullptr) : std::nullopt;
  diagnosis.host = {
      judge_iommu(kernel),
      judge_interrupt_isolation(kernel, iommu),
      judge_vfio_pci(kernel),
      judge_node(kernel, "container-node", "/dev/vfio/vfio"),
      power ? not_on_power("iommufd-node", "/dev/iommu") : judge_node(kernel, "iommufd-node", "/dev/iommu"),
      window ? judge_locked_on_power(kernel, question.memory, *window) : judge_locked_memory(kernel, question.memory),
  };
  if (question.memory && !power) {
    auto width = judge_address_width(kernel, iommu, *question.memory);
    if (width) diagnosis.host.push_back(std::move(*width));
  }
  // What a device lacks that is not bound is said already.
  const bool bound = host && host->is_vfio;
  auto usable = judge_backends(kernel, bound ? &*host : nullptr);
  auto& place = host ? diagnosis.device : diagnosis.host;
  place.insert(place.end(), std::make_move_iterator(usable.begin()), std::make_move_iterator(usable.end()));
  say_remedies_once(diagnosis);
  forgive_what_is_not_needed(diagnosis);
  return diagnosis;
}

}  // namespace postern::tool
