// SPDX-License-Identifier: Apache-2.0
// Error: what failed, on what, with which errno, and what to do about it.
#pragma once

#include <memory>
#include <postern/export.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

// An Error is one failed operation in words that a person can act on. It is a single pointer, so that a Result<void>
// costs nothing to return when all is well. Copying copies the words; a moved-from Error may only be destroyed or
// assigned to. Thread rules: as for std::string.
class POSTERN_API Error {
 public:
  struct Details {
    int code = 0;               // errno, positive: what the call gave; of a refusal, the one that fits it
    std::string operation;      // the call that failed, as the kernel spells it: "VFIO_IOMMU_MAP_DMA"; or see refused()
    std::string object;         // what it was done to: "map 0x1000+4 KiB into container type1"
    std::string reason;         // why, where more is known than the errno says; may be empty
    std::string remedy;         // what to do about it; may be empty
    std::vector<Error> causes;  // the refusals behind this one, when several things were tried
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

  // Whether no call failed, and operation() is empty: the library refused, before it asked the kernel or because of
  // what a call that succeeded answered. Otherwise code() is what operation() gave, and what that means is in reason().
  [[nodiscard]] bool refused() const noexcept { return operation().empty(); }

  // "OBJECT: OPERATION: ERRNO: reason; remedy", or "OBJECT: refused: ERRNO: ...", and behind it each cause in brackets.
  [[nodiscard]] std::string message() const;

 private:
  std::unique_ptr<Details> details_;
};

// The macro name of an errno ("ENOMEM"), or its number in digits where it has no name.
[[nodiscard]] POSTERN_API std::string errno_name(int code);

}  // namespace postern
