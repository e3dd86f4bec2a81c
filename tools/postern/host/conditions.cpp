// SPDX-License-Identifier: Apache-2.0
// The conditions that the host must meet, and the diagnosis as a whole.
#include "host/conditions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <postern/backend.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_function.hpp>
#include <sstream>

#include "host/power.hpp"
#include "text/errors.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

std::string text_of(Kernel& kernel, const std::string& path) {
  std::string text;
  if (kernel.read_file(path, text) < 0) return {};
  text.erase(text.find_last_not_of(" \n") + 1);
  return text;
}

bool has_word(const std::string& text, const std::string& wanted) {
  std::istringstream words(text);
  return std::any_of(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>(),
                     [&](const std::string& word) { return word == wanted; });
}

std::string turn_on_iommu(Kernel& kernel) {
  const std::string command_line = text_of(kernel, "/proc/cmdline");
  for (const char* off : {"intel_iommu=off", "amd_iommu=off", "iommu=off"}) {
    if (has_word(command_line, off))
      return fmt::format("take \"{}\" off the kernel's command line, and boot again", off);
  }
  if (is_power(kernel)) {
    return "each PCI host bridge has an IOMMU, which the kernel uses where it is built with CONFIG_SPAPR_TCE_IOMMU";
  }
  const std::string cpu = text_of(kernel, "/proc/cpuinfo");
  const bool intel = cpu.find("GenuineIntel") != std::string::npos;
  const bool told = has_word(command_line, "intel_iommu=on");
  if (cpu.find(" hypervisor") != std::string::npos) {
    return fmt::format("this is a virtual machine: give it a virtual IOMMU (QEMU: -device intel-iommu,intremap=on){}",
                       told ? "" : ", and boot it with \"intel_iommu=on\"");
  }
  if (intel && told) return "the kernel is told \"intel_iommu=on\", so turn VT-d on in the firmware's setup";
  if (intel)
    return "boot with \"intel_iommu=on\" on the kernel's command line, with VT-d turned on in the firmware's setup";
  if (cpu.find("AuthenticAMD") != std::string::npos) return "turn the IOMMU (AMD-Vi) on in the firmware's setup";
  return "the firmware must describe an IOMMU (ACPI or device tree), and the kernel must have the driver for it";
}

// Of VT-d's extended capability register, bit 3: interrupt remapping is supported. Nothing where the IOMMU is not VT-d.
std::optional<bool> intel_remaps_interrupts(Kernel& kernel, const std::string& iommu) {
  const std::string text = text_of(kernel, fmt::format("/sys/class/iommu/{}/intel-iommu/ecap", iommu));
  std::uint64_t ecap = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), ecap, 16).ec != std::errc()) return std::nullopt;
  return (ecap >> 3 & 1) != 0;
}

std::vector<std::string> iommus_with_devices(Kernel& kernel) {
  std::vector<std::string> names;
  if (kernel.list_directory("/sys/class/iommu", names) < 0) return {};
  std::erase_if(names, [&](const std::string& name) {
    std::vector<std::string> devices;
    return kernel.list_directory(fmt::format("/sys/class/iommu/{}/devices", name), devices) < 0 || devices.empty();
  });
  return names;
}

bool unsafe_interrupts_allowed(Kernel& kernel) {
  return text_of(kernel, "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts") == "Y" ||
         text_of(kernel, "/sys/module/iommufd/parameters/allow_unsafe_interrupts") == "Y";
}

