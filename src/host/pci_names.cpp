// SPDX-License-Identifier: Apache-2.0
// Names of PCI vendors, devices and classes, from the machine's pci.ids by libpci.
#include "host/pci_names.hpp"

extern "C" {
#include <pci/pci.h>
}

#include <array>

namespace postern {

namespace {

// libpci's own handlers print, and end the process. A broken id file costs the names, no more.
void ignore_message(char* /*format*/, ...) {}  // NOLINT(cert-dcl50-cpp): libpci's prototype

}  // namespace

struct PciNames::Access {
  pci_access* pci = pci_alloc();

  Access() {
    pci->error = ignore_message;
    pci->warning = ignore_message;
    pci->debug = ignore_message;
  }
  ~Access() { pci_cleanup(pci); }

  std::string look_up(int what, int first, int second = 0) const {
    std::array<char, 256> text{};
    const char* name = pci_lookup_name(pci, text.data(), text.size(), what | PCI_LOOKUP_NO_NUMBERS, first, second);
    return name != nullptr ? name : "";
  }
};

// Not pci_init(): that looks for devices, and names need none.
PciNames::PciNames() : access_(std::make_unique<Access>()) {}
PciNames::~PciNames() = default;

std::string PciNames::vendor(std::uint16_t vendor) const { return access_->look_up(PCI_LOOKUP_VENDOR, vendor); }

std::string PciNames::device(std::uint16_t vendor, std::uint16_t device) const {
  return access_->look_up(PCI_LOOKUP_DEVICE, vendor, device);
}

std::string PciNames::device_class(std::uint32_t class_code) const {
  return access_->look_up(PCI_LOOKUP_CLASS, static_cast<int>(class_code >> 8));
}

}  // namespace postern
