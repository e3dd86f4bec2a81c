// SPDX-License-Identifier: Apache-2.0
// Making a change of the layout in all containers, or in none.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <postern/format.hpp>

#include "base/words.hpp"
#include "core/causes.hpp"
#include "core/guest_memory/impl.hpp"
#include "core/replay.hpp"
#include "device/dma_buf.hpp"
#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

using guest_memory::Pieces;

namespace {

std::string object_text(const Container& container) {
  return fmt::format("change guest memory in container {}", container.backend());
}

// Tells, too, which of the mappings larger ones could replace.
tl::unexpected<Error> refuse_count(const Container& container, const guest_memory::LayoutChange& change,
                                   std::uint64_t left) {
  std::size_t granules = 0;
  std::size_t adjacent = 0;  // begin where another ends
  const Mapping* before = nullptr;
  for (const auto& [first, piece] : change.incoming()) {
    if (change.sparse_at(first) != nullptr) {
      ++granules;
    } else if (before != nullptr && before->range.last + 1 == first) {
      ++adjacent;
    }
    before = &piece;
  }
  std::string reason = fmt::format("it takes {} mappings and gives back {}, and the container may have {} more",
                                   change.incoming().size(), change.outgoing().size(), left);
  if (granules != 0) reason += fmt::format("; {} of them are granules of sparse memory, which may be larger", granules);
  if (adjacent != 0) reason += fmt::format("; {} of them are adjacent to another, but in other memory", adjacent);
  return refusal({.result = -ENOSPC,
                  .kind = ErrorKind::limit_reached,
                  .object = object_text(container),
                  .reason = std::move(reason),
                  .remedy = RemedyCode::allow_more_mappings});
}

tl::unexpected<Error> refuse_range(const Container& container, IovaRange range) {
  const auto& usable = container.usable_ranges();
  const auto bits = [](Iova iova) { return std::bit_width(iova.value); };
  std::string reason;
  if (usable.empty()) {
    reason = "it has no usable range";
  } else if (bits(range.last) > bits(usable.back().last)) {
    reason =
        fmt::format("{} needs address bit {}, and the IOMMU translates the lowest {} bits, up to {}", to_string(range),
                    bits(range.last) - 1, bits(usable.back().last), to_string(usable.back().last));
  } else {
    reason = fmt::format("{} is not within one of the usable ranges {}", to_string(range), ranges_text(usable));
  }
  return refusal({.result = -ERANGE,
                  .kind = ErrorKind::out_of_range,
                  .object = object_text(container),
                  .reason = std::move(reason),
                  .remedy = RemedyCode::place_guest_memory_in_ranges});
}

// An error of a piece, told as what was to be done with it.
Error about(const Mapping& piece, const Container& container, const Error& error) {
  Error::Details details = error.details();
  details.object =
      fmt::format("map the dma-buf at {} anew in container {}", to_string(piece.range), container.backend());
  return Error(std::move(details));
}

bool has_devices(const Container& container) { return !container.space().devices().empty(); }

bool is_dma_buf(const Mapping& mapping) { return mapping.memory.kind() == Memory::Kind::dma_buf; }

}  // namespace

std::uint64_t GuestMemory::Impl::most_granules() const {
  std::uint64_t most = guest_memory::most_granules;
  for (const auto& container : containers_) {
    if (const auto limit = container->mapping_limit()) most = std::min(most, std::max<std::uint64_t>(*limit / 4, 1));
  }
  return most;
}

// Whether the container can address the pieces.
Result<void> GuestMemory::Impl::check_ranges(const Container& container, const Pieces& pieces) {
  const auto& usable = container.usable_ranges();
  for (const auto& entry : pieces) {
    const IovaRange wanted = entry.second.range;
    const bool fits =
        std::any_of(usable.begin(), usable.end(), [&](IovaRange range) { return range.contains(wanted); });
    if (!fits) return refuse_range(container, wanted);
  }
  return {};
}

// What Container::map() would refuse, before anything is unmapped.
Result<void> GuestMemory::Impl::check(const Container& container) const {
  const Pieces& incoming = change_->incoming();
  POSTERN_TRY(check_ranges(container, incoming));
  if (const auto left = container.mappings_left(); left && incoming.size() > *left + change_->outgoing().size())
    return refuse_count(container, *change_, *left);
  return {};
}

Result<void> GuestMemory::Impl::make(const Step& step, ExaminedFiles& files) {
  const IovaRange range = step.mapping.range;
  if (step.maps) {
    for (const auto& other : containers_) {
      if (other == step.container) continue;
      const auto shown = other->find(range.first);
      if (shown && guest_memory::is_same(*shown, step.mapping))
        return map_as_in(*other, *step.container, step.mapping, files);
    }
    return map_one(*step.container, step.mapping, files);
  }
  if (is_dma_buf(step.mapping) && !step.container->find(range.first)) return {};  // make_back() could not map it
  if (dirty_) return unmap_tracked(*step.container, range);
  return step.container->unmap(range.first, range.length());
}

// Makes a step of undo(). A dma-buf that was revoked in the meantime is out of reach for devices whether it is mapped
// or not; remap_dma_bufs() maps it.
Result<void> GuestMemory::Impl::make_back(const Step& step) {
  ExaminedFiles files(ExaminedFiles::AddedPages::stay);  // the guest may have written to them
  auto made = make(step, files);
  const bool is_revoked = !made && step.maps && is_dma_buf(step.mapping) && made.error().code() == ENODEV;
  return is_revoked ? Result<void>() : made;
}

