// SPDX-License-Identifier: Apache-2.0
// read_namespace(): reads an NVMe namespace from its start with many commands in flight, and checks that all data
// arrived.
#pragma once

#include <cstdint>
#include <postern-nvme/controller.hpp>
#include <string>

#include "proofs/proof.hpp"

namespace postern::tool {

struct ReadReport {
  std::uint64_t bytes = 0;
  std::uint64_t commands = 0;
  unsigned depth = 0;
  double seconds = 0;
  IovaRange buffers;  // where the device wrote to
  std::string sha256;
};

// Reads the first `bytes` of the namespace, `depth` commands at a time. Every buffer is poisoned before a read. Errors:
// EIO (a command failed, or its data did not arrive), those of the driver.
[[nodiscard]] Result<ReadReport> read_namespace(ProofContext& context, nvme::Controller& controller,
                                                const nvme::Namespace& ns, std::uint64_t bytes, unsigned depth);

}  // namespace postern::tool