Condition interrupts_not_isolated(Condition condition, Kernel& kernel, std::string why) {
  condition.detail = std::move(why);
  if (unsafe_interrupts_allowed(kernel)) {
    condition.verdict = Verdict::optional;
    condition.detail +=
        "; the kernel is told to accept that (allow_unsafe_interrupts), so a device can fake interrupts";
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.remedy =
      "turn interrupt remapping on in the firmware's setup (QEMU: -device intel-iommu,intremap=on); only if you trust "
      "the "
      "device and its driver: \"echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts\" (iommufd "
      "has such a "
      "parameter of its own)";
  return condition;
}

Condition judge_backend(Kernel& kernel, const HostDevice* device, const Backend& backend) {
  Condition condition{.key = fmt::format("backend-{}", backend.name),
                      .title = fmt::format("backend {}", backend.name),
                      .verdict = Verdict::met,
                      .detail = "can be used",
                      .remedy = {}};
  if (auto probed = backend.probe(kernel, device); !probed) {
    condition.verdict = Verdict::not_met;
    condition.detail = reason_line(probed.error());
    condition.remedy = probed.error().remedy();
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
    conditions.push_back({.key = fmt::format("backend-{}", name),
                          .title = fmt::format("backend {}", name),
                          .verdict = Verdict::not_met,
                          .detail = "this host needs it, and this build of postern leaves it out",
                          .remedy =
                              "build postern with -DPOSTERN_BACKENDS=all (\"cmake --preset all-backends\" does, and "
                              "\"cmake --build --preset all-backends\" makes build/all/bin/postern)"});
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
  const bool listed = kernel.list_directory("/sys/kernel/iommu_groups", groups) >= 0;
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
  condition.remedy = turn_on_iommu(kernel);
  return condition;
}

Condition judge_vfio_pci(Kernel& kernel) {
  FileStatus status;
  if (kernel.status("/sys/bus/pci/drivers/vfio-pci", status) >= 0) {
    return {.key = "vfio-pci", .title = "vfio-pci driver", .verdict = Verdict::met, .detail = "loaded", .remedy = {}};
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

Condition judge_interrupt_isolation(Kernel& kernel, std::optional<std::string> iommu) {
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
  const std::vector<std::string> names = iommu ? std::vector{*iommu} : iommus_with_devices(kernel);
  if (names.empty()) {
    condition.detail = "cannot tell: no IOMMU in /sys/class/iommu has a device";
    return condition;
  }
  const std::string command_line = text_of(kernel, "/proc/cmdline");
  for (const char* off : {"nointremap", "intremap=off"}) {
    if (!has_word(command_line, off)) continue;
    return interrupts_not_isolated(std::move(condition), kernel,
                                   fmt::format("turned off by \"{}\" on the kernel's command line", off));
  }
  std::string silent;
  for (const std::string& name : names) {
    const auto remaps = intel_remaps_interrupts(kernel, name);
    if (remaps == false) {
      return interrupts_not_isolated(std::move(condition), kernel, fmt::format("{} cannot remap interrupts", name));
    }
    if (!remaps) silent += (silent.empty() ? "" : ", ") + name;
  }
  if (!silent.empty()) {
    // AMD's and Arm's drivers have no attribute for it; the kernel checks it when a device is attached.
    condition.detail =
        fmt::format("cannot tell: {} does not say; attaching fails with EPERM where it is missing", silent);
    return condition;
  }
  condition.verdict = Verdict::met;
  condition.detail = fmt::format("interrupt remapping by {}", names.size() == 1 ? names.front() : "every IOMMU");
  return condition;
}

Diagnosis diagnose(Kernel& kernel, const Question& question) {
  Diagnosis diagnosis;
  std::optional<std::string> iommu;
  std::optional<HostDevice> host;
  if (question.device) {
    diagnosis.device = judge_device(kernel, *question.device);
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
      judge_node(kernel, "container-node", "/dev/vfio/vfio",
                 "\"modprobe vfio\" (a kernel without it has no CONFIG_VFIO)"),
      power ? not_on_power("iommufd-node", "/dev/iommu")
            : judge_node(kernel, "iommufd-node", "/dev/iommu",
                         "\"modprobe iommufd\" (Linux 6.2 or later, built with CONFIG_IOMMUFD; Debian's kernels are "
                         "not)"),
      window ? judge_locked_on_power(kernel, question.memory, *window) : judge_locked_memory(kernel, question.memory),
  };
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
