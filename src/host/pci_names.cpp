// SPDX-License-Identifier: Apache-2.0
// Names of PCI vendors, devices and classes, from the machine's pci.ids by libpci.
#include "host/pci_names.hpp"

extern "C" {
#include <pci/pci.h>
}

#include <array>
#include <csetjmp>

namespace postern {

namespace {

// libpci's own handlers print, and end the process. A broken id file shall cost the names, no more. The one for errors
// may not return to libpci, which is compiled to that; so it leaves the look-up that called it.
thread_local std::jmp_buf look_up_failed;
__attribute__((noreturn)) void leave_look_up(char* /*format*/, ...) {  // NOLINT(cert-dcl50-cpp): libpci's prototype
  std::longjmp(look_up_failed, 1);                                     // NOLINT(cert-err52-cpp): through C frames alone
}
void ignore_message(char* /*format*/, ...) {}  // NOLINT(cert-dcl50-cpp): libpci's prototype

}  // namespace

struct PciNames::Access {
  pci_access* pci = pci_alloc();

  Access() {
    pci->error = leave_look_up;
    pci->warning = ignore_message;
    pci->debug = ignore_message;
  }
  ~Access() { pci_cleanup(pci); }

  [[nodiscard]] std::string look_up(int what, int first, int second = 0) const {
    std::array<char, 256> text{};
    if (setjmp(look_up_failed) != 0) return "";  // NOLINT(cert-err52-cpp): nothing with a destructor is skipped
    const char* name = pci_lookup_name(pci, text.data(), text.size(), what | PCI_LOOKUP_NO_NUMBERS | PCI_LOOKUP_NO_HWDB,
                                       first, second);
    return name != nullptr ? name : "";
  }
};

// Not pci_init(): that looks for devices, and names need none. Not udev's hwdb either: libpci 3.9 leaks what it opens
// for it.
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
