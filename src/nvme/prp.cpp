// SPDX-License-Identifier: Apache-2.0
// Builds PRPs.
#include "nvme/prp.hpp"

namespace postern::nvme {

Prps build_prps(Iova data, std::uint64_t bytes, const PrpList& list) noexcept {
  const std::uint64_t first_page = data.value & ~(page_size - 1);
  const std::uint64_t last_page = (data.value + (bytes - 1)) & ~(page_size - 1);
  const std::uint64_t more_pages = (last_page - first_page) / page_size;

  // PRP2 is the second page if there is no third, else a list.
  if (more_pages == 0) return {.prp1 = data.value, .prp2 = 0};
  if (more_pages == 1) return {.prp1 = data.value, .prp2 = last_page};
  for (std::size_t i = 0; i < more_pages; ++i) list.entries[i] = first_page + (i + 1) * page_size;
  return {.prp1 = data.value, .prp2 = list.iova.value};
}

}  // namespace postern::nvme
