// SPDX-License-Identifier: Apache-2.0
// Scenario: one operation of the library, with its set-up, to be run while one of its kernel calls fails.
#pragma once

#include <postern/dirty_tracker.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/dma_windows.hpp>
#include <postern/event.hpp>
#include <postern/guest_memory.hpp>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern::test {

[[nodiscard]] inline bool is_spapr_v2(Interface interface) {
  return interface.backend == "spapr" && interface.version == 2;
}
[[nodiscard]] inline bool may_track(Interface by) {
  return by.backend == "iommufd" || (by.backend == "type1" && by.version == 2);
}

// The objects of a scenario, destroyed in reverse order: devices, container, memory.
struct World {
  World(WatchedKernel& kernel, Interface interface, HostDevice first, HostDevice second);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  static constexpr std::uint64_t page = 65536;  // a multiple of every host's page size
  static constexpr Iova base{0x10000000};       // usable with every IOMMU

  // For set-up, which runs without faults: throws if a step fails.
  static void must(const Result<void>& done);

  [[nodiscard]] AttachOptions options() const { return options_for(interface); }
  [[nodiscard]] bool is_spapr_v2() const { return test::is_spapr_v2(interface); }
  // Attaches a device and reads its config space. Sets `container` to the first device's.
  [[nodiscard]] Result<void> open(const HostDevice& which, const AttachOptions& with, std::optional<PciDevice>& device);
  // Opens the first device in a new container. With version 2 of sPAPR, the kernel has created the default window.
  void open_first();
  [[nodiscard]] std::span<std::byte> piece(std::uint64_t number, std::uint64_t count = 1) const {
    return memory.bytes().subspan(number * page, count * page);
  }
  // Creates a memfd whose pages are allocated; only the first is written.
  void make_file(std::uint64_t length);
  // Maps `count` pages of the memory separately, with a gap of one page between them.
  void map_pieces(std::uint64_t count);
  // From now on the first device's container refuses any other device, before the kernel has done anything.
  void refuse_to_share();

  WatchedKernel& kernel;
  Interface interface;
  HostDevice host;
  HostDevice other;
  Mmap memory;  // eight pages
  std::shared_ptr<const Fd> file;
  std::vector<std::uint64_t> bits;
  std::vector<Event> events;
  std::shared_ptr<Container> container;
  std::shared_ptr<Container> target;  // to which the first device moves
  std::optional<GuestMemory> guest;
  std::optional<Device> guest_device;
  std::optional<Device> guest_device_apart;
  std::optional<PciDevice> device;
  std::optional<PciDevice> joined;
  std::optional<DmaWindow> window;
  std::vector<Error> refusals;  // of the containers given in `join`
  bool is_moved = false;        // the second device has left vfio-pci for another driver
};

// How to retry after a failure.
enum class Retry : std::uint8_t {
  again,      // nothing has changed: the same operation succeeds
  from_anew,  // it took effect despite the failure, or the object is gone: repeat it with the whole set-up
};

// The two devices of a scenario: in separate groups, or in one slot and group if the host has such.
enum class Devices : std::uint8_t { apart, twins };

struct Scenario {
  std::string_view name;
  void (*prepare)(World&) = [](World&) {};
  Result<void> (*act)(World&) = nullptr;
  Retry retry = Retry::again;
  bool (*suits)(Interface) = [](Interface) { return true; };  // whether the interface has the feature
  bool (*applies)(World&) = [](World&) { return true; };      // whether host and device have it; after prepare()
  Devices devices = Devices::apart;
};

inline std::ostream& operator<<(std::ostream& out, const Scenario& scenario) { return out << scenario.name; }

[[nodiscard]] std::vector<Scenario> all_scenarios();
[[nodiscard]] const std::vector<Scenario>& guest_memory_scenarios();  // a part of them

}  // namespace postern::test
