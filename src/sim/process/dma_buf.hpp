// SPDX-License-Identifier: Apache-2.0
// DmaBuf: part of a BAR as a file, which other devices may reach by DMA while the BAR's device answers
// (vfio_pci_dmabuf.c, Linux 7.3).
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "sim/process/file.hpp"

namespace postern::sim {

class DmaBuf final : public File {
 public:
  static constexpr Kind own_kind = Kind::dma_buf;

  // `address` is where the process has the first of the ranges.
  DmaBuf(std::uintptr_t address, std::uint64_t length, std::size_t ranges, bool is_revoked)
      : File(own_kind, length), address_(address), length_(length), ranges_(ranges), is_revoked_(is_revoked) {
    path = "/dmabuf:";
  }

  [[nodiscard]] std::uintptr_t address() const noexcept { return address_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return length_; }
  // vfio_pci_dma_buf_iommufd_map: 0 or a negated errno. `is_alive` is true until the mapping is revoked, for good.
  [[nodiscard]] int map(std::shared_ptr<const bool>& is_alive) {
    if (is_revoked_) return -ENODEV;
    if (ranges_ != 1) return -EOPNOTSUPP;
    if (!is_alive_) is_alive_ = std::make_shared<bool>(true);
    is_alive = is_alive_;
    return 0;
  }
  // vfio_pci_dma_buf_move: the device's memory stops answering, or answers again.
  void move(bool is_revoked) noexcept {
    is_revoked_ = is_revoked;
    if (is_revoked && is_alive_) *is_alive_ = false;
    if (is_revoked) is_alive_.reset();
  }

  // dma_buf_llseek
  [[nodiscard]] std::int64_t lseek(std::uint64_t offset, int whence) override {
    if (offset != 0 || (whence != SEEK_SET && whence != SEEK_END)) return -EINVAL;
    return whence == SEEK_END ? static_cast<std::int64_t>(length_) : 0;
  }
  [[nodiscard]] std::intptr_t mmap(void* /*address*/, std::size_t /*length*/, int /*protection*/, int /*flags*/,
                                   std::uint64_t /*offset*/) override {
    return -EINVAL;
  }

 private:
  std::uintptr_t address_;
  std::uint64_t length_;
  std::size_t ranges_;
  bool is_revoked_;
  std::shared_ptr<bool> is_alive_;  // of the mappings since the last revocation; null: there are none
};

}  // namespace postern::sim
