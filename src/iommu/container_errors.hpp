// SPDX-License-Identifier: Apache-2.0
// Container's errors: which rule a call broke, in words. None of this runs while all is well.
#pragma once

#include <postern/container.hpp>

namespace postern {

class Container::Errors {
 public:
  explicit Errors(const Container& container) : container_(container) {}

  [[nodiscard]] tl::unexpected<Error> closed(std::string what) const;
  [[nodiscard]] tl::unexpected<Error> refuse_map(IovaRange range, std::span<std::byte> memory) const;
  [[nodiscard]] tl::unexpected<Error> refuse_overlap(IovaRange range, IovaRange taken) const;
  [[nodiscard]] tl::unexpected<Error> map_failure(int result, IovaRange range, const void* address) const;
  [[nodiscard]] tl::unexpected<Error> unmap_failure(int result, IovaRange range) const;
  [[nodiscard]] tl::unexpected<Error> refuse_unmap(IovaRange range, std::uint64_t length) const;
  [[nodiscard]] tl::unexpected<Error> refuse_split(IovaRange range, const IovaRange* split) const;

 private:
  const Container& container_;
};

}  // namespace postern
