// SPDX-License-Identifier: Apache-2.0
// Sysfs: the content of its files, and the effect of writes.
#include "sim/sysfs/sysfs.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace postern::sim {
namespace {

constexpr const char* devices = "/sys/bus/pci/devices/";
constexpr const char* drivers = "/sys/bus/pci/drivers/";
constexpr const char* mapping_limit = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";

constexpr const char* noiommu_mode = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

constexpr unsigned group_major = 240;
constexpr unsigned cdev_major = 241;

std::string without_newline(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// An IOMMU's name under /sys/class/iommu (alloc_iommu; arm_smmu_device_probe, of QEMU's virt).
const char* name_of(IommuUnit unit) { return unit == IommuUnit::vtd ? "dmar0" : "smmu3.0x0000000009050000"; }

// MGAW, and SAGAW with one page table depth that suffices for it.
std::uint64_t vtd_capabilities(const IommuModel& iommu) {
  const auto bits = static_cast<unsigned>(std::bit_width(iommu.aperture.last.value));
  const unsigned depth = bits <= 39 ? 1 : bits <= 48 ? 2 : 3;
  return std::uint64_t{0xd2008c40000062} | std::uint64_t{bits - 1} << 16 | std::uint64_t{1} << (8 + depth);
}

bool starts_with(const std::string& text, std::string_view start) { return text.compare(0, start.size(), start) == 0; }

}  // namespace

// In /proc, only the process's own folder is real; everything else belongs to the real machine.
bool Sysfs::shows(const std::string& path) { return path != "/proc/self" && !starts_with(path, "/proc/self/"); }

void Sysfs::refresh() {
  if (shown_ == machine_.generation) return;
  entries_.clear();
  directory("/sys/bus/pci/devices");
  directory("/sys/kernel/iommu_groups");
  // Shows that no process is hidden: process 1 exists, and has no open files.
  directory("/proc/1/fd");
  file("/proc/1/comm", "init\n");
  for (const auto& [address, function] : machine_.functions) show_function(*function);
  show_groups();
  show_drivers();
  show_nodes();
  if (machine_.tce) {
    show_device_tree();
  } else {
    show_platform();
    file(mapping_limit, fmt::format("{}\n", machine_.mapping_limit));
    file(noiommu_mode, machine_.unsafe_noiommu ? "Y\n" : "N\n");
  }
  shown_ = machine_.generation;  // only now, so that the next call starts again if memory ran out
}

void Sysfs::show_function(const Function& function) {
  const HardwareInfo& info = function.info();
  const std::string path = devices + function.name();
  file(path + "/vendor", fmt::format("{:#06x}\n", info.vendor));
  file(path + "/device", fmt::format("{:#06x}\n", info.device));
  file(path + "/subsystem_vendor", fmt::format("{:#06x}\n", info.vendor));
  file(path + "/subsystem_device", fmt::format("{:#06x}\n", info.device));
  file(path + "/class", fmt::format("{:#08x}\n", info.class_code));
  file(path + "/revision", fmt::format("{:#04x}\n", info.revision));
  file(path + "/numa_node", "-1\n");
  file(path + "/power_state", "D0\n");
  file(path + "/reset_method", info.has_flr ? "flr\n" : "\n");
  file(path + "/driver_override", (function.driver_override.empty() ? "(null)" : function.driver_override) + "\n");
  link(path + "/subsystem", "/sys/bus/pci");
  if (function.group() >= 0) {
    link(path + "/iommu_group", fmt::format("/sys/kernel/iommu_groups/{}", function.group()));
  }
  if (machine_.tce) {
    show_power_function(function);
  } else if (function.has_iommu()) {
    link(path + "/iommu", fmt::format("/sys/class/iommu/{}", name_of(machine_.iommu.unit)));
  }
  if (!function.driver.empty()) link(path + "/driver", drivers + function.driver);
  if (function.minor && machine_.tce) {
    directory(fmt::format("{}/vfio-dev/vfio{}", path,
                          *function.minor));  // without a "dev" file, as without CONFIG_VFIO_DEVICE_CDEV
  } else if (function.minor) {
    const std::string name = cdev_name(function);
    file(fmt::format("{}/vfio-dev/{}/dev", path, name), fmt::format("{}:{}\n", cdev_major, *function.minor));
    node("/dev/vfio/devices/" + name, ::makedev(cdev_major, static_cast<unsigned>(*function.minor)));
  }
}

// Files of the kernel and firmware of a PC or an Arm server about its processor and IOMMU.
void Sysfs::show_platform() {
  const bool is_pc = machine_.iommu.unit == IommuUnit::vtd;
  const bool has_iommu = std::any_of(machine_.functions.begin(), machine_.functions.end(),
                                     [](const auto& each) { return each.second->has_iommu(); });
  file("/proc/cpuinfo", is_pc ? "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n"
                              : "processor\t: 0\nCPU implementer\t: 0x41\n");
  file("/proc/cmdline", is_pc && has_iommu ? "quiet intel_iommu=on\n" : "quiet\n");
  const std::string tables = "/sys/firmware/acpi/tables/";
  file(tables + "FACP", "");
  if (has_iommu) file(tables + (is_pc ? "DMAR" : "IORT"), "");
  file("/proc/interrupts", !is_pc      ? "           CPU0\n 11:       4711     GICv3  30 Level     arch_timer\n"
                           : has_iommu ? "            CPU0\n   2:         11  IR-IO-APIC    2-edge      timer\n"
                                       : "            CPU0\n   2:         11     IO-APIC    2-edge      timer\n");
}

void Sysfs::show_groups() {
  std::string reserved;
  for (const IovaRange range : machine_.iommu.reserved) {
    if (!machine_.tce) reserved += fmt::format("{:#018x} {:#018x} msi\n", range.first.value, range.last.value);
  }
  for (const auto& [id, group] : machine_.groups) {
    if (group.is_noiommu && machine_.devices_of(id).empty()) continue;  // it was removed
    const std::string path = fmt::format("/sys/kernel/iommu_groups/{}", id);
    file(path + "/reserved_regions", group.is_noiommu ? "" : reserved);
    if (group.is_noiommu) file(path + "/name", "vfio-noiommu\n");
    // CONFIG_IOMMU_DEFAULT_DMA_LAZY is for x86 and s390 (Linux 7.3).
    const bool is_lazy = machine_.iommu.unit == IommuUnit::vtd;
    file(path + "/type", machine_.tce || group.is_noiommu ? "unknown\n" : is_lazy ? "DMA-FQ\n" : "DMA\n");
    for (const Device* device : machine_.devices_of(id)) {
      link(path + "/devices/" + device->name(), devices + device->name());
    }
    if (!machine_.has_vfio(id)) continue;
    file(fmt::format("/sys/class/vfio/{}/dev", node_name(group)), fmt::format("{}:{}\n", group_major, id));
    node("/dev/vfio/" + node_name(group), ::makedev(group_major, static_cast<unsigned>(id)));
  }
}

void Sysfs::show_drivers() {
  file("/sys/bus/pci/drivers_probe", "");
  for (const std::string& driver : machine_.drivers) {
    file(drivers + driver + "/bind", "");
    file(drivers + driver + "/unbind", "");
  }
}

void Sysfs::show_nodes() {
  node("/dev/vfio/vfio", ::makedev(10, 196));
  file("/sys/class/misc/vfio/dev", "10:196\n");
  if (machine_.tce) return;
  node("/dev/iommu", ::makedev(10, 127));
  file("/sys/class/misc/iommu/dev", "10:127\n");
  const std::string iommu = fmt::format("/sys/class/iommu/{}", name_of(machine_.iommu.unit));
  for (const auto& [address, function] : machine_.functions) {
    if (!function->has_iommu()) continue;
    if (machine_.iommu.unit == IommuUnit::vtd) {
      file(iommu + "/intel-iommu/ecap", "f00f5e\n");
      file(iommu + "/intel-iommu/cap", fmt::format("{:x}\n", vtd_capabilities(machine_.iommu)));
    }
    link(iommu + "/devices/" + function->name(), devices + function->name());
  }
}

// Entries have paths without links, so a path that is found needs no resolution.
std::string Sysfs::resolve(const std::string& path) const {
  if (entries_.contains(path)) return path;
  std::string resolved;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    resolved.append("/").append(path, at, end - at);
    const auto entry = end < path.size() ? entries_.find(resolved) : entries_.end();
    if (entry != entries_.end() && entry->second.kind == Kind::link) resolved = entry->second.text;
    at = end + 1;
  }
  return resolved;
}

