// SPDX-License-Identifier: Apache-2.0
// Pass: a combination that check tests: a backend, a version of the kernel's interface, and a DMA window.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/backend.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <vector>

#include "command.hpp"
#include "proofs/proof.hpp"
#include "text/steps.hpp"

namespace postern::tool {

// Where memory is mapped: in a DMA window, or anywhere (`whole`) if the backend has none.
enum class Space : std::uint8_t { whole, default_window, created_window };

struct Pass {
  const Backend* backend = nullptr;
  std::uint32_t version = 0;  // 0: the backend has no versions
  Space space = Space::whole;
};

struct PassOptions {
  std::uint64_t memory = std::uint64_t{64} << 20;  // bytes, to be mapped and unmapped
  ProofOptions proof;
};

// A version that the kernel does not have, with the kernel's error.
struct MissingVersion {
  const Backend* backend;
  std::uint32_t version;
  Error error;
};

struct Passes {
  std::vector<Pass> passes;
  std::vector<MissingVersion> missing;
};

// "type1, version 1", "spapr, version 2, created window", "iommufd"
[[nodiscard]] std::string pass_text(const Pass& pass);

// {"backend", "version", "window"}: null where the backend has none.
[[nodiscard]] Json pass_json(const Pass& pass);

// Adds every pass of a backend, newest version first, or those of one version. Opens containers without devices.
void add_passes(Kernel& kernel, const Backend& backend, std::optional<std::uint32_t> version, Passes& passes);

// Attaches the device, runs all steps, detaches it, and compares what is left behind. False if there was nothing to
// test because the platform cannot create windows.
[[nodiscard]] bool run_pass(const Session& session, const PciFunction& function, const Pass& pass,
                            const PassOptions& options, Steps& steps);

}  // namespace postern::tool
