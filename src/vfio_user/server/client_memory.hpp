// SPDX-License-Identifier: Apache-2.0
// ClientMemory: what a client has mapped: files in the device's container, and records of memory without a file.
#pragma once

#include <cstdint>
#include <map>
#include <postern-vfio-user/server.hpp>
#include <postern/container.hpp>
#include <postern/fd.hpp>

#include "vfio_user/wire/request.hpp"

namespace postern::vfio_user {

class ClientMemory {
 public:
  ClientMemory(Container& container, const Policy& policy) noexcept : container_(container), policy_(policy) {}

  // Maps a file. Memory without one, which no device can access, is only recorded, so that it can be unmapped: QEMU
  // sends its firmware and the BARs of other devices so. Errors: EINVAL (unaligned, no file of memory), EEXIST
  // (overlaps a mapping), ENOSPC and ENOMEM (the policy's limits), those of Container::map().
  [[nodiscard]] Result<void> map(const DmaMapBody& request, Fd file);
  // Unmaps exactly one mapping, or all. Returns 0 or an errno: ENOENT, those of Container::unmap().
  [[nodiscard]] int unmap(const DmaUnmap& request);
  [[nodiscard]] Result<void> unmap_all();

  // What iovas, offsets and sizes are multiples of, bytes.
  [[nodiscard]] std::uint64_t smallest_page() const noexcept;
  [[nodiscard]] std::uint64_t mapped() const noexcept { return mapped_; }  // bytes of files

 private:
  struct Piece {
    std::uint64_t last;  // iova
    bool has_file;
  };

  Container& container_;
  const Policy& policy_;
  std::map<std::uint64_t, Piece> pieces_;  // by their first iovas
  std::uint64_t mapped_ = 0;
};

}  // namespace postern::vfio_user