bool Sysfs::is_directory(const std::string& path) const {
  const auto below = entries_.lower_bound(path + "/");
  return below != entries_.end() && starts_with(below->first, path + "/");
}

int Sysfs::read_file(const std::string& path, std::string& contents) {
  refresh();
  const std::string resolved = resolve(path);
  const auto entry = entries_.find(resolved);
  if (entry == entries_.end()) return is_directory(resolved) ? -EISDIR : -ENOENT;
  contents = entry->second.text;
  // It changes while the rest of sysfs stays as it is. Low power does not change it, as without CONFIG_PM.
  const auto name = resolved.find("/power_state");
  if (name != std::string::npos &&
      machine_.find(resolved.substr(std::strlen(devices), name - std::strlen(devices)))->is_in_d3hot())
    contents = "D3hot\n";
  return 0;
}

int Sysfs::list_directory(const std::string& path, std::vector<std::string>& names) {
  refresh();
  std::string folder = resolve(path);
  if (const auto entry = entries_.find(folder); entry != entries_.end() && entry->second.kind == Kind::link) {
    folder = entry->second.text;
  }
  names.clear();
  const std::string prefix = folder + "/";
  for (auto entry = entries_.lower_bound(prefix); entry != entries_.end() && starts_with(entry->first, prefix);
       ++entry) {
    std::string name = entry->first.substr(prefix.size(), entry->first.find('/', prefix.size()) - prefix.size());
    if (names.empty() || names.back() != name) names.push_back(std::move(name));
  }
  const auto entry = entries_.find(folder);
  const bool there = !names.empty() || (entry != entries_.end() && entry->second.kind == Kind::directory);
  return there ? 0 : entry != entries_.end() ? -ENOTDIR : -ENOENT;
}

