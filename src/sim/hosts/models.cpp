// SPDX-License-Identifier: Apache-2.0
// The models of functions, by name.
#include <algorithm>
#include <array>

#include "sim/hosts/hosts.hpp"

namespace postern::sim {
namespace {

using Model = HostFunction::Model;

constexpr std::array<ModelName, 6> all_models{{
    {Model::nvme, "nvme", "nvme", true},
    {Model::bridge, "bridge", "pcieport", false},
    {Model::edu, "edu", "", false},
    {Model::small_bars, "small_bars", "", false},
    {Model::ivshmem, "ivshmem", "", false},
    {Model::migratable_edu, "migratable_edu", "", false, "edu-vfio-pci"},
}};

}  // namespace

std::span<const ModelName> models() noexcept { return all_models; }

const ModelName& name_of(Model model) {
  return *std::find_if(all_models.begin(), all_models.end(),
                       [&](const ModelName& each) { return each.model == model; });
}

}  // namespace postern::sim
