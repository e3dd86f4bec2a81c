// SPDX-License-Identifier: Apache-2.0
// Requirement: looking up what a backend needs.
#include "iommu/requirement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/backend_ops.hpp"

namespace postern {
namespace {

bool is_asked(const Requirement& requirement, const Lookup& lookup) {
  const bool of_it = requirement.of == Requirement::Of::host ||
                     (requirement.of == Requirement::Of::device) == (lookup.device != nullptr);
  return of_it && (requirement.applies == nullptr || requirement.applies(lookup));
}

bool is_given(const Requirement& requirement, const Lookup& lookup) {
  const bool is_node_of_device = requirement.of == Requirement::Of::device && requirement.node != nullptr;
  return is_node_of_device && lookup.device != nullptr && lookup.device->fd;
}

Result<std::string> find_one(const Requirement& requirement, Lookup& lookup) {
  auto found = requirement.find(requirement, lookup);
  if (found) return found;
  return failure(with_processor(lookup.kernel, lookup.backend, found.error()));
}

}  // namespace

std::string Lookup::object() const { return device != nullptr ? device->name : fmt::format("backend {}", backend); }

Result<Probed> look_up(Kernel& kernel, const Backend& backend, const HostDevice* device,
                       const std::shared_ptr<const Fd>& fd) {
  Lookup lookup{.kernel = kernel, .backend = backend.name, .device = device, .fd = fd};
  for (const bool given : {true, false}) {
    for (const Requirement& requirement : backend.ops->requirements) {
      if (is_given(requirement, lookup) != given || !is_asked(requirement, lookup)) continue;
      POSTERN_TRY(find_one(requirement, lookup));
    }
  }
  return std::move(lookup.probed);
}

Result<void> require_of_device(std::span<const Requirement> requirements, Kernel& kernel, const HostDevice& device) {
  Lookup lookup{.kernel = kernel, .backend = {}, .device = &device};
  for (const Requirement& requirement : requirements) {
    POSTERN_TRY(requirement.find(requirement, lookup));
  }
  return {};
}

Error with_processor(Kernel& kernel, std::string_view backend, const Error& error) {
  if (error.kind() != ErrorKind::unavailable) return error;
  Error::Details details = error.details();
  const auto known = backends_for_processor(kernel);
  if (!known) {
    // No advice is better than advice for another processor.
    details.remedy = {};
    details.causes.push_back(known.error());
    return Error(std::move(details));
  }
  const std::span<const std::string_view> suited = *known;
  if (std::find(suited.begin(), suited.end(), backend) != suited.end()) return error;
  details.kind = ErrorKind::unsupported;
  details.reason += fmt::format("; {} is not for this processor, which has {}", backend,
                                list_text(std::vector<std::string>(suited.begin(), suited.end())));
  details.remedy = RemedyCode::use_other_backend;
  return Error(std::move(details));
}

Result<void> look_up_node(const Node& node, const Lookup& lookup) {
  if (lookup.device->fd) return require_node(lookup.kernel, node, lookup.device->fd->fd(), lookup.object());
  if (!lookup.opens_device_nodes) return probe_node(lookup.kernel, node, lookup.object());
  auto opened = open_node(lookup.kernel, node, lookup.object());
  return opened || opened.error().code() == EBUSY ? Result<void>() : failure_of(opened);
}

Result<std::string> find_iommu(const Requirement& /*requirement*/, Lookup& lookup) {
  POSTERN_TRY(require_iommu(lookup.kernel));
  return std::string();
}

Result<std::string> find_group(const Requirement& /*requirement*/, Lookup& lookup) {
  auto group = POSTERN_TRY(require_group(lookup.kernel, *lookup.device));
  return to_string(group);
}

Result<std::string> find_driver(const Requirement& /*requirement*/, Lookup& lookup) {
  POSTERN_TRY(require_vfio_driver(*lookup.device));
  return lookup.device->driver.value_or("");
}

Result<std::string> find_isolation(const Requirement& requirement, Lookup& lookup) {
  POSTERN_TRY(require_interrupt_isolation(lookup.kernel, lookup.device, requirement.module, lookup.object()));
  return std::string();
}

Result<void> Backend::probe(Kernel& kernel, const HostDevice* device) const {
  POSTERN_TRY(look_up(kernel, *this, device));
  return {};
}

std::vector<RequirementState> Backend::requirements(Kernel& kernel, const HostDevice* device) const {
  Lookup lookup{.kernel = kernel, .backend = name, .device = device, .opens_device_nodes = true};
  std::vector<RequirementState> states;
  for (const Requirement& requirement : ops->requirements) {
    if (!is_asked(requirement, lookup)) continue;
    std::string node = requirement.node != nullptr ? requirement.node(lookup).path : "";
    states.push_back({.key = requirement.key,
                      .title = requirement.title.empty() ? node : std::string(requirement.title),
                      .node = node,
                      .is_of_device = requirement.of == Requirement::Of::device,
                      .found = find_one(requirement, lookup)});
  }
  return states;
}

}  // namespace postern
