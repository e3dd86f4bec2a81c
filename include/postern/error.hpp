// SPDX-License-Identifier: Apache-2.0
// Error: what failed, why, and what to do about it, as data and in words.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/export.hpp>
#include <postern/remedy.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// The kind of an error, for programs to switch on. docs/errors.md says which calls give which. A later version may add
/// kinds: handle those that you do not know as `other`.
enum class ErrorKind : std::uint8_t {
  other,                    ///< none of the below; code() says more
  invalid_argument,         ///< the caller's arguments contradict the documentation
  out_of_range,             ///< an iova, offset, index or size beyond what the device, IOMMU or file has
  not_found,                ///< no such device, group, mapping, region or file
  already_exists,           ///< it overlaps or repeats what is there
  in_use,                   ///< a process, thread or device uses it; may succeed later
  no_permission,            ///< this process may not do that
  unavailable,              ///< the host lacks a driver, module, node or kernel option; can be added
  unsupported,              ///< the kernel, device, IOMMU or build cannot do that
  not_bound,                ///< the device is not bound to a VFIO driver
  no_iommu,                 ///< no IOMMU translates for the device
  group_not_viable,         ///< another member of the IOMMU group is bound to a driver that may do DMA
  interrupts_not_isolated,  ///< DMA could forge interrupts, and the kernel is not told to accept that
  cannot_share,             ///< the device cannot join this container; use a new one
  no_memory,                ///< the kernel has no memory, or too few huge pages
  locked_memory,            ///< RLIMIT_MEMLOCK, or the user's locked memory, is exhausted
  limit_reached,            ///< another limit: of mappings, windows, vectors, open files, iovas
  closed,                   ///< the container was closed, or the device detached
  stale,                    ///< the object has changed since it was read, or belongs to the parent of a fork
  no_answer,                ///< the device does not respond
  device_error,             ///< the device reports a failure
  invalid_answer,           ///< the kernel or device returned something impossible
};

/// Returns the kind's name: "not_bound".
[[nodiscard]] POSTERN_API std::string_view to_string(ErrorKind kind) noexcept;

/// One failed operation. Holds a single pointer, so that returning a successful Result<void> is free. Copies are deep;
/// a moved-from Error may only be destroyed or assigned to. Thread safety: as std::string.
class POSTERN_API Error {
 public:
  /// The parts of an error.
  struct Details {
    int code = 0;                       ///< errno, as the call returned it; see refused(). Error makes it positive
    ErrorKind kind = ErrorKind::other;  ///< `other`: derived from the code
    std::string operation = {};         ///< the failed call, spelled as in the kernel: "VFIO_IOMMU_MAP_DMA"
    std::string object = {};            ///< what it was applied to: "map 0x1000+4 KiB into container type1"
    std::string reason = {};            ///< why it failed, if more is known than the errno
    Remedies remedy = {};               ///< what to do about it
    std::vector<Error> causes = {};     ///< the error of each alternative, if several were tried
  };

  /// Derives the kind, if it is `other`. A negated errno, such as the functions of Kernel return, is made positive.
  explicit Error(Details details);
  ~Error();
  Error(const Error& other);             ///< copies
  Error& operator=(const Error& other);  ///< copies
  Error(Error&&) noexcept;               ///< moves
  Error& operator=(Error&&) noexcept;    ///< moves

  [[nodiscard]] int code() const noexcept { return details_->code; }        ///< positive errno
  [[nodiscard]] ErrorKind kind() const noexcept { return details_->kind; }  ///< to switch on
  /// The failed call; see refused().
  [[nodiscard]] const std::string& operation() const noexcept { return details_->operation; }
  [[nodiscard]] const std::string& object() const noexcept { return details_->object; }  ///< what it was applied to
  [[nodiscard]] const std::string& reason() const noexcept { return details_->reason; }  ///< may be empty
  [[nodiscard]] const Remedies& remedies() const noexcept { return details_->remedy; }   ///< may be empty
  [[nodiscard]] const std::vector<Error>& causes() const noexcept { return details_->causes; }  ///< of each alternative
  /// All parts: copy and change them for an error that says more. failure() takes them.
  [[nodiscard]] const Details& details() const noexcept { return *details_; }

  /// Whether the library refused, without a failed call: it rejected the arguments, or the result of a successful call.
  /// operation() is then empty, and code() is the errno that the library chose. Otherwise code() is the errno that
  /// operation() returned, unchanged; kind() and reason() say what it means.
  [[nodiscard]] bool refused() const noexcept { return operation().empty(); }

  /// Returns the reason, or the meaning of the errno if there is none.
  [[nodiscard]] std::string reason_text() const;
  /// Returns the remedies in words; empty if there is none.
  [[nodiscard]] std::string remedy() const { return remedies().text(); }
  /// Returns reason_text() with the call: "REASON (OPERATION: ERRNO)", or "REASON (ERRNO)" if refused().
  [[nodiscard]] std::string explanation() const;
  /// Returns "OBJECT: REASON (OPERATION: ERRNO)".
  [[nodiscard]] std::string summary() const;
  /// Returns all of the error on one line, for a log: "OBJECT: OPERATION: ERRNO: REASON; REMEDY" or "OBJECT: refused:
  /// ERRNO: ...", followed by each cause in brackets; equal causes appear once.
  [[nodiscard]] std::string message() const;

 private:
  std::unique_ptr<Details> details_;
};

/// Returns the macro name of an errno ("ENOMEM"), or its decimal number if it has no name.
[[nodiscard]] POSTERN_API std::string errno_name(int code);

}  // namespace postern
