// SPDX-License-Identifier: Apache-2.0
// Writing to the last blocks of an NVMe namespace, and putting back what was there.
#pragma once

#include <optional>
#include <postern-nvme/controller.hpp>
#include <string>

#include "proofs/proof.hpp"

namespace postern::tool {

// Reads the last blocks, writes a pattern there, reads it back, and restores what was there, whatever happened to the
// middle: by controllers that are started anew where one fails, so that `controller` may be another then, or none.
// Meanwhile the old content is in a file on stable storage (bench.options.keep_in), whose path is told before, and
// which is removed once it was read back from the disk; and signals wait. Gives what it did, in words. Errors: EROFS
// (the namespace is write-protected, and holds what it held), EIO (other bytes came back than were written; or, worst,
// the old content could not be restored: which blocks and which file is said), those of KeptBlocks and of the driver.
[[nodiscard]] Result<std::string> write_and_restore(Bench& bench, std::optional<nvme::Controller>& controller,
                                                    const nvme::Namespace& ns);

}  // namespace postern::tool
