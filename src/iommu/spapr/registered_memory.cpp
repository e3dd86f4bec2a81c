// SPDX-License-Identifier: Apache-2.0
// RegisteredMemory: registers and unregisters memory, and counts its users.
#include "iommu/spapr/registered_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/on_throw.hpp"
#include "kernel/spapr.hpp"

namespace postern::spapr {
namespace {

vfio_iommu_spapr_register_memory argument(std::uint64_t address, std::uint64_t length) {
  return {.argsz = sizeof(vfio_iommu_spapr_register_memory), .flags = 0, .vaddr = address, .size = length};
}

}  // namespace

// If memory ends within the range, the kernel returns the number of pages that exist, and registers nothing
// (mm_iommu_do_alloc; Linux 6.12, 7.3).
int RegisteredMemory::call_register(Range range) {
  auto memory = argument(range.address, range.length);
  const int result = register_memory(container_.kernel(), container_.get(), memory);
  pages_found_ = std::max(result, 0);
  return result > 0 ? -EFAULT : result;
}

std::string RegisteredMemory::pages_found_text() const {
  return fmt::format("{} found {} pages of memory there, and registered none", register_memory.symbol, pages_found_);
}

int RegisteredMemory::call_unregister(Range range) const {
  auto memory = argument(range.address, range.length);
  return unregister_memory(container_.kernel(), container_.get(), memory);
}

RegisteredMemory::Pieces::iterator RegisteredMemory::first_overlapping(std::uint64_t address) {
  auto piece = pieces_.upper_bound(address);
  if (piece == pieces_.begin()) return piece;
  const auto before = std::prev(piece);
  return address - before->first < before->second.length ? before : piece;
}

// Registers the parts without a piece, in as few pieces as the kernel accepts.
int RegisteredMemory::add_pieces(Range range, bool kept) {
  // Allocated before the system call.
  const auto piece = pieces_.emplace(range.address, Piece{.length = range.length, .users = 0, .kept = kept}).first;
  const int result = call_register(range);
  if (result >= 0) {
    if (!kept) ++temporary_;
    return 0;
  }
  pieces_.erase(piece);
  // The kernel allocates one array with 8 bytes per page (mm_iommu_do_alloc). If that fails, two smaller ones may
  // succeed.
  constexpr std::uint64_t smallest_part = std::uint64_t{1} << 30;
  if (result != -ENOMEM || range.length < 2 * smallest_part) return result;
  const std::uint64_t half = range.length / 2 / smallest_part * smallest_part;
  if (const int first = add_pieces({range.address, half}, kept); first < 0) return first;
  const OnThrow undo([&] { (void)remove_pieces({range.address, half}); });
  const int second = add_pieces({range.address + half, range.length - half}, kept);
  if (second < 0) (void)remove_pieces({range.address, half});
  return second;
}

int RegisteredMemory::remove_pieces(Range range) {
  int result = 0;
  auto piece = first_overlapping(range.address);
  while (piece != pieces_.end() && piece->first - range.address < range.length) {
    const int removed = call_unregister({piece->first, piece->second.length});
    // ENOENT: it is no longer registered (tce_iommu_unregister_pages).
    if (removed < 0 && removed != -ENOENT) {
      result = removed;
      ++piece;
      continue;
    }
    if (!piece->second.kept) --temporary_;
    piece = pieces_.erase(piece);
  }
  return result;
}

int RegisteredMemory::acquire(std::uint64_t address, std::uint64_t length) {
  std::vector<Range> gaps;
  std::uint64_t at = address;
  const std::uint64_t end = address + length;
  for (auto piece = first_overlapping(address); piece != pieces_.end() && piece->first < end; ++piece) {
    if (piece->first > at) gaps.push_back({at, piece->first - at});
    at = piece->first + piece->second.length;
    if (piece->second.kept) recent_ = {piece->first, piece->second.length};
  }
  if (at < end) gaps.push_back({at, end - at});
  auto gap = gaps.begin();
  const auto remove_added = [&] {
    std::for_each(gaps.begin(), gap, [this](Range added) { (void)remove_pieces(added); });
  };
  const OnThrow undo(remove_added);
  for (; gap != gaps.end(); ++gap) {
    const int result = add_pieces(*gap, false);
    if (result >= 0) continue;
    remove_added();
    return result;
  }
  for (auto piece = first_overlapping(address); piece != pieces_.end() && piece->first < end; ++piece) {
    ++piece->second.users;
  }
  return 0;
}

void RegisteredMemory::release(std::uint64_t address, std::uint64_t length) {
  auto piece = first_overlapping(address);
  while (piece != pieces_.end() && piece->first < address + length) {
    const auto current = piece++;
    if (current->second.kept || (current->second.users > 0 && --current->second.users > 0)) continue;
    // If this fails, the piece stays registered without a user: the next mapping uses it, and its unmap tries again.
    (void)remove_pieces({current->first, current->second.length});
  }
}

bool RegisteredMemory::overlaps(Range range) {
  const auto piece = first_overlapping(range.address);
  return piece != pieces_.end() && piece->first < range.address + range.length;
}

int RegisteredMemory::keep(Range range) {
  const auto kept = kept_.emplace(range.address, range.length).first;
  const auto drop = [&] { kept_.erase(kept); };
  const OnThrow undo(drop);
  const int result = add_pieces(range, true);
  if (result < 0) {
    drop();
    return result;
  }
  recent_ = {range.address, pieces_.at(range.address).length};
  return 0;
}

int RegisteredMemory::drop(Range range) {
  recent_ = {};
  const int result = remove_pieces(range);
  if (result >= 0) kept_.erase(range.address);
  return result;
}

void RegisteredMemory::suspend() {
  for (const auto& [address, piece] : pieces_) (void)call_unregister({address, piece.length});
  abandon();  // unregisters what failed before
}

void RegisteredMemory::abandon() {
  std::erase_if(pieces_, [](const auto& piece) { return !piece.second.kept; });
  temporary_ = 0;
}

int RegisteredMemory::resume() {
  for (auto piece = pieces_.begin(); piece != pieces_.end(); ++piece) {
    const int result = call_register({piece->first, piece->second.length});
    if (result >= 0) continue;
    while (piece != pieces_.begin()) {
      --piece;
      (void)call_unregister({piece->first, piece->second.length});
    }
    return result;
  }
  return 0;
}

std::uint64_t RegisteredMemory::size() const {
  std::uint64_t bytes = 0;
  for (const auto& [address, piece] : pieces_) bytes += piece.length;
  return bytes;
}

}  // namespace postern::spapr
