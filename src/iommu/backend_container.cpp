// SPDX-License-Identifier: Apache-2.0
// BackendContainer: default implementations for backends.
#include "iommu/backend_container.hpp"

#include <cerrno>

#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

// Removes each mapping from the record as it is unmapped, so that a retry after a failure continues with the rest.
// ENOENT is not a failure: there is nothing to unmap.
int BackendContainer::unmap_all() {
  while (const MappingRecord* mapping = space().mappings().at_or_above({0})) {
    const IovaRange range = mapping->range;
    const int result = unmap(range.first, range.length());
    if (result < 0 && result != -ENOENT) return result;
    space().erase(range);
  }
  return 0;
}

Result<void> BackendContainer::check_take_over(const Attached& /*device*/, const BackendContainer& /*from*/,
                                               const std::string& object) const {
  return refusal({.result = -EOPNOTSUPP,
                  .object = object,
                  .reason = "the kernel changes the container of a group only while no device of it is open",
                  .remedy = RemedyCode::attach_anew});
}

BackendContainer::Explanation BackendContainer::explain_map(CallResult /*failed*/, IovaRange /*range*/,
                                                            const void* /*address*/) const {
  return {};
}

}  // namespace postern
