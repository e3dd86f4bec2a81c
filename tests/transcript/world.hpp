// SPDX-License-Identifier: Apache-2.0
// World: the objects of a transcript: open files in named places, devices with letters, memory, and the known mappings.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <string>
#include <vector>

#include "transcript/migratable.hpp"
#include "transcript/random.hpp"

namespace postern::transcript {

// What to test: an IOMMU interface with its devices, or only migration.
enum class Backend { type1, type1v1, iommufd, migration, spapr, spaprv1 };

[[nodiscard]] inline bool is_spapr(Backend backend) { return backend == Backend::spapr || backend == Backend::spaprv1; }

// A PCI function with a letter: A and B are alone in their groups; C and D, if any, share one.
struct Function {
  PciAddress address;
  std::uint32_t group = 0;
  std::string cdev;  // path of the node
};

// A named place for an open file; fd is -1 if none is open.
struct Place {
  std::string name;
  int fd = -1;
  std::size_t function = 0;  // of a device
  // As far as known: a container has an IOMMU, a group is in a container or iommufd, a cdev is bound.
  bool is_usable = false;
  std::optional<std::size_t> container;  // of a group
  [[nodiscard]] bool is_open() const noexcept { return fd >= 0; }
};

// Memory at the same address in every process, so that results do not depend on it.
struct Memory {
  static constexpr std::uint64_t mib = 1 << 20;
  static constexpr std::uint64_t start = 0x200000000000;
  static constexpr std::uint64_t read_only = 16 * mib;  // offset of read-only memory,
  static constexpr std::uint64_t no_access = 20 * mib;  // of inaccessible memory,
  static constexpr std::uint64_t hole = 24 * mib;       // of unmapped memory,
  static constexpr std::uint64_t scratch = 28 * mib;    // and of buffers for ioctls
  static constexpr std::uint64_t end = 32 * mib;
  static constexpr std::uint64_t of_file = 8 * mib + 100;
  // At the end of the hole are adjacent places for BARs; a disk's BAR 0 fills one. The pages before them are mapped.
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

  // Binds the functions for an episode. Returns a line that describes it.
  [[nodiscard]] std::string begin_episode(std::uint64_t number);
  void begin_operation(std::uint64_t number) { random = Random(seed_, number); }

  Kernel& kernel;
  const Backend backend;
  Random random;

  std::vector<Place> containers, groups, devices, cdevs, iommufds, eventfds;
  std::vector<Function> functions;

  // The known ids of each iommufd, by its place, and the known mappings of its IOASes. Updated by successful calls
  // only.
  struct Ids {
    std::vector<std::uint32_t> ioas, hwpts, devices;
    std::uint32_t compat = 0;  // the IOAS that VFIO's container ioctls use
  };
  std::vector<Ids> ids;
  std::map<std::uint64_t, std::vector<Mapping>> mappings;  // by container, or by iommufd and IOAS

  // For sPAPR: the registered memory, and the windows of each container. They may no longer exist.
  std::vector<Mapping> registered;
  struct Windows {
    bool is_v1 = false;
    std::vector<Window> created;
    bool lost_default = false;
    enum class Dynamic { none, first, second } dynamic = Dynamic::none;  // slot of the one at 1 << 59
  };
  std::map<std::uint64_t, Windows> windows;
  bool is_powernv = false;

  bool may_take_signals = false;  // whether the kernel may wait for signals of the last eventfd
  // The mapped length in each place for a BAR; 0: not mapped.
  std::array<std::uint64_t, Memory::bar_places> bars{};
  std::optional<Migratable> migratable;  // for Backend::migration

  [[nodiscard]] Place& any(std::vector<Place>& places) { return places[random.below(places.size())]; }
  // Usually an open place, if there is one.
  [[nodiscard]] Place& open_one(std::vector<Place>& places);
  [[nodiscard]] static bool has_open(const std::vector<Place>& places);
  // Usually a usable place, if there is one.
  [[nodiscard]] Place& usable_one(std::vector<Place>& places);
  [[nodiscard]] static bool has_usable(const std::vector<Place>& places);
  // Records that a group has left its container.
  void leave(Place& group);
  [[nodiscard]] static char letter(std::size_t function) { return static_cast<char>('A' + function); }
  [[nodiscard]] std::size_t index_of(const Place& place, const std::vector<Place>& places) const;
  [[nodiscard]] int null_device() const noexcept { return null_device_; }
  // A memfd that ends within a page, opened read-write and read-only.
  [[nodiscard]] int memory_file() const noexcept { return memory_file_; }
  [[nodiscard]] int read_only_file() const noexcept { return read_only_file_; }

  void close(Place& place);

 private:
  void find_functions();
  void make_memory();
  void bind_all();
  void bind(std::size_t function, const std::string& driver);

  std::uint64_t seed_;
  int null_device_ = -1;
  int memory_file_ = -1;
  int read_only_file_ = -1;
};

}  // namespace postern::transcript
