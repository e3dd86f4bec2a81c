// SPDX-License-Identifier: Apache-2.0
// SharedPages: memory that several mappings of a simulated /dev/iommu share, or memory of a file or dma-buf.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "sim/iommufd/file_pages.hpp"
#include "sim/process/process.hpp"

namespace postern::sim {

// The pages that a mapping shares with its copies (struct iopt_pages): a page is pinned once for all of them. First and
// last are page numbers.
class SharedPages {
 public:
  explicit SharedPages(bool writable, std::unique_ptr<FilePages> file = nullptr)
      : writable_(writable), file_(std::move(file)) {}
  // Of a dma-buf (DmaBuf::map()): nothing of it is pinned, nor counted.
  SharedPages(bool writable, std::shared_ptr<const bool> is_alive)
      : writable_(writable), is_alive_(std::move(is_alive)) {}
  [[nodiscard]] bool writable() const noexcept { return writable_; }
  [[nodiscard]] const std::shared_ptr<const bool>& is_alive() const noexcept { return is_alive_; }

  // Adds a user of these pages, and pins them: 0, -ENOMEM, or the errno of missing memory.
  [[nodiscard]] int pin(Process& process, std::uint64_t first, std::uint64_t last);
  // Adds a user of pages that are already pinned.
  void adopt(std::uint64_t first, std::uint64_t last);
  void unpin(Process& process, std::uint64_t first, std::uint64_t last);

 private:
  using Users = std::map<std::uint64_t, std::uint32_t>;
  [[nodiscard]] Users::iterator split(std::uint64_t at);

  bool writable_;
  std::unique_ptr<FilePages> file_;       // null: memory of the process, or of a dma-buf
  std::shared_ptr<const bool> is_alive_;  // null: no dma-buf
  Users users_{{0, 0}};                   // the number of users from this page to the next key
};

}  // namespace postern::sim
