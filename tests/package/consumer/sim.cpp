// SPDX-License-Identifier: Apache-2.0
// Uses an installed libpostern-sim: attaches a simulated disk, and sees a call fail that is made to.
#include <cerrno>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

int main() {
  postern::sim::Kernel simulated;
  postern::sim::FailingKernel kernel(simulated);
  const auto disk = postern::find_pci_function(kernel, {.device = 1});
  if (!disk || !postern::attach(kernel, disk->host)) return 1;
  kernel.fail_call(0, EMFILE);
  const auto refused = postern::attach(kernel, disk->host, {.backend = "iommufd"});
  return !refused && kernel.failed() && kernel.open_files() == 0 ? 0 : 1;
}
