// SPDX-License-Identifier: Apache-2.0
// PRPs: the pages of a command's data (NVM Express 1.4, section 4.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>

#include "nvme/commands.hpp"

namespace postern::nvme {

inline constexpr std::size_t prp_list_entries = page_size / sizeof(std::uint64_t);

// The most data that one list page can name, for any start: PRP1 names the first page, so even data that starts within
// a page, and touches one page more, fits.
inline constexpr std::uint64_t prp_max_bytes = prp_list_entries * page_size;

struct Prps {
  std::uint64_t prp1 = 0;
  std::uint64_t prp2 = 0;
};

// A page that the device can read, for one command at a time. Not owned.
struct PrpList {
  std::span<Le64, prp_list_entries> entries;
  Iova iova;
};

// Returns the PRPs of `bytes` bytes of contiguous data from `data`, and fills the list if more than two pages are
// touched. `data` is a multiple of 4; 1 <= bytes <= prp_max_bytes.
[[nodiscard]] Prps build_prps(Iova data, std::uint64_t bytes, const PrpList& list) noexcept;

}  // namespace postern::nvme
