// SPDX-License-Identifier: Apache-2.0
// Capabilities to JSON, and back.
#include "vfio_user/wire/capabilities.hpp"

#include <cerrno>
#include <nlohmann/json.hpp>

namespace postern::vfio_user {
namespace {

using nlohmann::json;

// Reads a value, if the object has it; false: it is of no use.
bool read(const json& object, const char* name, std::uint64_t& value) {
  const auto found = object.find(name);
  if (found == object.end()) return true;
  if (!found->is_number_unsigned() || *found == 0U) return false;
  value = found->get<std::uint64_t>();
  return true;
}

bool read(const json& object, const char* name, bool& value) {
  const auto found = object.find(name);
  if (found == object.end()) return true;
  if (!found->is_boolean()) return false;
  value = found->get<bool>();
  return true;
}

}  // namespace

tl::expected<Capabilities, int> parse_capabilities(std::string_view text) {
  Capabilities known;
  if (text.empty()) return known;
  const json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return tl::unexpected(EINVAL);
  const auto found = parsed.find("capabilities");
  if (found == parsed.end()) return known;
  const bool is_valid = found->is_object() && read(*found, "max_msg_fds", known.max_msg_fds) &&
                        read(*found, "max_data_xfer_size", known.max_data_xfer_size) &&
                        read(*found, "max_dma_maps", known.max_dma_maps) && read(*found, "pgsizes", known.pgsizes) &&
                        read(*found, "write_multiple", known.write_multiple);
  if (!is_valid) return tl::unexpected(EINVAL);
  return known;
}

std::string to_json(const Capabilities& capabilities) {
  json known{{"max_msg_fds", capabilities.max_msg_fds},
             {"max_data_xfer_size", capabilities.max_data_xfer_size},
             {"max_dma_maps", capabilities.max_dma_maps},
             {"pgsizes", capabilities.pgsizes}};
  if (capabilities.write_multiple) known["write_multiple"] = true;
  return json{{"capabilities", std::move(known)}}.dump();
}

}  // namespace postern::vfio_user
