// SPDX-License-Identifier: Apache-2.0
// Names of PCI vendors, devices and classes, from the machine's pci.ids by libpci.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace postern {

// Opens the id file at the first look-up. Never asks the network. One thread at a time.
class PciNames {
 public:
  PciNames();
  ~PciNames();
  PciNames(const PciNames&) = delete;
  PciNames& operator=(const PciNames&) = delete;

  // Empty where the id is not known.
  [[nodiscard]] std::string vendor(std::uint16_t vendor) const;
  [[nodiscard]] std::string device(std::uint16_t vendor, std::uint16_t device) const;
  [[nodiscard]] std::string device_class(std::uint32_t class_code) const;

 private:
  struct Access;
  std::unique_ptr<Access> access_;
};

}  // namespace postern
