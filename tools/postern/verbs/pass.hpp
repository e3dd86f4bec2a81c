// SPDX-License-Identifier: Apache-2.0
// Pass: one way in which a check takes a device through: a backend, a version of the kernel's interface, a DMA window.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/backend.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <vector>

#include "proofs/proof.hpp"
#include "text/steps.hpp"
#include "verb.hpp"

namespace postern::tool {

// Where the device's memory is mapped. Backends without DMA windows have the one space.
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

// A version that the kernel does not have, and its words for it.
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

// Every pass of a backend, newest version first, or those of one version. Opens containers, with no device in them.
void add_passes(Kernel& kernel, const Backend& backend, std::optional<std::uint32_t> version, Passes& passes);

// Attaches, proves, lets go, and compares what is left behind. Whether there was anything to try: not where the
// platform makes no windows.
[[nodiscard]] bool run_pass(const Session& session, const PciFunction& function, const Pass& pass,
                            const PassOptions& options, Steps& steps);

}  // namespace postern::tool
