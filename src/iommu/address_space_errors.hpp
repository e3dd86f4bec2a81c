// SPDX-License-Identifier: Apache-2.0
// AddressSpace's error messages: finds out which check a call failed. Not used on success.
#pragma once

#include <string>

#include "iommu/address_space.hpp"

namespace postern {

class AddressSpace::Errors {
 public:
  explicit Errors(const AddressSpace& space) : space_(space) {}

  [[nodiscard]] tl::unexpected<Error> not_open(std::string what) const;
  [[nodiscard]] std::string map_text(IovaRange range) const;
  [[nodiscard]] tl::unexpected<Error> refuse_map(IovaRange range, const Memory& memory) const;
  [[nodiscard]] tl::unexpected<Error> refuse_access(Iova iova, std::uint64_t length, Access access) const;
  [[nodiscard]] tl::unexpected<Error> refuse_overlap(IovaRange range, IovaRange taken) const;
  [[nodiscard]] tl::unexpected<Error> refuse_anywhere(std::uint64_t length, std::string reason) const;
  [[nodiscard]] tl::unexpected<Error> no_free_range(std::uint64_t length, IovaRange within) const;
  [[nodiscard]] tl::unexpected<Error> map_failure(CallResult failed, IovaRange range, const void* address) const;
  [[nodiscard]] tl::unexpected<Error> unmap_failure(int result, IovaRange range) const;
  [[nodiscard]] tl::unexpected<Error> unmap_failure(int result, std::string object) const;
  [[nodiscard]] tl::unexpected<Error> refuse_unmap(IovaRange range, std::uint64_t length) const;
  [[nodiscard]] Error connect_failure(const Error& error) const;
  [[nodiscard]] tl::unexpected<Error> refuse_split(IovaRange range, const IovaRange* split) const;

 private:
  const AddressSpace& space_;
};

}  // namespace postern
