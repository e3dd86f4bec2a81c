// SPDX-License-Identifier: Apache-2.0
// PciNames: names of PCI vendors, devices and classes, from the host's pci.ids, by libpci.
#include <postern/pci_function.hpp>

extern "C" {
#include <pci/pci.h>
}

#include <array>
#include <csetjmp>
#include <mutex>

namespace postern {
namespace {

// libpci's own handlers print and end the process, but a broken id file must only cost the names. The error handler
// must not return to libpci, so it jumps out of the look-up.
thread_local std::jmp_buf look_up_failed;
__attribute__((noreturn)) void leave_look_up(char* /*format*/, ...) {  // NOLINT(cert-dcl50-cpp): libpci's prototype
  std::longjmp(look_up_failed, 1);                                     // NOLINT(cert-err52-cpp): through C frames only
}
void ignore_message(char* /*format*/, ...) {}  // NOLINT(cert-dcl50-cpp): libpci's prototype

// The list, read at the first look-up and kept. One thread at a time, since neither libpci nor the getpwuid(3) that it
// calls has locks.
class NameList {
 public:
  NameList() {
    pci_->error = leave_look_up;
    pci_->warning = ignore_message;
    pci_->debug = ignore_message;
  }

  // Without pci_init(), which looks for devices that names do not need. Without udev's hwdb, since libpci 3.9 leaks
  // what it opens for it. Never uses the network.
  [[nodiscard]] std::string look_up(int what, int first, int second = 0) {
    std::array<char, 256> text{};
    if (is_broken_) return "";
    is_broken_ = true;
    if (setjmp(look_up_failed) != 0) return "";  // NOLINT(cert-err52-cpp): nothing with a destructor is skipped
    const char* name = pci_lookup_name(pci_, text.data(), text.size(),
                                       what | PCI_LOOKUP_NO_NUMBERS | PCI_LOOKUP_NO_HWDB, first, second);
    is_broken_ = false;
    return name != nullptr ? name : "";
  }

 private:
  pci_access* pci_ = pci_alloc();
  bool is_broken_ = false;  // a look-up failed, so the list may be inconsistent
};

}  // namespace

PciNames find_pci_names(const PciFunction& function) {
  static std::mutex mutex;
  static auto& list = *new NameList;  // never destroyed: destructors of globals may use it
  const std::lock_guard lock(mutex);
  return {.vendor = list.look_up(PCI_LOOKUP_VENDOR, function.vendor_id),
          .device = list.look_up(PCI_LOOKUP_DEVICE, function.vendor_id, function.device_id),
          .device_class = list.look_up(PCI_LOOKUP_CLASS, static_cast<int>(function.class_code >> 8))};
}

}  // namespace postern
