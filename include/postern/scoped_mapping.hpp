// SPDX-License-Identifier: Apache-2.0
// ScopedMapping: a mapping that is removed when it goes out of scope.
#pragma once

#include <memory>
#include <postern/container.hpp>
#include <postern/export.hpp>
#include <postern/memory.hpp>
#include <postern/result.hpp>
#include <utility>

namespace postern {

/// Owns one mapping of a container, and holds the container. The memory stays its owner's and must outlive the mapping.
/// Destroying it unmaps; if the kernel refuses, that is logged, and the mapping stays in the container: use unmap()
/// where the memory is freed afterwards. In a child of fork(2), destroying the copy does nothing. Thread safety: uses
/// the container, which is for one thread at a time.
class POSTERN_API ScopedMapping {
 public:
  /// Maps memory, as Container::map(). Errors: EINVAL (the container is null), those of Container::map().
  [[nodiscard]] static Result<ScopedMapping> map(std::shared_ptr<Container> container, Iova iova, const Memory& memory,
                                                 Access access = Access::read_write);
  /// Moves.
  ScopedMapping(ScopedMapping&& other) noexcept : container_(std::move(other.container_)), range_(other.range_) {}
  ScopedMapping& operator=(ScopedMapping&& other) noexcept;  ///< unmaps its memory, and moves
  ~ScopedMapping();

  [[nodiscard]] IovaRange range() const noexcept { return range_; }  ///< where the devices see the memory

  /// Unmaps the memory and reports errors; does nothing the second time. After an error it is still mapped, and may be
  /// unmapped again. Errors: those of Container::unmap().
  [[nodiscard]] Result<void> unmap();

 private:
  ScopedMapping(std::shared_ptr<Container> container, IovaRange range) noexcept
      : container_(std::move(container)), range_(range) {}

  std::shared_ptr<Container> container_;  // null: nothing is mapped
  IovaRange range_;
};

}  // namespace postern
