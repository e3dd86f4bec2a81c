// SPDX-License-Identifier: Apache-2.0
// Whether a device is bound to a VFIO driver.
#include "host/bound.hpp"

#include <fmt/format.h>

#include <cerrno>

namespace postern::tool {

Result<void> require_bound(const HostDevice& device, const std::string& verb) {
  if (device.is_vfio) return {};
  return failure({.code = ENODEV,
                  .operation = verb,
                  .object = device.name,
                  .reason = device.driver ? fmt::format("it is bound to {}, which is no VFIO driver", *device.driver)
                                          : "it is bound to no driver; it must be bound to a VFIO driver",
                  .remedy = fmt::format("\"postern bind {}\"", device.name),
                  .causes = {}});
}

}  // namespace postern::tool
