// SPDX-License-Identifier: Apache-2.0
// MappedFiles: the process's mappings of simulated files, which are BARs. A mapping keeps its file open when the fd is
// closed, as a vma does (vm_file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "sim/process/file.hpp"

namespace postern::sim {

class MappedFiles {
 public:
  // The range must be free: call remove() first. Lengths are rounded up to the host's page, as mmap(2) and munmap(2)
  // do.
  void add(std::uintptr_t address, std::size_t length, std::shared_ptr<File> file);
  // Removes the mappings in this range, and returns their files, which may have other mappings.
  [[nodiscard]] std::set<std::shared_ptr<File>> remove(std::uintptr_t address, std::size_t length);

  [[nodiscard]] bool hold(const File& file) const;
  // How many of these bytes are mapped from a device.
  [[nodiscard]] std::uint64_t bytes_in(std::uintptr_t address, std::uint64_t length) const;
  // Whether all device memory among these bytes is accessible (File::answers).
  [[nodiscard]] bool answer(std::uintptr_t address, std::uint64_t length) const;

 private:
  struct Mapping {
    std::uintptr_t first;
    std::shared_ptr<File> file;
  };
  using Mappings = std::map<std::uintptr_t, Mapping>;  // by their end addresses
  template <typename Visit>
  void for_each_in(std::uintptr_t address, std::uint64_t length, Visit visit) const;

  Mappings mappings_;
};

}  // namespace postern::sim
