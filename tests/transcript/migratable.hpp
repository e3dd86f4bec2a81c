// SPDX-License-Identifier: Apache-2.0
// Migratable: the device of migration transcripts, separate from those with letters: mtty's card on a real kernel, the
// migratable edu on a simulated one. It is opened with its own IOAS or container.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <postern/pci_function.hpp>
#include <vector>

#include "support/mtty_card.hpp"
#include "support/raw_device.hpp"

namespace postern::transcript {

class Migratable {
 public:
  // A stream, and the number of bytes written to it.
  struct Stream {
    Fd fd;
    std::size_t written = 0;
  };

  explicit Migratable(Kernel& kernel) : kernel_(kernel) {
    if (test::MttyCard::is_possible(kernel)) {
      card_.emplace(kernel);
      host_ = card_->host();
      return;
    }
    const auto functions = list_pci_functions(kernel).value();
    for (const PciFunction& function : functions) {
      if (function.vendor_id == 0x1234 && function.device_id == 0x11e9) host_ = function.host;
    }
  }

  ~Migratable() {
    if (device) close();
  }
  Migratable(const Migratable&) = delete;
  Migratable& operator=(const Migratable&) = delete;

  std::optional<test::RawDevice> device;  // null if not open
  std::array<Stream, 3> streams;
  std::vector<std::byte> saved;  // the whole state when it was opened

  void open(bool by_cdev) {
    if (by_cdev) {
      device.emplace(kernel_, host_.cdev->path);
    } else {
      device.emplace(kernel_, find_iommu_group(kernel_, *host_.iommu_group).value().path, host_.name);
    }
  }
  // Resets the device first, since mtty's driver keeps the state of a closed device. Closes the streams, too.
  void close() {
    (void)device->ioctl(VFIO_DEVICE_RESET, nullptr);
    for (Stream& stream : streams) stream = {};
    device.reset();
  }

 private:
  Kernel& kernel_;
  std::optional<test::MttyCard> card_;
  HostDevice host_;
};

}  // namespace postern::transcript
