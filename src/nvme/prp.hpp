// SPDX-License-Identifier: Apache-2.0
// PRPs: how a command names its data, as pages of memory (NVM Express 1.4, section 4.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>

#include "nvme/commands.hpp"

namespace postern::nvme {

inline constexpr std::size_t prp_list_entries = page_size / sizeof(std::uint64_t);

// What one list page can name wherever the data begins: the first page is PRP1's, so that even data that begins within
// a page, and so touches one page more, fits.
inline constexpr std::uint64_t prp_max_bytes = prp_list_entries * page_size;

struct Prps {
  std::uint64_t prp1 = 0;
  std::uint64_t prp2 = 0;
};

// A page that the device can read, for one command at a time. Borrowed.
struct PrpList {
  std::span<Little<std::uint64_t>, prp_list_entries> entries;
  Iova iova;
};

// Names `bytes` of data that are contiguous from `data`, and fills the list where more than two pages are touched.
// `data` is a multiple of 4; 1 <= bytes <= prp_max_bytes.
[[nodiscard]] Prps build_prps(Iova data, std::uint64_t bytes, const PrpList& list) noexcept;

}  // namespace postern::nvme
