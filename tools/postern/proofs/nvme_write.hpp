// SPDX-License-Identifier: Apache-2.0
// write_and_restore(): writes to the last blocks of an NVMe namespace, and restores their content.
#pragma once

#include <optional>
#include <postern-nvme/controller.hpp>
#include <string>

#include "proofs/proof.hpp"

namespace postern::tool {

// Reads the last blocks, writes a pattern, reads it back, and restores the old content even if one of these steps
// failed. If the controller fails, it is restarted: `controller` may be another one then, or none. Meanwhile a file on
// stable storage (context.options.keep_in) holds the old content, and signals wait. The path of the file is printed
// before; it is removed once the old content was read back from the disk. Returns a description of what was done.
// Errors: EROFS (the namespace is write-protected; its content is unchanged), EIO (the bytes read back differ from
// those written; or, worst, the old content could not be restored: the error names the blocks and the file), those of
// KeptBlocks and of the driver.
[[nodiscard]] Result<std::string> write_and_restore(ProofContext& context, std::optional<nvme::Controller>& controller,
                                                    const nvme::Namespace& ns);

}  // namespace postern::tool
