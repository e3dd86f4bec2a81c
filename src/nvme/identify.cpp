// SPDX-License-Identifier: Apache-2.0
// Parses the data of Identify.
#include "nvme/identify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/little_endian.hpp>

#include "nvme/prp.hpp"

namespace postern::nvme {
namespace {

// `offset` is a constant within the data.
template <typename T>
T number_at(const IdentifyData& data, std::size_t offset) {
  T value;
  std::memcpy(&value, data.data() + offset, sizeof value);
  return little_endian(value);
}

std::string text_at(const IdentifyData& data, std::size_t offset, std::size_t length) {
  std::string text(length, '\0');
  std::memcpy(text.data(), data.data() + offset, length);
  constexpr std::string_view padding(" \0", 2);  // spaces by the specification; some controllers use NULs
  text.erase(text.find_last_not_of(padding) + 1);
  text.erase(0, text.find_first_not_of(' '));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

tl::unexpected<Error> odd_data(int code, std::string object, std::string reason) {
  return failure({.code = code,
                  .operation = "NVMe Identify",
                  .object = std::move(object),
                  .reason = std::move(reason),
                  .remedy = {},
                  .causes = {}});
}

}  // namespace

Result<ControllerData> parse_controller(std::string_view device, const IdentifyData& data) {
  // SQES and CQES: the required size in bits 0..3 and the largest in bits 4..7, as powers of two.
  constexpr auto takes = [](std::uint8_t sizes, unsigned size) { return (sizes & 0xf) <= size && size <= sizes >> 4; };
  const auto submission = number_at<std::uint8_t>(data, 512);
  const auto completion = number_at<std::uint8_t>(data, 513);
  if (!takes(submission, 6) || !takes(completion, 4)) {
    return odd_data(EIO, std::string(device),
                    fmt::format("it does not support queue entries of 64 and 16 bytes (SQES {:#04x}, CQES {:#04x})",
                                submission, completion));
  }
  return ControllerData{.model = text_at(data, 24, 40),
                        .serial = text_at(data, 4, 20),
                        .firmware = text_at(data, 64, 8),
                        .max_transfer_shift = number_at<std::uint8_t>(data, 77),
                        .max_namespace = number_at<std::uint32_t>(data, 516)};
}

std::uint64_t max_transfer(std::uint8_t max_transfer_shift, std::uint64_t smallest_page) noexcept {
  // A shift that would overflow is far beyond what a PRP list can name.
  if (max_transfer_shift == 0 || max_transfer_shift > 32) return prp_max_bytes;
  return std::min(prp_max_bytes, smallest_page << max_transfer_shift);
}

Result<std::vector<std::uint32_t>> parse_active_namespaces(std::string_view device, std::uint32_t max_namespace,
                                                           const IdentifyData& data) {
  std::vector<std::uint32_t> ids;
  for (std::size_t offset = 0; offset < data.size(); offset += sizeof(std::uint32_t)) {
    const auto id = number_at<std::uint32_t>(data, offset);
    if (id == 0) break;
    const std::uint32_t last = ids.empty() ? 0 : ids.back();
    if (id <= last || id > max_namespace) {
      return odd_data(EIO, std::string(device),
                      fmt::format("its list of active namespaces has {} after {}, but the highest id is {}", id, last,
                                  max_namespace));
    }
    ids.push_back(id);
  }
  return ids;
}

Result<Namespace> parse_namespace(std::string_view device, std::uint32_t id, const IdentifyData& data) {
  const auto odd = [&](int code, std::string reason) {
    return odd_data(code, fmt::format("{} namespace {}", device, id), std::move(reason));
  };
  const auto blocks = number_at<std::uint64_t>(data, 0);
  const std::uint32_t format = number_at<std::uint8_t>(data, 26) & 0xf;  // FLBAS: which of the 16 formats is in use
  const auto lba_format = number_at<std::uint32_t>(data, 128 + 4 * std::size_t{format});
  const std::uint32_t metadata = lba_format & 0xffff;
  const std::uint32_t shift = (lba_format >> 16) & 0xff;

  // With metadata, a block is longer than its size, or needs a second buffer: the device would access memory beyond the
  // caller's.
  if (metadata != 0) return odd(EOPNOTSUPP, fmt::format("its blocks carry {} bytes of metadata each", metadata));
  if (shift < 9 || shift > 30) return odd(EIO, fmt::format("a block size of 2^{} bytes", shift));
  if (blocks > (~std::uint64_t{0} >> shift)) return odd(EIO, fmt::format("{} blocks of 2^{} bytes", blocks, shift));
  return Namespace{.id = id, .blocks = blocks, .block_size = std::uint32_t{1} << shift};
}

}  // namespace postern::nvme
