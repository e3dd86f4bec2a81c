// SPDX-License-Identifier: Apache-2.0
// InfoBuffer: the result of a VFIO info ioctl with its capability chain, read without trusting the offsets.
#pragma once

#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace postern {

// `Info` is a uAPI struct that starts with argsz. The kernel writes the size of the whole result there, so a first call
// finds the size and a second one gets everything.
template <typename Info>
class InfoBuffer {
 public:
  InfoBuffer() : words_(words_for(sizeof(Info))) { info().argsz = sizeof(Info); }

  [[nodiscard]] Info& info() noexcept { return *reinterpret_cast<Info*>(words_.data()); }
  [[nodiscard]] const Info& info() const noexcept { return *reinterpret_cast<const Info*>(words_.data()); }

  // Calls `ask(Info&)`, which returns 0 or a negated errno, until the result fits: once or twice, or more often if it
  // grows meanwhile. Returns E2BIG if it grows for ever or too large.
  template <typename Ask>
  [[nodiscard]] int fetch(Ask ask) {
    for (int attempt = 0; attempt < most_attempts; ++attempt) {
      const int result = ask(info());
      if (result < 0 || info().argsz <= size()) return result;
      if (info().argsz > largest) return -E2BIG;
      words_.resize(words_for(info().argsz));
      info().argsz = static_cast<std::uint32_t>(size());
    }
    return -E2BIG;
  }

  // Visits the capabilities from `offset` on: visit(const vfio_info_cap_header&, bytes available from it). The walk
  // ends at an offset that is not ahead or is past the end, and after more capabilities than any kernel returns. So it
  // is finite and stays within bounds.
  template <typename Visit>
  void for_each_capability(std::uint32_t offset, Visit visit) const {
    const auto* bytes = reinterpret_cast<const std::byte*>(words_.data());
    std::uint32_t behind = sizeof(Info) - 1;
    int left = most_capabilities;
    while (left-- > 0 && offset > behind && offset % alignof(vfio_info_cap_header) == 0 &&
           offset + sizeof(vfio_info_cap_header) <= size()) {
      // Before Linux 6.6, the 64-bit fields of a capability may be unaligned (vfio_info_cap_add).
      std::vector<std::uint64_t> moved;
      if (offset % sizeof(std::uint64_t) != 0) {
        const std::size_t length = std::min<std::size_t>(size() - offset, largest);
        moved.resize(words_for(length));
        std::memcpy(moved.data(), bytes + offset, length);
      }
      const auto* const at = moved.empty() ? bytes + offset : reinterpret_cast<const std::byte*>(moved.data());
      const auto& header = *reinterpret_cast<const vfio_info_cap_header*>(at);
      visit(header, size() - offset);
      behind = offset;
      offset = header.next;
    }
  }

 private:
  // No result comes near this size. A larger one is an error, which must not cause a huge allocation.
  static constexpr std::uint32_t largest = 1 << 20;
  static constexpr int most_capabilities = 64;
  static constexpr int most_attempts = 8;
  static constexpr std::size_t words_for(std::size_t bytes) { return (bytes + 7) / 8; }
  [[nodiscard]] std::size_t size() const noexcept { return words_.size() * 8; }

  std::vector<std::uint64_t> words_;  // 64-bit words, for alignment
};

// Returns the capability as its own struct, or null if it is truncated.
template <typename Capability>
[[nodiscard]] const Capability* capability_as(const vfio_info_cap_header& header, std::size_t available) {
  return available >= sizeof(Capability) ? reinterpret_cast<const Capability*>(&header) : nullptr;
}

}  // namespace postern
