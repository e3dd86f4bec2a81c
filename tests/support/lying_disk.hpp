// SPDX-License-Identifier: Apache-2.0
// LyingDisk: a LyingNvme at 0000:00:01.0 of the simulated PC, attached.
#pragma once

#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <stdexcept>

#include "sim/laboratory.hpp"
#include "support/lying_nvme.hpp"

namespace postern::test {

class LyingDisk {
 public:
  static constexpr PciAddress address{.bus = 0, .device = 1};

  explicit LyingDisk(const sim::Host& host = sim::pc()) : simulated_(host), kernel(simulated_) {
    const auto wrap = [this](std::unique_ptr<sim::Hardware> honest) {
      return std::make_unique<LyingNvme>(std::move(honest), lies);
    };
    if (!sim::Laboratory::wrap(simulated_, address, wrap))
      throw std::runtime_error("the simulated PC has no such disk");
  }

  // Call after choosing the lies.
  void attach() {
    auto attached = postern::attach(kernel, must(find_pci_function(kernel, address)).host);
    pci.emplace(must(PciDevice::open(must(std::move(attached)))));
    container = pci->device().container();
    iovas.emplace(container->usable_ranges(), container->page_sizes());
  }
  [[nodiscard]] Result<nvme::Controller> open(nvme::Options options = {}) {
    return nvme::Controller::open(*pci, *iovas, options);
  }
  [[nodiscard]] DmaBuffer buffer(std::uint64_t length = 4096) {
    return must(DmaBuffer::allocate(container, *iovas, length));
  }
  [[nodiscard]] bool is_bus_master() const { return (must(pci->read_config<std::uint16_t>(4)) & 4) != 0; }

  template <typename T>
  static T must(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message());
    return std::move(*result);
  }

  NvmeLies lies;

 private:
  sim::Kernel simulated_;

 public:
  sim::FailingKernel kernel;
  std::optional<PciDevice> pci;
  std::shared_ptr<Container> container;
  std::optional<IovaAllocator> iovas;
};

}  // namespace postern::test
