// SPDX-License-Identifier: Apache-2.0
// UserArgument: checks that the memory exists, and copies changes back.
#include "sim/process/argument.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace postern::sim {

UserArgument::UserArgument(Process& process, void* address, std::size_t least, Tail tail)
    : process_(process), user_(static_cast<std::byte*>(address)) {
  const auto start = reinterpret_cast<std::uintptr_t>(address);
  const bool is_writable = process.check_argument(start, least, true) == 0;
  if (!is_writable && process.check_argument(start, least, false) < 0) return;
  std::uint32_t claimed = 0;
  if (least >= sizeof claimed) std::memcpy(&claimed, user_, sizeof claimed);
  // No call reads more than a page of an argument, even if its size field is larger.
  const std::size_t size = std::clamp<std::size_t>(claimed, least, std::max<std::size_t>(least, Process::page_size));
  data_ = user_;
  if (is_writable && (size == least || process.check_argument(start, size, true) == 0)) return;

  std::size_t there = size;
  while (there > least && process.check_argument(start, there, false) < 0) {
    const std::uintptr_t last_page = (start + there - 1) & ~(Process::page_size - 1);
    there = last_page > start + least ? last_page - start : least;
  }
  if (there < size && tail == Tail::wanted) {
    data_ = nullptr;
    return;
  }
  copy_.resize(2 * Process::page_size);
  std::memcpy(copy_.data(), user_, there);
  before_ = copy_;
  data_ = copy_.data();
}

int UserArgument::finish(int result) {
  std::size_t changed = copy_.size();
  while (changed > 0 && copy_[changed - 1] == before_[changed - 1]) --changed;
  if (changed == 0) return result;
  if (process_.check_argument(reinterpret_cast<std::uintptr_t>(user_), changed, true) < 0) return -EFAULT;
  std::memcpy(user_, copy_.data(), changed);
  return result;
}

}  // namespace postern::sim
