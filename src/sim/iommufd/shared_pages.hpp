// SPDX-License-Identifier: Apache-2.0
// SharedPages: memory that several mappings of a simulated /dev/iommu share, or that is a file's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "sim/iommufd/file_pages.hpp"
#include "sim/process/process.hpp"

namespace postern::sim {

// What a mapping shares with its copies (struct iopt_pages): a page is pinned once for all of them. First and last are
// numbers of pages.
class SharedPages {
 public:
  explicit SharedPages(bool writable, std::unique_ptr<FilePages> file = nullptr)
      : writable_(writable), file_(std::move(file)) {}
  [[nodiscard]] bool writable() const noexcept { return writable_; }

  // One more mapping wants these pages: 0, -ENOMEM, or what it says that they are not there.
  [[nodiscard]] int pin(Process& process, std::uint64_t first, std::uint64_t last);
  // These pages are pinned already.
  void adopt(std::uint64_t first, std::uint64_t last);
  void unpin(Process& process, std::uint64_t first, std::uint64_t last);

 private:
  using Users = std::map<std::uint64_t, std::uint32_t>;
  [[nodiscard]] Users::iterator split(std::uint64_t at);

  bool writable_;
  std::unique_ptr<FilePages> file_;  // null: it is the process's memory
  Users users_{{0, 0}};              // how many mappings want a page, by its number, until the next one
};

}  // namespace postern::sim
