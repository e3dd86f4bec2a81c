// SPDX-License-Identifier: Apache-2.0
// Admin: a controller's registers and its admin queue: starts it, identifies it, and stops it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern/deadline.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/event.hpp>
#include <postern/pci_device.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/maker.hpp"
#include "nvme/identify.hpp"
#include "nvme/owner.hpp"
#include "nvme/queue.hpp"

namespace postern::nvme {

// A failure of this driver.
[[nodiscard]] tl::unexpected<Error> nvme_failure(int code, std::string_view operation, std::string object,
                                                 std::string reason, Remedies remedy = {});

// The destructor stops the controller, which accesses no memory afterwards: its buffers may be freed then, but not
// before. Thread safety: one thread at a time.
class Admin {
 public:
  // Resets the controller and starts it with an admin queue. The device and the allocator must outlive it. `timeout`:
  // of each command. Errors: those of Controller::open().
  [[nodiscard]] static Result<std::unique_ptr<Admin>> start(PciDevice& device, IovaAllocator* allocator,
                                                            std::chrono::milliseconds timeout);
  ~Admin() { stop(); }
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return device_.name(); }
  [[nodiscard]] const Capabilities& capabilities() const noexcept { return capabilities_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return registers_.version.read(); }

  // Runs one admin command. Errors: EIO (with the text of the controller's status), ETIMEDOUT, ENODEV, ESHUTDOWN.
  [[nodiscard]] Result<std::uint32_t> command(SubmissionEntry entry, std::string_view operation, std::string object);
  [[nodiscard]] Result<IdentifyData> identify(Identify what, std::uint32_t namespace_id = 0);

  // Enables MSI-X until the controller is stopped. Vector 0 belongs to the admin queue, which is polled. events() has
  // one event per vector; the last is the I/O queue's. Errors: EOPNOTSUPP (no MSI-X), those of PciDevice::enable().
  [[nodiscard]] Result<void> enable_interrupts();
  [[nodiscard]] const std::vector<Event>& events() const noexcept { return events_; }

  // Creates queue pair `id` in memory that the device can access, the completion queue first. It signals `vector`, if
  // there is one.
  struct IoQueue {
    std::uint16_t id;
    QueuePair::Memory memory;
    Iova submissions;
    Iova completions;
    std::optional<std::uint16_t> vector;
  };
  [[nodiscard]] Result<QueuePair> create_queue_pair(const IoQueue& queue);

  // False in a child of fork(2): the controller belongs to the parent, and is left alone.
  [[nodiscard]] bool is_of_this_process() const noexcept { return maker_.is_this_process(); }

  // Deletes the queue pair, which ends its commands. A controller that does not do so in time is stopped at once.
  // Failures are logged.
  void delete_queue_pair(std::uint16_t id) noexcept;

  // Returns the next completion, by polling. Nothing on a timeout, if the queue stopped at a stray completion, or if
  // the controller has failed, which is checked now and then.
  [[nodiscard]] std::optional<Completed> next_completion(QueuePair& queue, const Deadline& end) const;
  // Whether it reports a fatal error, or was removed.
  [[nodiscard]] bool has_failed() const noexcept;

  // For a command without an answer after this time: stops the controller at once, so that no late data reaches memory,
  // and returns the error: ENODEV if the device was removed, EIO if it reports a fatal error or has answered a command
  // that is not in flight, else ETIMEDOUT.
  [[nodiscard]] tl::unexpected<Error> give_up(const QueuePair& queue, std::chrono::milliseconds waited,
                                              std::string_view operation, std::string object);

  // Shuts the controller down, disables it, and disables its bus mastering and its interrupts. CAP.TO bounds each wait.
  // Failures are logged. Afterwards another object may own the device: this one no longer accesses it, and a second
  // call does nothing.
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  Admin(PciDevice& device, Owner owner, Mmap bar, Registers& registers, std::chrono::milliseconds timeout) noexcept
      : owner_(std::move(owner)), device_(device), bar_(std::move(bar)), registers_(registers), timeout_(timeout) {}
  [[nodiscard]] bool is_ready() const noexcept;
  void halt() noexcept;  // stop() without the shutdown
  [[nodiscard]] Result<void> check_capabilities();
  [[nodiscard]] Result<void> bring_to_rest();
  [[nodiscard]] Result<Doorbells> doorbells_of(std::uint16_t queue, std::string_view operation) const;
  [[nodiscard]] Result<void> disable();
  [[nodiscard]] Result<void> enable(Iova submissions, Iova completions);
  [[nodiscard]] Result<std::uint32_t> run(SubmissionEntry entry, std::chrono::milliseconds timeout,
                                          std::string_view operation, std::string object);
  [[nodiscard]] Result<void> wait_status(std::uint32_t mask, std::uint32_t value, std::string_view operation);

  Owner owner_;  // until it is stopped
  PciDevice& device_;
  Mmap bar_;
  Registers& registers_;  // in the BAR
  Capabilities capabilities_;
  std::chrono::milliseconds timeout_;
  std::optional<DmaBuffer> memory_;  // a page of submissions, one of completions, and one for Identify data
  std::optional<QueuePair> queue_;
  std::vector<Event> events_;  // one for each vector in use
  bool stopped_ = true;        // until it is enabled
  Maker maker_;
};

}  // namespace postern::nvme
