// SPDX-License-Identifier: Apache-2.0
// MttyCard: a mediated serial card emulated by the kernel's sample driver mtty (samples/vfio-mdev/mtty.c, Linux 7.3).
#pragma once

#include <cerrno>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <stdexcept>
#include <string>

namespace postern::test {

// Creates the card, or takes over one left by a killed process, and removes it at the end of its lifetime.
class MttyCard {
 public:
  static bool is_possible(Kernel& kernel) {
    FileStatus status;
    return kernel.status(type, status) == 0;
  }
  explicit MttyCard(Kernel& kernel) : kernel_(kernel) {
    const int result = kernel.write_file(std::string(type) + "/create", uuid);
    if (result < 0 && result != -EEXIST) throw std::runtime_error("mtty makes no card");
  }
  ~MttyCard() { (void)kernel_.write_file("/sys/bus/mdev/devices/" + std::string(uuid) + "/remove", "1"); }
  MttyCard(const MttyCard&) = delete;
  MttyCard& operator=(const MttyCard&) = delete;

  [[nodiscard]] HostDevice host() const { return find_host_device(kernel_, "mdev", uuid).value(); }

 private:
  static constexpr const char* type = "/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1";
  static constexpr const char* uuid = "6d747479-0000-4000-8000-000000000001";

  Kernel& kernel_;
};

}  // namespace postern::test
