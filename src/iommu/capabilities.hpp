// SPDX-License-Identifier: Apache-2.0
// DmaWindows::Impl and Preregistration::Impl: the interfaces that a backend implements. The public classes forward to
// them.
#pragma once

#include <postern/dma_windows.hpp>
#include <postern/preregistration.hpp>
#include <vector>

namespace postern {

class AddressSpace;

class DmaWindows::Impl {
 public:
  [[nodiscard]] virtual AddressSpace& address_space() const noexcept = 0;
  [[nodiscard]] virtual DmaWindowLimits limits() const = 0;
  [[nodiscard]] virtual std::vector<DmaWindow> list() const = 0;
  [[nodiscard]] virtual Result<DmaWindow> create(const DmaWindowRequest& request) = 0;
  [[nodiscard]] virtual Result<void> remove(Iova start) = 0;
  [[nodiscard]] virtual Result<DmaWindow> make_room(std::uint64_t bytes, std::uint64_t page_of_memory) = 0;

 protected:
  ~Impl() = default;
};

class Preregistration::Impl {
 public:
  [[nodiscard]] virtual AddressSpace& address_space() const noexcept = 0;
  [[nodiscard]] virtual Result<void> add(std::span<std::byte> memory) = 0;
  [[nodiscard]] virtual Result<void> remove(std::span<std::byte> memory) = 0;

 protected:
  ~Impl() = default;
};

}  // namespace postern
