// SPDX-License-Identifier: Apache-2.0
// nvme::Controller: a small NVMe driver in user space, after the NVM Express base specification 1.4.
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
#include <string>
#include <vector>

namespace postern::nvme {

enum class Completion { polling, msix };  // how the driver learns that a command is done

struct Options {
  std::uint16_t queue_depth = 64;  // entries of the I/O queue; clipped to what the controller has
  Completion completion = Completion::polling;
  // For a command to be answered; milliseconds::max() is for ever. CAP.TO rules for reset, start and stop.
  std::chrono::milliseconds timeout{10000};
};

struct ControllerInfo {
  std::string model, serial, firmware;  // from Identify Controller, trimmed
  std::uint32_t version = 0;            // VS register: 0x00010400 is 1.4
  std::uint64_t max_transfer = 0;       // bytes in one command, by MDTS and by what one PRP list page can name
  std::uint16_t queue_depth = 0;
};

struct Namespace {
  std::uint32_t id = 0;
  std::uint64_t blocks = 0;
  std::uint32_t block_size = 0;  // bytes
};

// A finished command. status is the status field of the completion entry without its phase bit: 0 is success, otherwise
// status code in bits 0..7 and status code type in bits 8..10. Aligned so that an optional of it is one register.
struct alignas(4) Completed {
  std::uint16_t command = 0;
  std::uint16_t status = 0;
};

// One controller with its admin queue and one pair of I/O queues. Data goes to and from memory that the device can
// reach: part of a DmaBuffer, named by its iova (a multiple of 4). A device cannot tell whether what it wrote arrived:
// many report success for a read into an iova that is not mapped, and the IOMMU drops the data.
//
// After ETIMEDOUT, or an ENODEV or EIO that says that the controller was stopped, the controller is disabled and has
// lost its access to memory before the error is returned, so that the data of commands under way may be freed. Every
// function gives ESHUTDOWN from then on, and none touches the device: open another, and let this one go before or
// after. One that was moved from can only be assigned to, or let go. Thread rules: one thread at a time. A child of
// fork(2) may let its copy go, which leaves the controller alone.
class POSTERN_API Controller {
 public:
  // Resets and starts the controller, reads Identify, makes the I/O queues. The device must be an NVMe controller; it
  // and the allocator must outlive the Controller, and stay where they are. It is let at memory only once it was seen
  // disabled: one that does not let itself be disabled, or stays fatal, is reset (Device::reset()). When the Controller
  // goes, it shuts the controller down and takes its bus mastering away. Errors: EBUSY (another Controller has the
  // device, and was not stopped), ENODEV (not an NVMe controller, one that needs larger pages than 4 KiB, or one that
  // does not answer at all), ETIMEDOUT (it does not become ready, or cannot be disabled), EIO (fatal status, or a
  // command failed: its status is said), EOPNOTSUPP (MSI-X is asked for and it has none), those of
  // DmaBuffer::allocate(), PciDevice::map_bar() and PciDevice::enable().
  [[nodiscard]] static Result<Controller> open(PciDevice& device, IovaAllocator& allocator, Options options = {});
  Controller(Controller&&) noexcept;
  Controller& operator=(Controller&&) noexcept;
  ~Controller();

  [[nodiscard]] const ControllerInfo& info() const noexcept;
  // The first 1024 active ones, but those whose blocks carry metadata, or whose data makes no sense: they are logged.
  [[nodiscard]] const std::vector<Namespace>& namespaces() const noexcept;

  // One command, waited for: `count` blocks from `block`; count times the block size is at most max_transfer. The
  // namespace is one of namespaces(). Errors: EINVAL (too long, empty, iova unaligned), EFAULT (the data is not mapped,
  // or not for this direction: looked up among all the container's mappings), EBUSY (submitted commands are under way),
  // EIO (the controller's status, in words: also for blocks past the namespace's end), EROFS (it is write-protected),
  // ETIMEDOUT, ENODEV (the device has gone), ENOMSG (with Completion::msix: all is well with the command, but no
  // interrupt told of it; the controller goes on).
  [[nodiscard]] Result<void> read(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data);
  [[nodiscard]] Result<void> write(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data);
  [[nodiscard]] Result<void> flush(const Namespace& ns);

  // Many commands at a time: submit, then reap. The command id that is given names the completion, and is below
  // queue_depth - 1, which is how many may be under way. Errors: EAGAIN (that many are: reap first), EINVAL as above.
  // Whether the data is mapped is not looked up.
  [[nodiscard]] Result<std::uint16_t> submit_read(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                                  Iova data);
  [[nodiscard]] Result<std::uint16_t> submit_write(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                                   Iova data);
  // What has finished, without waiting: at most one; nothing when none has.
  [[nodiscard]] std::optional<Completed> poll();
  // The same, waiting for one, by polling or by interrupt as the options say. Errors: ETIMEDOUT, ENODEV and EIO (the
  // controller was stopped), EINVAL (nothing is under way), ENOMSG (one is there, which poll() gives, but no interrupt
  // told of it).
  [[nodiscard]] Result<Completed> wait();

  // How many interrupts came while one was waited for: what shows that they work.
  [[nodiscard]] std::uint64_t interrupts() const noexcept;

 private:
  class POSTERN_LOCAL State;
  explicit Controller(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

// A status field in words: "LBA out of range (0x080)".
[[nodiscard]] POSTERN_API std::string status_text(std::uint16_t status);

}  // namespace postern::nvme
