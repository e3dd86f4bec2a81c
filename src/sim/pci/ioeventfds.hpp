// SPDX-License-Identifier: Apache-2.0
// Ioeventfds: registers that are written when an eventfd is signalled, by the rules of vfio_pci_rdwr.c (Linux 7.3).
#pragma once

#include <cstdint>
#include <vector>

namespace postern::sim {

// A write of a function's register.
struct IoeventfdWrite {
  std::uint64_t bar = 0;
  std::uint64_t at = 0;
  std::uint64_t value = 0;
  unsigned width = 0;  // bytes
  friend bool operator==(const IoeventfdWrite&, const IoeventfdWrite&) = default;
};

class Ioeventfds {
 public:
  Ioeventfds() = default;
  Ioeventfds(const Ioeventfds&) = delete;
  Ioeventfds& operator=(const Ioeventfds&) = delete;
  ~Ioeventfds() { disable(); }

  // Adds one, or with -1 removes it: 0 or a negated errno.
  [[nodiscard]] int set(const IoeventfdWrite& write, int fd);
  // All of them off.
  void disable();
  // What is to be written now.
  [[nodiscard]] std::vector<IoeventfdWrite> take();

 private:
  struct Entry {
    IoeventfdWrite write;
    int eventfd;
  };
  std::vector<Entry> entries_;
};

}  // namespace postern::sim
