// SPDX-License-Identifier: Apache-2.0
// IoPagetable: the mappings of a simulated IOAS, their allowed ranges, and their pinned memory.
#include "sim/iommufd/io_pagetable.hpp"

#include <linux/iommufd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace postern::sim {

namespace {

constexpr std::uint64_t page = IoPagetable::page_size;
constexpr IovaRange everything{{0}, {~std::uint64_t{0}}};

std::uint64_t first_page(const IoPagetable::Piece& piece) { return piece.address / page; }
std::uint64_t last_page(const IoPagetable::Piece& piece) { return (piece.address + (piece.length - 1)) / page; }
std::uint64_t pinned_length(const IoPagetable::Piece& piece) {
  return (last_page(piece) - first_page(piece) + 1) * page;
}

const Area* next(const AddressSpace& space, const Area& area) {
  const Iova last = area.range.last;
  return last == everything.last ? nullptr : space.first_in({last + 1, everything.last});
}

// __alloc_iova_check_range, including its quirk: the very last byte is never used.
std::optional<std::uint64_t> fit(IovaRange range, std::uint64_t length, std::uint64_t alignment, std::uint64_t offset) {
  const std::uint64_t up = range.first.value + (alignment - 1);
  if (up < range.first.value) return std::nullopt;
  const std::uint64_t start = (up & ~(alignment - 1)) | offset;
  if (start >= range.last.value || range.last.value - start < length - 1) return std::nullopt;
  return start;
}

}  // namespace

IoPagetable::Piece IoPagetable::piece_of(const Area& area) const {
  const auto shared = shared_.empty() ? shared_.end() : shared_.find(area.range.last.value);
  return {area.address, area.range.length(), shared != shared_.end() ? shared->second : nullptr};
}

// pfn_reader_user_pin finds missing memory before pfn_reader_user_update_pinned checks the limit.
int IoPagetable::pin(const Piece& piece, bool writable) {
  if (piece.pages != nullptr) return piece.pages->pin(process_, first_page(piece), last_page(piece));
  const std::uint64_t length = pinned_length(piece);
  if (const int result = process_.check_pinnable(first_page(piece) * page, length, writable); result < 0) return result;
  return process_.pin(length);
}

void IoPagetable::unpin(const Piece& piece) {
  if (piece.pages != nullptr) {
    piece.pages->unpin(process_, first_page(piece), last_page(piece));
  } else {
    process_.unpin(pinned_length(piece));
  }
}

// iopt_fill_domain: all or nothing.
int IoPagetable::pin_all() {
  for (const Area* area = space_->first_in(everything); area != nullptr; area = next(*space_, *area)) {
    int result = pin(piece_of(*area), area->writable);
    if (result == 0 && !area->readable && !area->writable) {
      unpin(piece_of(*area));
      result = -EINVAL;
    }
    if (result < 0) {
      unpin_until(area);
      return result;
    }
  }
  return 0;
}

void IoPagetable::unpin_until(const Area* end) {
  for (const Area* area = space_->first_in(everything); area != end; area = next(*space_, *area)) {
    unpin(piece_of(*area));
  }
}

// iopt_map_pages
int IoPagetable::map(std::span<const Piece> pieces, std::uint64_t length, std::uint32_t flags, std::uint64_t& iova) {
  // iopt_alloc_area_pages
  if (length == 0 || (length & (alignment_ - 1)) != 0) return -EINVAL;
  const bool is_fixed = (flags & IOMMU_IOAS_MAP_FIXED_IOVA) != 0;
  const int found = is_fixed ? check_iova(iova, length) : find_iova(pieces.front().address, length, iova);
  if (found < 0) return found;

  // iopt_insert_area
  const bool readable = (flags & IOMMU_IOAS_MAP_READABLE) != 0;
  const bool writable = (flags & IOMMU_IOAS_MAP_WRITEABLE) != 0;
  for (const Piece& piece : pieces) {
    if (writable && piece.pages != nullptr && !piece.pages->writable()) return -EPERM;
    if ((piece.address & (page - 1) & (alignment_ - 1)) != 0) return -EINVAL;
  }

  // iopt_fill_domains_pages
  for (std::size_t i = 0; i < pieces.size() && !domains_.empty(); ++i) {
    if (const int result = pin(pieces[i], writable); result < 0) {
      for (const Piece& piece : pieces.first(i)) unpin(piece);
      return result;
    }
  }
  // VFIO's ioctls may request no access at all, but no page table has such an entry (pt_iommu map_range).
  if (!domains_.empty() && !readable && !writable) {
    for (const Piece& piece : pieces) unpin(piece);
    return -EINVAL;
  }
  Iova at{iova};
  for (const Piece& piece : pieces) {
    const IovaRange range{at, at + (piece.length - 1)};
    space_->insert({.range = range,
                    .address = piece.address,
                    .readable = readable,
                    .writable = writable,
                    .is_alive = piece.pages ? piece.pages->is_alive() : nullptr});
    if (piece.pages != nullptr) shared_[range.last.value] = piece.pages;
    at = range.last + 1;
  }
  return 0;
}

