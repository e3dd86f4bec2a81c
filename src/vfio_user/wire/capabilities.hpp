// SPDX-License-Identifier: Apache-2.0
// The JSON of VERSION: what one end of a connection can do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace postern::vfio_user {

// The values here are those of an end that does not tell.
struct Capabilities {
  std::uint64_t max_msg_fds = 1;                              // descriptors that it takes with a message
  std::uint64_t max_data_xfer_size = std::uint64_t{1} << 20;  // bytes of data in a message
  std::uint64_t max_dma_maps = 65535;                         // mappings at a time
  std::uint64_t pgsizes = 4096;                               // bitmap of page sizes of mappings, bytes
  bool write_multiple = false;                                // it takes REGION_WRITE_MULTI
};

// Reads the JSON. Unknown names are ignored, and of a name that occurs twice the last counts. The error is EINVAL: no
// JSON, no object, or a known name with a value of another type, beyond its range, or 0.
[[nodiscard]] tl::expected<Capabilities, int> parse_capabilities(std::string_view json);
[[nodiscard]] std::string to_json(const Capabilities& capabilities);

}  // namespace postern::vfio_user
