// SPDX-License-Identifier: Apache-2.0
// Worker: the steps of one thread of the stress program.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace postern::stress {

// Returns the same numbers for the same seed.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return engine_() % end; }
  [[nodiscard]] bool one_in(std::uint64_t times) { return below(times) == 0; }

 private:
  std::mt19937_64 engine_;
};

// Throws if the library did not do what it documents.
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

// A worker has its own devices and containers unless it says otherwise. All workers use one kernel.
class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  virtual ~Worker() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  // Performs one operation, and throws if the result differs from the model.
  virtual void step() = 0;
  // Detaches and closes everything.
  virtual void finish() = 0;
};

// Attaches an edu device, and maps, unmaps, copies by DMA, tracks dirty pages, and takes interrupts. Attaches `second`,
// if it is another function, to the same container and detaches it.
[[nodiscard]] std::unique_ptr<Worker> make_mapping_worker(Kernel& kernel, PciAddress edu, PciAddress second,
                                                          std::uint64_t seed);
// Workers with a device each that share one container, in which they map under a mutex.
[[nodiscard]] std::vector<std::unique_ptr<Worker>> make_sharing_workers(Kernel& kernel,
                                                                        std::span<const PciAddress> edus,
                                                                        std::uint64_t seed);
// Opens an NVMe disk, writes, reads back, resets it.
[[nodiscard]] std::unique_ptr<Worker> make_disk_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed);
// Moves a device between nvme and vfio-pci, and lists all devices.
[[nodiscard]] std::unique_ptr<Worker> make_binding_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed);

// "type1" or "iommufd", if built.
[[nodiscard]] std::string_view any_backend(Random& random);

}  // namespace postern::stress