// iopt_unmap_iova_range: mappings before one that cannot be unmapped are unmapped.
int IoPagetable::unmap(IovaRange range, std::uint64_t& unmapped) {
  unmapped = 0;
  while (const Area* const found = space_->first_in(range)) {
    if (!range.contains(found->range)) return -ENOENT;
    const Area area = *found;
    if (!domains_.empty()) unpin(piece_of(area));
    if (!shared_.empty()) shared_.erase(area.range.last.value);
    space_->erase(area);
    for (const auto& domain : domains_) {
      auto& dirty = domain->dirty();
      if (dirty.empty()) continue;
      dirty.erase(dirty.lower_bound(area.range.first.value), dirty.upper_bound(area.range.last.value));
    }
    unmapped += area.range.length();
    if (area.range.last == range.last) break;
    range.first = area.range.last + 1;
  }
  return 0;
}

// iopt_cut_iova, iopt_area_split; without large pages
int IoPagetable::cut(Iova last) {
  const Area* const found = space_->holding(last);
  if (found == nullptr || last == found->range.first || last == found->range.last) return 0;
  const Iova next = last + 1;
  const std::uint64_t offset = next - found->range.first;
  if (((next.value | (found->address + offset)) & (alignment_ - 1)) != 0) return -EINVAL;
  Area before = *found;
  Area behind = *found;
  before.range.last = last;
  behind.range.first = next;
  behind.address += offset;
  const auto shared = shared_.find(behind.range.last.value);
  if (shared != shared_.end()) shared_[last.value] = shared->second;
  space_->erase(behind);
  space_->insert(before);
  space_->insert(behind);
  return 0;
}

// iopt_get_pages
int IoPagetable::get_pages(IovaRange range, std::vector<Piece>& pieces) {
  for (Iova at = range.first;; at = at + pieces.back().length) {
    const Area* const area = space_->holding(at);
    if (area == nullptr) return -ENOENT;
    Piece piece = piece_of(*area);
    if (piece.pages == nullptr) {
      piece.pages = std::make_shared<SharedPages>(area->writable);
      if (!domains_.empty()) piece.pages->adopt(first_page(piece), last_page(piece));
      shared_[area->range.last.value] = piece.pages;
    }
    const Iova last = std::min(area->range.last, range.last);
    pieces.push_back({area->address + (at - area->range.first), last - at + 1, std::move(piece.pages)});
    if (last == range.last) return 0;
  }
}

// iopt_check_iova
int IoPagetable::check_iova(std::uint64_t iova, std::uint64_t length) const {
  if ((iova & (alignment_ - 1)) != 0) return -EINVAL;
  const auto range = IovaRange::from_length({iova}, length);
  if (!range) return -EOVERFLOW;
  for (const auto& [each, owner] : reserved_) {
    if (each.overlaps(*range)) return -EINVAL;
  }
  return space_->first_in(*range) != nullptr ? -EEXIST : 0;
}

// The first reserved range or mapping at or after the start, or one that contains it.
std::optional<IovaRange> IoPagetable::first_used(IovaRange range) const {
  std::optional<IovaRange> first;
  if (const Area* const area = space_->first_in(range)) first = area->range;
  for (const auto& [each, owner] : reserved_) {
    if (each.overlaps(range) && (!first || each.first < first->first)) first = each;
  }
  return first;
}

// iopt_alloc_iova. Like the kernel, and unlike the rest, this takes time linear in the number of mappings.
int IoPagetable::find_iova(std::uint64_t address, std::uint64_t length, std::uint64_t& iova) const {
  if (length >= ~std::uint64_t{0} / 2) return -EOVERFLOW;
  std::uint64_t alignment = std::bit_ceil(length);
  if (address != 0) alignment = std::min(alignment, std::uint64_t{1} << std::countr_zero(address));
  alignment = std::min(alignment, Process::huge_page_size);  // CONFIG_TRANSPARENT_HUGEPAGE
  if (alignment < alignment_) return -EINVAL;

  const std::uint64_t offset = address % page;
  const IovaRange usual{{page}, everything.last - page};
  const std::span<const IovaRange> ranges = allowed_.empty() ? std::span(&usual, 1) : std::span(allowed_);
  for (IovaRange range : ranges) {
    range = {std::max(range.first, usual.first), std::min(range.last, usual.last)};
    const auto start = range.first <= range.last ? fit(range, length, alignment, offset) : std::nullopt;
    for (std::optional<Iova> at = start ? std::optional(Iova{*start}) : std::nullopt; at;) {
      const auto used = first_used({*at, range.last});
      if (!used || used->first > *at) {
        const auto place = fit({*at, used ? used->first - 1 : range.last}, length, alignment, offset);
        if (place) iova = *place;
        if (place) return 0;
      }
      at = used && used->last < range.last ? std::optional(used->last + 1) : std::nullopt;
    }
  }
  return -ENOSPC;
}

