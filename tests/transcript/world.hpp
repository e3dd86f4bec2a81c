// SPDX-License-Identifier: Apache-2.0
// World: the objects that a transcript is about: open files by their places, devices by letters, memory, and what is
// known to be mapped.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <string>
#include <vector>

#include "transcript/random.hpp"

namespace postern::transcript {

enum class Backend { type1, type1v1, iommufd, spapr, spaprv1 };

[[nodiscard]] inline bool is_spapr(Backend backend) { return backend == Backend::spapr || backend == Backend::spaprv1; }

// A PCI function under its letter: A and B are alone in their groups, C and D, where there are any, are twins.
struct Function {
  PciAddress address;
  std::uint32_t group = 0;
  std::string cdev;  // its node
};

// A place for an open file; -1: nothing is open.
struct Place {
  std::string name;
  int fd = -1;
  std::size_t function = 0;  // of a device
  // A container that has an IOMMU, a cdev that is bound: as far as is known.
  bool is_usable = false;
  std::size_t container = 0;  // that a group is in, where it is usable
  [[nodiscard]] bool is_open() const noexcept { return fd >= 0; }
};

// Memory at the same address in every process that runs this, so that nothing depends on where it lies.
struct Memory {
  static constexpr std::uint64_t mib = 1 << 20;
  static constexpr std::uint64_t start = 0x200000000000;
  static constexpr std::uint64_t read_only = 16 * mib;  // offset of what may only be read,
  static constexpr std::uint64_t no_access = 20 * mib;  // of what may not be touched,
  static constexpr std::uint64_t hole = 24 * mib;       // of what is not there,
  static constexpr std::uint64_t scratch = 28 * mib;    // and of what ioctls write to; it is there
  static constexpr std::uint64_t end = 32 * mib;
  // At the end of the hole are places for BARs, side by side: the BAR 0 of a disk fills one. In front of them, too,
  // there is memory.
  static constexpr std::uint64_t bar_length = 0x4000;
  static constexpr std::uint64_t bar_places = 4;
  static constexpr std::uint64_t bars = scratch - bar_places * bar_length;
  static constexpr std::uint64_t before_bars = bars - 0x2000;
};

struct Mapping {
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
};

// A DMA window of sPAPR.
struct Window {
  std::uint64_t start = 0;
  std::uint64_t length = 0;
  unsigned page_shift = 12;
};

class World {
 public:
  World(Kernel& kernel, Backend backend, std::uint64_t seed);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Some of it is bound anew: the state at the beginning of an episode. What was done is told.
  [[nodiscard]] std::string begin_episode(std::uint64_t number);
  void begin_operation(std::uint64_t number) { random = Random(seed_, number); }

  Kernel& kernel;
  const Backend backend;
  Random random;

  std::vector<Place> containers, groups, devices, cdevs, iommufds, eventfds;
  std::vector<Function> functions;

  // By the iommufd's place: what is known of its ids, and what is mapped, by the IOAS. Only successes say something.
  struct Ids {
    std::vector<std::uint32_t> ioas, hwpts, devices;
    std::uint32_t compat = 0;  // the IOAS that was given to VFIO's ioctls
  };
  std::vector<Ids> ids;
  std::map<std::uint64_t, std::vector<Mapping>> mappings;  // by container, or by iommufd and IOAS

  // Of sPAPR: the memory that is registered, and by the container its windows; they may be gone meanwhile.
  std::vector<Mapping> registered;
  struct Windows {
    bool is_v1 = false;
    std::vector<Window> created;
    bool lost_default = false;
    enum class Dynamic { none, first, second } dynamic = Dynamic::none;  // in which slot the one at 1 << 59 is
  };
  std::map<std::uint64_t, Windows> windows;
  bool is_powernv = false;

  // How much is mapped in each place for a BAR; 0: nothing.
  std::array<std::uint64_t, Memory::bar_places> bars{};

  [[nodiscard]] Place& any(std::vector<Place>& places) { return places[random.below(places.size())]; }
  // One that is open where there is one, most of the time.
  [[nodiscard]] Place& open_one(std::vector<Place>& places);
  [[nodiscard]] static bool has_open(const std::vector<Place>& places);
  // The same for those that are usable.
  [[nodiscard]] Place& usable_one(std::vector<Place>& places);
  [[nodiscard]] static bool has_usable(const std::vector<Place>& places);
  // A group left its container.
  void leave(Place& group);
  [[nodiscard]] static char letter(std::size_t function) { return static_cast<char>('A' + function); }
  [[nodiscard]] std::size_t index_of(const Place& place, const std::vector<Place>& places) const;
  [[nodiscard]] int null_device() const noexcept { return null_device_; }

  void close(Place& place);

 private:
  void find_functions();
  void make_memory();
  void bind_all();
  void bind(std::size_t function, const std::string& driver);

  std::uint64_t seed_;
  int null_device_ = -1;
};

}  // namespace postern::transcript
