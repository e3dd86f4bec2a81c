// SPDX-License-Identifier: Apache-2.0
// nvme::Controller: a small user-space NVMe driver, per the NVM Express base specification 1.4.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern/dma_buffer.hpp>
#include <postern/export.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/pci_device.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern::nvme {

/// How the driver detects that a command has completed.
enum class Completion { polling, msix };

/// Options of Controller::open().
struct Options {
  std::uint16_t queue_depth = 64;  ///< entries of the I/O queue, at least 2; clamped to what the controller supports
  Completion completion = Completion::polling;  ///< how completions are detected
  /// Time limit of a command; milliseconds::max(): none. Reset, start and stop use CAP.TO instead.
  std::chrono::milliseconds timeout{10000};
  /// Where the queues get their iovas; null: the container chooses. A program with an IovaAllocator for the container
  /// must pass it: it does not know of iovas that the container chose, and mapping them again fails with EEXIST.
  IovaAllocator* allocator = nullptr;
};

/// Properties of a controller.
struct ControllerInfo {
  std::string model;               ///< from Identify Controller, trimmed, as the next two
  std::string serial;              ///< serial number
  std::string firmware;            ///< firmware revision
  std::uint32_t version = 0;       ///< VS register: 0x00010400 is 1.4
  std::uint64_t max_transfer = 0;  ///< bytes per command, limited by MDTS and by one page of PRP list
  std::uint16_t queue_depth = 0;   ///< entries of the I/O queue
};

/// A namespace of the controller.
struct Namespace {
  std::uint32_t id = 0;          ///< namespace id
  std::uint64_t blocks = 0;      ///< size in blocks
  std::uint32_t block_size = 0;  ///< bytes
};

/// I/O commands, with their opcodes.
enum class Opcode : std::uint8_t { flush = 0x00, write = 0x01, read = 0x02 };

/// A command of a batch; see Controller::submit().
struct Command {
  Opcode opcode = Opcode::read;  ///< what to do
  std::uint32_t count = 0;       ///< blocks; like the next two, not used by a flush
  std::uint64_t block = 0;       ///< the first block in the namespace
  Iova data{};                   ///< memory that is mapped for the device; a multiple of 4
  std::uint16_t id = 0;          ///< set by submit(): Completed::command of this command
};

/// A completed command. Aligned so that an optional of it fits in one register.
struct alignas(4) Completed {
  std::uint16_t command = 0;  ///< command id, as submit(), submit_read() or submit_write() returned it
  /// Status field of the completion entry, without the phase bit: 0 is success; otherwise bits 0..7 are the status
  /// code, and bits 8..10 the status code type.
  std::uint16_t status = 0;
};

/// A controller with its admin queue and one pair of I/O queues. Data is transferred to and from memory mapped for the
/// device, such as a DmaBuffer, given by its iova (a multiple of 4). A device cannot detect whether its writes arrived:
/// many report success for a read into an unmapped iova, whose data the IOMMU drops.
///
/// After ETIMEDOUT, or an ENODEV or EIO whose reason says that the controller was stopped, the controller is disabled
/// and has lost its access to memory before the error is returned; the data of pending commands may then be freed. All
/// functions then fail with ESHUTDOWN and none accesses the device. Open a new Controller, and destroy this one before
/// or after. A moved-from Controller may only be destroyed or assigned to. Thread safety: one thread at a time. A child
/// of fork(2) may destroy its copy, which does not affect the controller.
class POSTERN_API Controller {
 public:
  /// Resets and starts the controller, identifies it and creates the I/O queues. The device and the allocator must
  /// outlive the Controller and must not be moved. Bus mastering is enabled only after the controller has become
  /// disabled; a controller that cannot be disabled, or keeps reporting a fatal status, is reset. Destroying the
  /// Controller shuts the controller down and disables bus mastering. Errors: EBUSY (another Controller uses the device
  /// and was not stopped), ENODEV (not an NVMe controller, needs pages larger than 4 KiB, lacks the NVM command set or
  /// doorbells in BAR 0, or does not respond), ETIMEDOUT (does not become ready, or cannot be disabled), EIO (fatal
  /// status, registers read as zero, or a command failed: the error gives its status), EOPNOTSUPP (has no MSI-X, but
  /// Completion::msix was requested), those of DmaBuffer::allocate(), PciDevice::map_bar() and PciDevice::enable().
  [[nodiscard]] static Result<Controller> open(PciDevice& device, Options options = {});
  /// As above, with this allocator.
  [[nodiscard]] static Result<Controller> open(PciDevice& device, IovaAllocator& allocator, Options options = {});
  Controller(Controller&&) noexcept;             ///< moves
  Controller& operator=(Controller&&) noexcept;  ///< stops its controller, and moves
  ~Controller();

