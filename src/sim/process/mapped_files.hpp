// SPDX-License-Identifier: Apache-2.0
// MappedFiles: where the process has mapped open files of the simulated kernel: the BARs of its devices. As a vma does
// (vm_file), a mapping holds its file open when the fd is closed.
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
  // Nothing else is there: remove() was called. Lengths are rounded up to the host's page, as mmap(2) and munmap(2) do.
  void add(std::uintptr_t address, std::size_t length, std::shared_ptr<File> file);
  // These addresses are unmapped; gives the files that were mapped there, of which other mappings may be left.
  [[nodiscard]] std::set<std::shared_ptr<File>> remove(std::uintptr_t address, std::size_t length);

  [[nodiscard]] bool hold(const File& file) const;
  // How many of these bytes are a device's.
  [[nodiscard]] std::uint64_t bytes_in(std::uintptr_t address, std::uint64_t length) const;
  // Whether all of the devices' memory among these bytes can be reached (File::answers).
  [[nodiscard]] bool answer(std::uintptr_t address, std::uint64_t length) const;

 private:
  struct Mapping {
    std::uintptr_t first;
    std::shared_ptr<File> file;
  };
  using Mappings = std::map<std::uintptr_t, Mapping>;  // by their ends
  template <typename Visit>
  void for_each_in(std::uintptr_t address, std::uint64_t length, Visit visit) const;

  Mappings mappings_;
};

}  // namespace postern::sim
