// SPDX-License-Identifier: Apache-2.0
// SharedPages: pins pages, and counts their users.
#include "sim/iommufd/shared_pages.hpp"

#include <iterator>

namespace postern::sim {
namespace {

template <typename Part>
std::uint64_t length_of(Part part) {
  return (std::next(part)->first - part->first) * Process::page_size;
}

}  // namespace

int SharedPages::pin(Process& process, std::uint64_t first, std::uint64_t last) {
  if (is_alive_) return 0;
  std::uint64_t missing = 0;
  const auto end = split(last + 1);
  for (auto part = split(first); part != end; ++part) {
    if (part->second != 0) continue;
    const std::uint64_t length = length_of(part);
    const std::uintptr_t address = part->first * Process::page_size;
    const int result = file_ ? file_->fill(address, length) : process.check_pinnable(address, length, writable_);
    if (result < 0) return result;
    missing += length;
  }
  if (const int result = process.pin(missing); result < 0) return result;
  adopt(first, last);
  return 0;
}

void SharedPages::adopt(std::uint64_t first, std::uint64_t last) {
  const auto end = split(last + 1);
  for (auto part = split(first); part != end; ++part) ++part->second;
}

void SharedPages::unpin(Process& process, std::uint64_t first, std::uint64_t last) {
  if (is_alive_) return;
  const auto end = split(last + 1);
  for (auto part = split(first); part != end; ++part) {
    if (--part->second == 0) process.unpin(length_of(part));
  }
}

SharedPages::Users::iterator SharedPages::split(std::uint64_t at) {
  const auto before = std::prev(users_.upper_bound(at));
  return before->first == at ? before : users_.emplace_hint(std::next(before), at, before->second);
}

}  // namespace postern::sim