// Makes the steps backwards. Those that fail are owed; also those of a container whose devices have left.
void GuestMemory::Impl::undo(std::span<const Step> steps, std::vector<Error>& failures) noexcept {
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    Step back = *step;
    back.maps = !back.maps;
    try {
      if (has_devices(*back.container)) {
        auto made = make_back(back);
        if (made) continue;
        failures.push_back(std::move(made).error());
      }
    } catch (const std::bad_alloc&) {
    }
    owed_.push_back(std::move(back));
  }
}

// Makes all steps, or none, but for those of a container whose devices leave meanwhile: they are owed.
Result<void> GuestMemory::Impl::make_all(std::span<const Step> steps, ExaminedFiles& files) {
  owed_.reserve(2 * steps.size());  // it is empty: commit() has settled
  std::vector<Error> failures;
  std::size_t made = 0;
  try {
    for (; made < steps.size(); ++made) {
      const Step& step = steps[made];
      auto done = has_devices(*step.container) ? make(step, files) : Result<void>();
      if (!has_devices(*step.container)) {
        owed_.push_back(step);
        continue;
      }
      if (done) continue;
      const std::size_t before = owed_.size();
      undo(steps.first(made), failures);
      if (owed_.size() == before) return done;
      files.keep();  // some may be mapped still
      Error::Details details = done.error().details();
      details.causes.insert(details.causes.end(), failures.begin(), failures.end());
      details.reason = fmt::format("{}; then {} of {} steps could not be undone, and the next commit tries that again",
                                   done.error().reason_text(), owed_.size() - before, made);
      return failure(std::move(details));
    }
  } catch (const std::bad_alloc&) {
    undo(steps.first(made), failures);
    if (!owed_.empty()) files.keep();
    throw;
  }
  files.keep();
  return {};
}

// Brings containers back into step that an earlier failure left out of it. One that has no devices any more is closed.
Result<void> GuestMemory::Impl::settle() {
  POSTERN_TRY(close_unused_if([&](const std::shared_ptr<Container>& container) {
    return std::any_of(owed_.begin(), owed_.end(), [&](const Step& step) { return step.container == container; });
  }));
  while (!owed_.empty()) {
    POSTERN_TRY(
        make_back(owed_.front()));  // in the order of undo(): what was mapped goes before what it replaced comes back
    owed_.erase(owed_.begin());
  }
  return {};
}

Result<void> GuestMemory::Impl::commit() {
  change_->coalesce();
  POSTERN_TRY(close_unused());
  POSTERN_TRY(settle());
  std::vector<Step> steps;
  steps.reserve(containers_.size() * (change_->outgoing().size() + change_->incoming().size()));
  for (const auto& container : containers_) {
    POSTERN_TRY(check(*container));
    for (const auto& [first, piece] : change_->outgoing()) steps.push_back({container, piece, false});
  }
  // Only when memory is unmapped in all containers: sPAPR registers it with other bounds only if none has it
  // registered.
  for (const auto& container : containers_) {
    for (const auto& [first, piece] : change_->incoming()) steps.push_back({container, piece, true});
  }
  auto addresses = guest_memory::GuestLayout::addresses_of(change_->incoming());
  // Pages that are added to a file are the change's own, unless it maps parts of the file anew.
  const bool maps_anew = std::any_of(change_->outgoing().begin(), change_->outgoing().end(), [](const auto& piece) {
    return piece.second.memory.kind() == Memory::Kind::file;
  });
  ExaminedFiles files(maps_anew ? ExaminedFiles::AddedPages::stay : ExaminedFiles::AddedPages::go);
  POSTERN_TRY(make_all(steps, files));
  layout_.replace(change_->outgoing(), change_->incoming(), addresses);
  layout_.set_sparse(std::move(change_->sparse()));
  return {};
}

Result<void> GuestMemory::Impl::remap_dma_bufs(IovaRange range) {
  if (range.last < range.first) {
    return refusal({.result = -EINVAL, .object = "map dma-bufs of guest memory anew", .reason = inverted_text(range)});
  }
  POSTERN_TRY(settle());
  std::vector<Error> failures;
  for (const auto& [first, piece] : layout_.pieces()) {
    if (!is_dma_buf(piece) || !piece.range.overlaps(range)) continue;
    for (const auto& container : containers_) {
      if (container->devices().empty()) continue;  // it is closed by the next commit()
      const auto done = remap(container, piece);
      if (!done) failures.push_back(about(piece, *container, done.error()));
    }
  }
  if (failures.empty()) return {};
  const Error first = std::move(failures.front());
  failures.erase(failures.begin());
  return failure_with(std::move(failures), first);
}

Result<void> GuestMemory::Impl::remap(const std::shared_ptr<Container>& container, const Mapping& piece) {
  POSTERN_TRY(try_dma_buf(*container, piece));
  ExaminedFiles files(ExaminedFiles::AddedPages::stay);
  POSTERN_TRY(make({container, piece, false}, files));
  return make({container, piece, true}, files);
}

}  // namespace postern
