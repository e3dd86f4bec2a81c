// SPDX-License-Identifier: Apache-2.0
// World: finds and binds the devices, lays out the memory, and closes everything.
#include "transcript/world.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <stdexcept>

namespace postern::transcript {
namespace {

constexpr std::uint32_t nvme_class = 0x010802;

void must(int result, const char* what) {
  if (result < 0) throw std::runtime_error(std::string(what) + ": " + std::strerror(-result));
}

std::vector<Place> places(const std::string& name, std::size_t count) {
  std::vector<Place> made;
  for (std::size_t i = 0; i < count; ++i) made.push_back({.name = name + std::to_string(i)});
  return made;
}

std::vector<Place> places_of_functions(const std::string& name, std::size_t functions, std::size_t each) {
  std::vector<Place> made;
  for (std::size_t function = 0; function < functions; ++function) {
    for (std::size_t i = 0; i < each; ++i) {
      made.push_back({.name = name + World::letter(function) + std::to_string(i), .function = function});
    }
  }
  return made;
}

}  // namespace

World::World(Kernel& the_kernel, Backend the_backend, std::uint64_t seed)
    : kernel(the_kernel),
      backend(the_backend),
      random(seed),
      containers(places("container", 3)),
      groups({{.name = "groupA", .function = 0}, {.name = "groupB", .function = 1}}),
      iommufds(places("iommufd", 2)),
      eventfds(places("eventfd", 4)),
      seed_(seed) {
  find_functions();
  if (functions.size() > 2) groups.push_back({.name = "groupCD", .function = 2});
  devices = places_of_functions("device", functions.size(), 2);
  cdevs = places_of_functions("cdev", functions.size(), 2);
  std::string machine;
  is_powernv =
      kernel.read_file("/proc/device-tree/compatible", machine) >= 0 && machine.find("powernv") != std::string::npos;
  make_memory();
  const auto open_here = [](const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
    must(fd < 0 ? -errno : fd, path.c_str());
    return fd;
  };
  if (backend == Backend::migration) migratable.emplace(kernel);
  null_device_ = open_here("/dev/null", O_RDWR);
  memory_file_ = ::memfd_create("transcript", MFD_CLOEXEC);
  must(::ftruncate(memory_file_, Memory::of_file) < 0 ? -errno : 0, "memfd");
  read_only_file_ = open_here(fmt::format("/proc/self/fd/{}", memory_file_), O_RDONLY);
}

World::~World() {
  for (auto* all : {&devices, &cdevs, &groups, &containers, &iommufds, &eventfds}) {
    for (Place& place : *all) close(place);
  }
}

void World::find_functions() {
  std::vector<Function> single;
  std::vector<Function> twins;
  const auto found = list_pci_functions(kernel).value();
  for (const PciFunction& function : found) {
    if (function.class_code != nvme_class || !function.host.iommu_group) continue;
    const auto group = find_iommu_group(kernel, *function.host.iommu_group).value();
    auto& list = group.members.size() == 1 ? single : twins;
    list.push_back({.address = function.address, .group = static_cast<std::uint32_t>(group.id), .cdev = {}});
  }
  if (single.size() < 2) throw std::runtime_error("two NVMe disks alone are needed");
  functions = {single[0], single[1]};
  if (is_spapr(backend)) return;
  if (twins.size() < 2) throw std::runtime_error("two NVMe disks of one group are needed");
  functions.insert(functions.end(), {twins[0], twins[1]});
}

void World::make_memory() {
  void* const start = reinterpret_cast<void*>(Memory::start);
  if (::mmap(start, Memory::end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
      start) {
    throw std::runtime_error("the memory's addresses are taken");
  }
  std::memset(start, 0x5a, Memory::end);
  auto* const bytes = static_cast<std::byte*>(start);
  must(::mprotect(bytes + Memory::read_only, Memory::no_access - Memory::read_only, PROT_READ), "mprotect");
  must(::mprotect(bytes + Memory::no_access, Memory::hole - Memory::no_access, PROT_NONE), "mprotect");
  must(::munmap(bytes + Memory::hole, Memory::before_bars - Memory::hole), "munmap");
  must(::munmap(bytes + Memory::bars, Memory::scratch - Memory::bars), "munmap");
}

void World::bind(std::size_t function, const std::string& driver) {
  const auto found = find_pci_function(kernel, functions[function].address).value();
  if (driver.empty()) {
    if (!found.host.driver) return;
    must(kernel.write_file(found.host.sysfs_path + "/driver/unbind", found.host.name), "unbind");
    return;
  }
  if (found.host.driver == driver) return;
  if (const auto bound = bind_to_driver(kernel, found.host, driver); !bound) {
    throw std::runtime_error(bound.error().message());
  }
}

// At times binds the last function to nvme, or to no driver.
std::string World::begin_episode(std::uint64_t number) {
  random = Random(seed_ ^ 0xe9150de, number);
  ids.assign(iommufds.size(), {});
  const std::string last_driver = random.chance(80) ? "vfio-pci" : random.chance(50) ? "nvme" : "";
  const std::size_t last = functions.size() - 1;
  for (std::size_t function = 0; function < last; ++function) bind(function, "vfio-pci");
  bind(last, last_driver);
  for (Function& function : functions) {
    const auto found = find_pci_function(kernel, function.address).value();
    function.cdev = found.host.cdev ? found.host.cdev->path : "/dev/vfio/devices/none";
  }
  return fmt::format("episode {}: {} is bound to {}", number, letter(last),
                     last_driver.empty() ? "nothing" : last_driver);
}

Place& World::open_one(std::vector<Place>& all) {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].is_open()) open.push_back(i);
  }
  const std::uint64_t choice = random.next();
  if (open.empty() || random.chance(4)) return all[choice % all.size()];
  return all[open[choice % open.size()]];
}

Place& World::usable_one(std::vector<Place>& all) {
  std::vector<std::size_t> usable;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].is_open() && all[i].is_usable) usable.push_back(i);
  }
  const std::uint64_t choice = random.next();
  if (random.chance(10) || usable.empty()) return open_one(all);
  return all[usable[choice % usable.size()]];
}

bool World::has_usable(const std::vector<Place>& all) {
  return std::any_of(all.begin(), all.end(), [](const Place& place) { return place.is_open() && place.is_usable; });
}

void World::leave(Place& group) {
  if (!group.is_usable) return;
  group.is_usable = false;
  if (!group.container) return;
  const bool others = std::any_of(groups.begin(), groups.end(), [&](const Place& other) {
    return other.is_usable && other.container == group.container;
  });
  if (!others) containers[*group.container].is_usable = false;
}

bool World::has_open(const std::vector<Place>& all) {
  for (const Place& place : all) {
    if (place.is_open()) return true;
  }
  return false;
}

std::size_t World::index_of(const Place& place, const std::vector<Place>& all) const {
  return static_cast<std::size_t>(&place - all.data());
}

void World::close(Place& place) {
  if (place.is_open()) (void)kernel.close(place.fd);
  place.fd = -1;
  place.is_usable = false;
}

}  // namespace postern::transcript
