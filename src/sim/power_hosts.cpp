// SPDX-License-Identifier: Apache-2.0
// The simulated POWER hosts, with the addresses of the guests ppc64le-pseries and ppc64le-powernv9.
#include <postern/sim.hpp>

namespace postern {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

SimulatedFunction disk(std::uint16_t domain, std::uint8_t bus) {
  return {.address = {.domain = domain, .bus = bus},
          .model = SimulatedFunction::Model::nvme,
          .iommu_group = domain,
          .driver = {},
          .serial = domain == 0 ? "first" : "second",
          .bytes = domain == 0 ? 64 * mib : 4 * mib};
}

SimulatedFunction port(std::uint16_t domain) {
  return {.address = {.domain = domain}, .model = SimulatedFunction::Model::bridge, .iommu_group = -1, .driver = {}};
}

}  // namespace

SimulatedHost simulated_pseries() {
  return {.functions = {disk(0, 0), disk(1, 0)}, .locked_memory = {}, .platform = SimulatedPlatform::pseries};
}

SimulatedHost simulated_powernv() {
  return {.functions = {port(0), disk(0, 1), port(1), disk(1, 1)},
          .locked_memory = {},
          .platform = SimulatedPlatform::powernv};
}

std::optional<SimulatedHost> simulated_host(std::string_view name) {
  if (name == "pc") return simulated_pc();
  if (name == "pseries") return simulated_pseries();
  if (name == "powernv") return simulated_powernv();
  return std::nullopt;
}

}  // namespace postern
