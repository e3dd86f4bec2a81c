// SPDX-License-Identifier: Apache-2.0
// confine(): gives up the rights that a command no longer needs, before it serves others.
#pragma once

#include <string>
#include <vector>

namespace postern::tool {

// What a process may still do.
struct Rights {
  std::vector<std::string> read;    // below these folders
  std::vector<std::string> write;   // these files, and those below these folders, which may also be read
  std::vector<std::string> remove;  // files in these folders
};

// For the rest of the process, which is assumed to have one thread that matters: it opens only what `rights` names
// (Landlock, where the kernel has it), has no capability but CAP_IPC_LOCK, and cannot gain any (PR_SET_NO_NEW_PRIVS).
// Open descriptors stay usable. What is missing on this machine is left out.
void confine(const Rights& rights);

}  // namespace postern::tool