int Sysfs::read_link(const std::string& path, std::string& target) {
  refresh();
  const auto entry = entries_.find(resolve(path));
  if (entry == entries_.end()) return is_directory(resolve(path)) ? -EINVAL : -ENOENT;
  if (entry->second.kind != Kind::link) return -EINVAL;
  target = entry->second.text;
  return 0;
}

int Sysfs::status(const std::string& path, FileStatus& status) {
  refresh();
  std::string resolved = resolve(path);
  auto entry = entries_.find(resolved);
  if (entry != entries_.end() && entry->second.kind == Kind::link) {
    resolved = entry->second.text;
    entry = entries_.find(resolved);
  }
  if (entry == entries_.end() && !is_directory(resolved)) return -ENOENT;
  const Kind kind = entry != entries_.end() ? entry->second.kind : Kind::directory;
  status = {};
  status.mode = kind == Kind::node ? S_IFCHR | 0600U : kind == Kind::file ? S_IFREG | 0644U : S_IFDIR | 0755U;
  if (kind == Kind::node) status.device = entry->second.device;
  return 0;
}

int Sysfs::write_file(const std::string& path, const std::string& contents, Machine::Lock& lock) {
  refresh();
  const std::string resolved = resolve(path);
  const std::string text = without_newline(contents);
  if (entries_.count(resolved) == 0) return -ENOENT;
  if (resolved == mapping_limit) {
    machine_.mapping_limit = std::strtoull(text.c_str(), nullptr, 10);
    ++machine_.generation;
    return 0;
  }
  if (resolved == noiommu_mode) {
    // kstrtobool, the common spellings
    const bool is_on = text == "Y" || text == "y" || text == "1";
    if (!is_on && text != "N" && text != "n" && text != "0") return -EINVAL;
    machine_.unsafe_noiommu = is_on;
    ++machine_.generation;
    return 0;
  }
  const std::size_t slash = resolved.rfind('/');
  const std::string what = resolved.substr(slash + 1);
  if (starts_with(resolved, devices) && what == "driver_override") {
    const std::string name =
        resolved.substr(std::string_view(devices).size(), slash - std::string_view(devices).size());
    machine_.find(name)->driver_override = text;
    ++machine_.generation;
    return 0;
  }
  Function* const function = machine_.find(text);
  if (resolved == "/sys/bus/pci/drivers_probe") return function != nullptr ? machine_.probe(*function) : -ENODEV;
  if (!starts_with(resolved, drivers)) return -EACCES;
  const std::string driver =
      resolved.substr(std::string_view(drivers).size(), slash - std::string_view(drivers).size());
  if (function == nullptr) return -ENODEV;
  if (what == "bind") return machine_.bind(*function, driver);
  return function->driver == driver ? machine_.unbind(*function, lock) : -ENODEV;
}

}  // namespace postern::sim
