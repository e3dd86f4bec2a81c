// SPDX-License-Identifier: Apache-2.0
// Worker: what one thread of the stress program does, step by step.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>

namespace postern::stress {

// The same numbers for the same seed.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return engine_() % end; }
  [[nodiscard]] bool one_in(std::uint64_t times) { return below(times) == 0; }

 private:
  std::mt19937_64 engine_;
};

// What the library did is not what it promises.
inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}
inline void must(const Result<void>& done) {
  if (!done) throw std::runtime_error(done.error().message());
}
template <typename T>
T must(Result<T> done) {
  if (!done) throw std::runtime_error(done.error().message());
  return std::move(*done);
}
template <typename T>
void must_fail(const Result<T>& done, int code, const std::string& what) {
  check(!done, what + ": it was not refused");
  check(done.error().code() == code, what + ": refused by " + done.error().message());
}

// Nobody else uses its devices and containers; the kernel is everybody's.
class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  virtual ~Worker() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  // Does one thing, and throws where it went otherwise than the model says.
  virtual void step() = 0;
  // Lets everything go.
  virtual void finish() = 0;
};

// Attaches an edu device, and maps, unmaps, copies by DMA, tracks what it writes, and takes interrupts. `second`, if it
// is another function, comes into the same container and leaves it.
[[nodiscard]] std::unique_ptr<Worker> make_mapping_worker(Kernel& kernel, PciAddress edu, PciAddress second,
                                                          std::uint64_t seed);
// Opens an NVMe disk, writes, reads back, resets it.
[[nodiscard]] std::unique_ptr<Worker> make_disk_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed);
// Moves a device between nvme and vfio-pci, and lists what there is.
[[nodiscard]] std::unique_ptr<Worker> make_binding_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed);

// "type1" or "iommufd", as far as they are built.
[[nodiscard]] std::string_view any_backend(Random& random);

}  // namespace postern::stress
