// SPDX-License-Identifier: Apache-2.0
// Fuzzes messages of vfio-user's clients: requests of any command, and the JSON of VERSION.
#include "vfio_user/wire/request.hpp"

#include <cstdlib>
#include <string_view>
#include <vector>

#include "fuzz/bytes.hpp"
#include "vfio_user/wire/capabilities.hpp"

namespace postern::fuzz {
namespace {

using namespace vfio_user;

void require(bool holds) {
  if (!holds) std::abort();
}

bool ends_within_64_bits(std::uint64_t first, std::uint64_t count) {
  return count != 0 && first + (count - 1) >= first;
}

// What the rest of the server relies on.
void check(const Request& request, std::size_t fds) {
  if (const auto* const map = std::get_if<DmaMap>(&request)) {
    require(ends_within_64_bits(map->body.iova, map->body.size));
    require(ends_within_64_bits(map->body.offset, map->body.size));
    require(map->body.flags >= 1 && map->body.flags <= 3 && fds <= 1);
    return;
  }
  if (const auto* const unmap = std::get_if<DmaUnmap>(&request))
    require(unmap->is_all() || ends_within_64_bits(unmap->body.iova, unmap->body.size));
  if (const auto* const set = std::get_if<DeviceSetIrqs>(&request)) {
    require(set->body.start + std::uint64_t{set->body.count} <= 0xffffffff);
    require(set->data != IrqData::boolean || set->booleans.size() == set->body.count);
    require(fds == 0 || (set->data == IrqData::eventfd && fds == set->body.count));
    return;
  }
  require(fds == 0);
  if (const auto* const read = std::get_if<RegionRead>(&request)) {
    require(read->body.count <= longest_transfer && ends_within_64_bits(read->body.offset, read->body.count));
  }
  if (const auto* const write = std::get_if<RegionWrite>(&request))
    require(write->data.size() == write->body.count && ends_within_64_bits(write->body.offset, write->body.count));
  if (const auto* const multi = std::get_if<RegionWriteMulti>(&request)) {
    for (const RegionWriteBody& each : multi->writes)
      require(each.access.count <= sizeof each.data && ends_within_64_bits(each.access.offset, each.access.count));
  }
}

void check_capabilities(std::string_view json) {
  const auto known = parse_capabilities(json);
  if (!known) return;
  const auto again = parse_capabilities(to_json(*known));
  require(again && again->max_msg_fds == known->max_msg_fds && again->pgsizes == known->pgsizes &&
          again->max_data_xfer_size == known->max_data_xfer_size && again->max_dma_maps == known->max_dma_maps &&
          again->write_multiple == known->write_multiple);
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  fuzz::Bytes bytes(data, size);
  const std::size_t fds = bytes.take<std::uint8_t>() % 20;
  vfio_user::Header header{};
  header.command = bytes.take<std::uint8_t>();
  header.flags = bytes.take<std::uint8_t>();
  constexpr std::size_t before = 3;  // bytes
  // On the heap, so that a read behind its end is found.
  const std::vector<std::byte> body(reinterpret_cast<const std::byte*>(data) + std::min(size, before),
                                    reinterpret_cast<const std::byte*>(data) + size);
  header.size = static_cast<std::uint32_t>(sizeof header + body.size());
  (void)vfio_user::has_usable_size(header);
  const auto request = vfio_user::parse_request(header, body, fds);
  if (request) {
    fuzz::check(*request, fds);
    if (const auto* const version = std::get_if<vfio_user::Version>(&*request)) fuzz::check_capabilities(version->json);
  }
  fuzz::check_capabilities({reinterpret_cast<const char*>(body.data()), body.size()});
  return 0;
}
