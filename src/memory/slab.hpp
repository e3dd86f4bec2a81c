// SPDX-License-Identifier: Apache-2.0
// Slab: allocates records of one type in chunks, with a free list. Records never move.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace postern::memory {

// Thread safety: one thread at a time.
template <typename T>
class Slab {
  static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>);

 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  [[nodiscard]] bool has_room() const noexcept { return free_ != nullptr; }  // then take() allocates nothing
  [[nodiscard]] T* take(const T& value) {
    if (free_ == nullptr) [[unlikely]]
      grow();
    Free* const slot = free_;
    free_ = slot->next;
    ++surplus_;
    return ::new (static_cast<void*>(slot)) T(value);
  }

  void give_back(T* record) noexcept {
    free_ = ::new (static_cast<void*>(record)) Free{free_};
    --surplus_;
  }

  // The number of live records at which is_full() becomes true; the slab itself has no limit.
  void set_limit(std::uint64_t records) noexcept {
    limit_ = static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(records, PTRDIFF_MAX));
    most_surplus_ = limit_ - least_;
  }
  [[nodiscard]] bool is_full() const noexcept { return surplus_ >= most_surplus_; }

  // Whether trim() is due.
  [[nodiscard]] bool is_sparse() const noexcept { return surplus_ < 0; }

  // Frees the chunks without records. Due when the live records have fallen to a quarter of the capacity, and then each
  // time they have halved, so that its cost is amortised over the records given back.
  void trim() noexcept;

  void clear() noexcept {
    chunks_.clear();
    free_ = nullptr;
    surplus_ = least_ = 0;
    most_surplus_ = limit_;
  }

  [[nodiscard]] std::size_t live() const noexcept { return static_cast<std::size_t>(least_ + surplus_); }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return chunks_.size() * sizeof(Chunk) + chunks_.capacity() * sizeof(chunks_[0]);
  }

 private:
  struct Free {
    Free* next;
  };
  static constexpr std::size_t record_bytes = std::max(sizeof(T), sizeof(Free));
  static constexpr std::size_t chunk_records = 128;
  struct Chunk {
    std::size_t free = 0;  // used by trim() only
    alignas(std::max(alignof(T), alignof(Free))) std::array<std::byte, record_bytes * chunk_records> storage;
  };

  [[gnu::noinline]] void grow() {
    chunks_.push_back(std::unique_ptr<Chunk>(new Chunk));  // make_unique would zero it
    std::byte* const storage = chunks_.back()->storage.data();
    // Linked from the end, so that records are allocated in the order of their addresses.
    for (std::size_t i = chunk_records; i-- > 0;) free_ = ::new (storage + i * record_bytes) Free{free_};
    set_least(chunks_.size() * chunk_records / 4);
  }

  void set_least(std::size_t least) noexcept {
    surplus_ = least_ + surplus_ - static_cast<std::ptrdiff_t>(least);
    least_ = static_cast<std::ptrdiff_t>(least);
    most_surplus_ = limit_ - least_;
  }

  // Returns the chunk of a slot; chunks_ must be sorted.
  [[nodiscard]] Chunk& chunk_of(const Free* slot) const noexcept {
    const auto* const address = reinterpret_cast<const std::byte*>(slot);
    const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), address, [](const std::byte* a, const auto& c) {
      return std::less<>()(a, reinterpret_cast<const std::byte*>(c.get()));
    });
    return **std::prev(after);
  }

  Free* free_ = nullptr;
  std::ptrdiff_t surplus_ = 0;  // live records minus least_: one number to count and to compare
  std::ptrdiff_t least_ = 0;    // with fewer live records, a trim is due
  std::ptrdiff_t limit_ = PTRDIFF_MAX;
  std::ptrdiff_t most_surplus_ = PTRDIFF_MAX;  // limit_ minus least_
  std::vector<std::unique_ptr<Chunk>> chunks_;
};

template <typename T>
void Slab<T>::trim() noexcept {
  set_least(live() / 2);
  std::sort(chunks_.begin(), chunks_.end(),
            [](const auto& a, const auto& b) { return std::less<>()(a.get(), b.get()); });
  for (auto& chunk : chunks_) chunk->free = 0;
  for (Free* slot = free_; slot != nullptr; slot = slot->next) ++chunk_of(slot).free;

  std::size_t spared = live() == 0 ? 1 : 0;  // so that the first record needs no new chunk
  for (auto& chunk : chunks_) {
    if (spared == 0 || chunk->free != chunk_records) continue;
    chunk->free = 0;
    --spared;
  }
  Free** link = &free_;
  for (Free* slot = free_; slot != nullptr; slot = slot->next) {
    if (chunk_of(slot).free == chunk_records) continue;
    *link = slot;
    link = &slot->next;
  }
  *link = nullptr;
  std::erase_if(chunks_, [](const auto& chunk) { return chunk->free == chunk_records; });
}

}  // namespace postern::memory