// iopt_reserve_iova
int IoPagetable::reserve(IovaRange range, const void* owner) {
  const auto overlaps = [&](IovaRange each) { return each.overlaps(range); };
  if (space_->first_in(range) != nullptr || std::any_of(allowed_.begin(), allowed_.end(), overlaps)) return -EADDRINUSE;
  reserved_.emplace_back(range, owner);
  return 0;
}

void IoPagetable::remove_reserved(const void* owner) {
  std::erase_if(reserved_, [&](const auto& each) { return each.second == owner; });
}

std::vector<IovaRange> IoPagetable::free_ranges() const {
  std::vector<IovaRange> used;
  for (const auto& [each, owner] : reserved_) used.push_back(each);
  std::sort(used.begin(), used.end(), [](IovaRange a, IovaRange b) { return a.first < b.first; });
  std::vector<IovaRange> ranges;
  Iova from{0};
  for (const IovaRange& each : used) {
    if (from < each.first) ranges.push_back({from, each.first - 1});
    if (each.last == everything.last) return ranges;
    from = std::max(from, each.last + 1);
  }
  ranges.push_back({from, everything.last});
  return ranges;
}

// iopt_set_allow_iova. Adjacent ranges are one (interval_tree_span_iter_next_gap).
int IoPagetable::allow(std::vector<IovaRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](IovaRange a, IovaRange b) { return a.first < b.first; });
  std::vector<IovaRange> merged;
  for (const IovaRange& range : ranges) {
    for (const auto& [each, owner] : reserved_) {
      if (each.overlaps(range)) return -EADDRINUSE;
    }
    if (!merged.empty() && merged.back().last + 1 == range.first) {
      merged.back().last = range.last;
    } else {
      merged.push_back(range);
    }
  }
  allowed_ = std::move(merged);
  return 0;
}

// iopt_check_iova_alignment
int IoPagetable::align(std::uint64_t alignment) {
  if (alignment > alignment_) {
    int result = 0;
    space_->for_each([&](const Area& area) {
      const std::uint64_t bits = area.range.first.value | area.range.length() | (area.address & (page - 1));
      if ((bits & (alignment - 1)) != 0) result = -EADDRINUSE;
    });
    if (result < 0) return result;
  }
  alignment_ = alignment;
  return 0;
}

// iopt_table_add_domain
int IoPagetable::add_domain(const std::shared_ptr<Domain>& domain, IovaRange aperture) {
  const std::uint64_t before = alignment_;
  const std::uint64_t alignment = std::max(std::uint64_t{1} << std::countr_zero(iommu_.page_sizes), before);
  if (alignment > page) return -EINVAL;
  if (const int result = align(alignment); result < 0) return result;
  const auto [first, last] = aperture;
  int result = 0;
  if (first.value != 0) result = reserve({{0}, first - 1}, domain.get());
  if (result == 0 && last != everything.last) result = reserve({last + 1, everything.last}, domain.get());
  // The memory is already pinned for another page table.
  if (result == 0 && domains_.empty()) result = pin_all();
  if (result < 0) {
    remove_reserved(domain.get());
    alignment_ = before;
    return result;
  }
  domains_.push_back(domain);
  return 0;
}

// iopt_table_remove_domain
void IoPagetable::remove_domain(const std::shared_ptr<Domain>& domain) {
  if (std::erase(domains_, domain) == 0) return;
  if (domains_.empty()) {
    unpin_until(nullptr);
    alignment_ = has_large_pages_ ? 1 : page;  // iopt_calculate_iova_alignment
  }
  remove_reserved(domain.get());
}

// iopt_disable_large_pages, iopt_enable_large_pages
int IoPagetable::set_large_pages(bool on) {
  if (on == has_large_pages_) return 0;
  if (!on && !domains_.empty() && space_->size() != 0) return -EINVAL;
  const std::uint64_t least = domains_.empty() ? 1 : std::uint64_t{1} << std::countr_zero(iommu_.page_sizes);
  if (const int result = align(on ? least : page); result < 0) return result;
  has_large_pages_ = on;
  return 0;
}

}  // namespace postern::sim
