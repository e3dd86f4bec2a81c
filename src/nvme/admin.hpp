// SPDX-License-Identifier: Apache-2.0
// Admin: a controller's registers and its admin queue: starting it, asking it, stopping it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern/dma_buffer.hpp>
#include <postern/event.hpp>
#include <postern/pci_device.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "base/maker.hpp"
#include "nvme/identify.hpp"
#include "nvme/owner.hpp"
#include "nvme/queue.hpp"

namespace postern::nvme {

// A failure of this driver.
[[nodiscard]] tl::unexpected<Error> nvme_failure(int code, std::string_view operation, std::string object,
                                                 std::string reason, std::string remedy = {});

// Letting it go stops the controller, and after that the controller reaches no memory: what it was told of may be freed
// then, not before. Thread rules: one thread at a time.
class Admin {
 public:
  // Resets the controller and starts it with an admin queue. The device and the allocator must outlive it.
  // `timeout`: for a command to be answered. Errors: those of Controller::open().
  [[nodiscard]] static Result<std::unique_ptr<Admin>> start(PciDevice& device, IovaAllocator& allocator,
                                                            std::chrono::milliseconds timeout);
  ~Admin() { stop(); }
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return device_.name(); }
  [[nodiscard]] const Capabilities& capabilities() const noexcept { return capabilities_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return registers_.read(Register32::version); }

  // One admin command, waited for. Errors: EIO (the controller's status in words), ETIMEDOUT, ENODEV, ESHUTDOWN.
  [[nodiscard]] Result<std::uint32_t> command(SubmissionEntry entry, std::string_view operation, std::string object);
  [[nodiscard]] Result<IdentifyData> identify(Identify what, std::uint32_t namespace_id = 0);

  // Turns MSI-X on, until the controller is stopped. Vector 0 is the admin queue's, which is polled; events() has one
  // for each, and the last is the I/O queue's. Errors: EOPNOTSUPP (there is none), those of PciDevice::enable().
  [[nodiscard]] Result<void> enable_interrupts();
  [[nodiscard]] const std::vector<Event>& events() const noexcept { return events_; }

  // Makes queue pair `id` over memory that the device can reach, first the completions. It signals `vector`, if it is
  // to.
  struct IoQueue {
    std::uint16_t id;
    QueuePair::Memory memory;
    Iova submissions;
    Iova completions;
    std::optional<std::uint16_t> vector;
  };
  [[nodiscard]] Result<QueuePair> create_queue_pair(const IoQueue& queue);

  // False in a child of fork(2): the controller is the parent's, and is left alone.
  [[nodiscard]] bool is_of_this_process() const noexcept { return maker_.is_this_process(); }

  // Deletes them, which ends what is under way there. A controller that does not do it in time is stopped at once. What
  // fails is logged.
  void delete_queue_pair(std::uint16_t id) noexcept;

  // The next completion, waiting for it by polling. Nothing when the time is over, the queue stands still over a stray
  // one, or the controller has failed, which is looked at now and then.
  [[nodiscard]] std::optional<Completed> poll_until(QueuePair& queue, const Deadline& end) const;
  // Whether it reports a fatal error, or has gone.
  [[nodiscard]] bool has_failed() const noexcept;

  // For a command that this queue gave no answer to in so much time: stops the controller at once, so that no late
  // answer reaches memory, and gives the failure to return: ENODEV where the device has gone, EIO where it reports a
  // fatal error or answered what nobody had asked, otherwise ETIMEDOUT.
  [[nodiscard]] tl::unexpected<Error> give_up(const QueuePair& queue, std::chrono::milliseconds waited,
                                              std::string_view operation, std::string object);

  // Shuts the controller down in order, disables it, and takes its access to memory and its interrupts away; CAP.TO
  // bounds each wait. What fails is logged. From then on another may own the device: nothing of this one touches it any
  // more, and this does nothing the second time.
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  Admin(PciDevice& device, Owner owner, Mmap bar, std::chrono::milliseconds timeout) noexcept
      : owner_(std::move(owner)), device_(device), bar_(std::move(bar)), registers_(bar_.bytes()), timeout_(timeout) {}
  [[nodiscard]] bool is_ready() const noexcept;
  void halt() noexcept;  // stop() without the shutdown
  [[nodiscard]] Result<void> check_capabilities();
  [[nodiscard]] Result<void> bring_to_rest();
  [[nodiscard]] Result<void> disable();
  [[nodiscard]] Result<void> enable(Iova submissions, Iova completions);
  [[nodiscard]] Result<std::uint32_t> run(SubmissionEntry entry, std::chrono::milliseconds timeout,
                                          std::string_view operation, std::string object);
  [[nodiscard]] Result<void> wait_status(std::uint32_t mask, std::uint32_t value, std::string_view operation);

  Owner owner_;  // until it is stopped
  PciDevice& device_;
  Mmap bar_;
  Registers registers_;
  Capabilities capabilities_;
  std::chrono::milliseconds timeout_;
  std::optional<DmaBuffer> memory_;  // a page of submissions, one of completions, and one for what Identify gives
  std::optional<QueuePair> queue_;
  std::vector<Event> events_;  // one for each vector in use
  bool stopped_ = true;        // until it is enabled
  Maker maker_;
};

}  // namespace postern::nvme