  [[nodiscard]] const ControllerInfo& info() const noexcept;  ///< properties of the controller
  /// The first 1024 active namespaces, without those that have metadata or invalid Identify data, which are logged.
  [[nodiscard]] const std::vector<Namespace>& namespaces() const noexcept;

  /// Reads `count` blocks from `block` on with one command and waits for it. The namespace is one of namespaces();
  /// count times the block size is at most max_transfer. Errors: EINVAL (too long, empty, iova unaligned), EFAULT (the
  /// data is not mapped for this direction, in any mapping of the container), EBUSY (submitted commands are pending),
  /// EIO (the controller's status as text, also for blocks past the end of the namespace), EROFS (write-protected),
  /// ETIMEDOUT, ENODEV (the device is gone), ENOMSG (with Completion::msix: the command succeeded, but no interrupt
  /// arrived; the controller keeps running).
  [[nodiscard]] Result<void> read(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data);
  /// Writes blocks; as read().
  [[nodiscard]] Result<void> write(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data);
  /// Commits written blocks to non-volatile media. Errors: as read(), except those about data.
  [[nodiscard]] Result<void> flush(const Namespace& ns);

  /// Submits commands without waiting, with one write to the controller's doorbell, and sets the id of each: below
  /// queue_depth - 1, which is also the maximum number of pending commands. The controller runs them in any order. On
  /// an error none is submitted, and nothing is changed. Does not check whether the data is mapped. Errors: EAGAIN (too
  /// few commands can be added to those pending: reap first), EINVAL as for read(), for the first command it applies
  /// to, and also if there are more commands than the queue takes, or one has another opcode.
  [[nodiscard]] Result<void> submit(const Namespace& ns, std::span<Command> commands);
  /// Reaps completed commands without waiting, in the order of their completion, as many as there are and fit into
  /// `space`. Returns those reaped, the first part of `space`. Their status is for the caller to check. The controller
  /// is told of them with the next submission, or when nothing is left: there is no need to reap until nothing is
  /// found.
  [[nodiscard]] std::span<const Completed> reap(std::span<Completed> space);

  /// Submits a single read, as submit(). Returns its command id.
  [[nodiscard]] Result<std::uint16_t> submit_read(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                                  Iova data);
  /// Submits a write; as submit_read().
  [[nodiscard]] Result<std::uint16_t> submit_write(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                                   Iova data);
  /// Reaps one completed command, if any, without waiting; as reap().
  [[nodiscard]] std::optional<Completed> poll();
  /// Waits for a completed command and reaps it, by polling or interrupt as in Options. Errors: ETIMEDOUT, ENODEV and
  /// EIO (the controller was stopped), EINVAL (no command is pending), ENOMSG (a command has completed, and poll()
  /// returns it, but no interrupt arrived).
  [[nodiscard]] Result<Completed> wait();

  /// Returns the number of interrupts received while waiting, which shows that interrupts work.
  [[nodiscard]] std::uint64_t interrupts() const noexcept;

 private:
  class POSTERN_LOCAL State;
  explicit Controller(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

/// Returns a status field as text: "LBA out of range (0x080)". Thread-safe.
[[nodiscard]] POSTERN_API std::string status_text(std::uint16_t status);

}  // namespace postern::nvme
