// SPDX-License-Identifier: Apache-2.0
// Error: the operation that failed, its object, the errno, the reason and the remedy.
#pragma once

#include <memory>
#include <postern/export.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// One failed operation, described so that a person can act on it. Holds a single pointer, so that returning a
/// successful Result<void> is free. Copies are deep; a moved-from Error may only be destroyed or assigned to. Thread
/// safety: as std::string.
class POSTERN_API Error {
 public:
  /// The parts of an error.
  struct Details {
    int code = 0;               ///< positive errno: the call's, or, if the library refused, the closest one
    std::string operation;      ///< the failed call, spelled as in the kernel: "VFIO_IOMMU_MAP_DMA"; see refused()
    std::string object;         ///< what it was applied to: "map 0x1000+4 KiB into container type1"
    std::string reason;         ///< why it failed, if more is known than the errno; may be empty
    std::string remedy;         ///< what to do about it; may be empty
    std::vector<Error> causes;  ///< the error of each alternative, if several were tried
  };

  explicit Error(Details details);
  ~Error();
  Error(const Error& other);
  Error& operator=(const Error& other);
  Error(Error&&) noexcept;
  Error& operator=(Error&&) noexcept;

  [[nodiscard]] int code() const noexcept { return details_->code; }
  [[nodiscard]] const std::string& operation() const noexcept { return details_->operation; }
  [[nodiscard]] const std::string& object() const noexcept { return details_->object; }
  [[nodiscard]] const std::string& reason() const noexcept { return details_->reason; }
  [[nodiscard]] const std::string& remedy() const noexcept { return details_->remedy; }
  [[nodiscard]] const std::vector<Error>& causes() const noexcept { return details_->causes; }

  /// Whether the library refused, without a failed call: it rejected the arguments, or the result of a successful call.
  /// operation() is then empty. Otherwise code() is the errno of operation(), and reason() explains it.
  [[nodiscard]] bool refused() const noexcept { return operation().empty(); }

  /// Formats the error: "OBJECT: OPERATION: ERRNO: reason; remedy" or "OBJECT: refused: ERRNO: ...", followed by each
  /// cause in brackets.
  [[nodiscard]] std::string message() const;

 private:
  std::unique_ptr<Details> details_;
};

/// Returns the macro name of an errno ("ENOMEM"), or its decimal number if it has no name.
[[nodiscard]] POSTERN_API std::string errno_name(int code);

}  // namespace postern
