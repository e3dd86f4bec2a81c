// SPDX-License-Identifier: Apache-2.0
// Writing to the last blocks of an NVMe namespace, and putting back what was there.
#pragma once

#include <postern/nvme.hpp>
#include <string>

#include "proofs/proof.hpp"

namespace postern::tool {

// Reads the last blocks, writes a pattern there, reads it back, and restores what was there, also when the middle
// failed. SIGINT, SIGTERM and SIGHUP wait until that is done. The old content is in memory alone meanwhile. Gives what
// it did, in words. Errors: EIO (other bytes came back than were written; or, worst, the old content could not be
// restored: which blocks is said), those of the driver.
[[nodiscard]] Result<std::string> write_and_restore(Bench& bench, nvme::Controller& controller,
                                                    const nvme::Namespace& ns);

}  // namespace postern::tool
