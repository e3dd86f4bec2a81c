// SPDX-License-Identifier: Apache-2.0
// Scenario: one thing that the library does, to be done while one of its kernel calls fails, whichever.
#pragma once

#include <postern/dirty_tracker.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/dma_windows.hpp>
#include <postern/event.hpp>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern::test {

[[nodiscard]] inline bool is_spapr_v2(Interface interface) {
  return interface.backend == "spapr" && interface.version == 2;
}

// What a scenario works on. The order is that of tear-down, backwards: devices, container, memory.
struct World {
  World(WatchedKernel& kernel, Interface interface, HostDevice first, HostDevice second);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  static constexpr std::uint64_t page = 65536;  // a multiple of every host's
  static constexpr Iova base{0x10000000};       // within every IOMMU's reach

  // For set-ups, which run without faults: throws where a step fails.
  static void must(const Result<void>& done);

  [[nodiscard]] AttachOptions options() const { return options_for(interface); }
  [[nodiscard]] bool is_spapr_v2() const { return test::is_spapr_v2(interface); }
  // Attaches a device and reads its config space; `container` is that of the first.
  [[nodiscard]] Result<void> open(const HostDevice& which, const AttachOptions& with, std::optional<PciDevice>& device);
  // The first, in a container of its own, where with sPAPR the kernel has made the default window.
  void open_first();
  [[nodiscard]] std::span<std::byte> piece(std::uint64_t number, std::uint64_t count = 1) const {
    return memory.bytes().subspan(number * page, count * page);
  }
  // Maps so many pieces of the memory, each by itself and a page apart.
  void map_pieces(std::uint64_t count);

  WatchedKernel& kernel;
  Interface interface;
  HostDevice host;
  HostDevice other;
  Mmap memory;  // eight pages
  std::vector<std::uint64_t> bits;
  std::vector<Event> events;
  std::shared_ptr<Container> container;
  std::optional<PciDevice> device;
  std::optional<PciDevice> joined;
  std::optional<DmaWindow> window;
  std::vector<Error> refusals;  // of containers that were to be joined
  bool is_moved = false;        // the second device, from vfio-pci to another driver
};

// What may be tried after a failure.
enum class Retry : std::uint8_t {
  again,      // nothing has changed, and the same succeeds
  from_anew,  // it is done for all that, or the thing is gone: the whole set-up can be made again
};

// Which devices a scenario is for: two in groups of their own, or two of one slot that share a group where the host has
// such.
enum class Devices : std::uint8_t { apart, twins };

struct Scenario {
  std::string_view name;
  void (*prepare)(World&) = [](World&) {};
  Result<void> (*act)(World&) = nullptr;
  Retry retry = Retry::again;
  bool (*suits)(Interface) = [](Interface) { return true; };  // whether this interface has such a thing at all
  bool (*applies)(World&) = [](World&) { return true; };      // whether this host and device have it, after prepare()
  Devices devices = Devices::apart;
};

inline std::ostream& operator<<(std::ostream& out, const Scenario& scenario) { return out << scenario.name; }

[[nodiscard]] std::vector<Scenario> all_scenarios();

}  // namespace postern::test
