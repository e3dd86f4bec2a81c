// SPDX-License-Identifier: Apache-2.0
// ClientMemory: checks the client's requests, and makes them in the container.
#include "vfio_user/server/client_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <iterator>
#include <memory>
#include <postern/format.hpp>
#include <string>
#include <utility>

namespace postern::vfio_user {

std::uint64_t ClientMemory::smallest_page() const noexcept {
  const std::uint64_t sizes = container_.page_sizes();
  return sizes == 0 ? 4096 : sizes & (~sizes + 1);
}

Result<void> ClientMemory::map(const DmaMapBody& request, Fd file) {
  const auto refuse = [&](int code, std::string reason) {
    return failure({.code = code,
                    .object = fmt::format("map {:#x}+{} for the client", request.iova, size_text(request.size)),
                    .reason = std::move(reason)});
  };
  const std::uint64_t page = smallest_page();
  if (((request.iova | request.offset | request.size) & (page - 1)) != 0)
    return refuse(EINVAL, fmt::format("iova, offset and size must be multiples of {}", size_text(page)));
  const std::uint64_t last = request.iova + (request.size - 1);
  const auto above = pieces_.lower_bound(request.iova);
  const bool overlaps = (above != pieces_.end() && above->first <= last) ||
                        (above != pieces_.begin() && std::prev(above)->second.last >= request.iova);
  if (overlaps) return refuse(EEXIST, "the client has mapped part of it before");
  if (pieces_.size() >= policy_.mapping_limit)
    return refuse(ENOSPC, fmt::format("the policy lets it have {} mappings", policy_.mapping_limit));
  const bool has_file = static_cast<bool>(file);
  if (has_file && request.size > policy_.memory_limit - mapped_) {
    return refuse(ENOMEM, fmt::format("the policy lets it map {}, and {} are mapped", size_text(policy_.memory_limit),
                                      size_text(mapped_)));
  }
  // Only files of memory have seals. Unlike fstat(2), this does not wait for the client if the file is on its own FUSE.
  if (has_file && container_.kernel().fcntl(file.get(), F_GET_SEALS) < 0)
    return refuse(EINVAL, "the client has sent a descriptor that is no file of memory");

  const auto piece = pieces_.emplace_hint(above, request.iova, Piece{.last = last, .has_file = has_file});
  if (!has_file) return {};
  Result<void> mapped;
  try {
    const auto shared = std::make_shared<const Fd>(std::move(file));
    mapped = container_.map(Iova{request.iova}, Memory::of_file(shared, request.offset, request.size),
                            static_cast<Access>(request.flags));
  } catch (...) {
    pieces_.erase(piece);
    throw;
  }
  if (mapped) {
    mapped_ += request.size;
  } else {
    pieces_.erase(piece);
  }
  return mapped;
}

int ClientMemory::unmap(const DmaUnmap& request) {
  if (request.is_all()) {
    const auto done = unmap_all();
    return done ? 0 : done.error().code();
  }
  const auto piece = pieces_.find(request.body.iova);
  if (piece == pieces_.end() || piece->second.last != request.body.iova + (request.body.size - 1)) return ENOENT;
  if (piece->second.has_file) {
    const auto done = container_.unmap(Iova{request.body.iova}, request.body.size);
    if (!done) return done.error().code();
    mapped_ -= request.body.size;
  }
  pieces_.erase(piece);
  return 0;
}

Result<void> ClientMemory::unmap_all() {
  if (mapped_ != 0) POSTERN_TRY(container_.unmap_all());
  pieces_.clear();
  mapped_ = 0;
  return {};
}

}  // namespace postern::vfio_user
