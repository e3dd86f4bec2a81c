// SPDX-License-Identifier: Apache-2.0
// Starting and stopping a controller (NVM Express 1.4, sections 7.6.1 and 7.6.2), and its admin commands.
#include "nvme/admin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/log.hpp"

namespace postern::nvme {
namespace {

constexpr std::uint16_t admin_entries = 16;
constexpr std::uint32_t nvme_class = 0x010802;              // mass storage, non-volatile memory, NVM Express
constexpr std::chrono::milliseconds between_glances(1000);  // at the status of a controller that is waited for
constexpr std::string_view enabling = "NVMe enable (CC.EN)";
constexpr std::string_view disabling = "NVMe disable (CC.EN)";
constexpr std::string_view shutting_down = "NVMe shutdown (CC.SHN)";
constexpr std::string_view reset_remedy = "reset the device (Device::reset()) and open it again";

// Entries of a queue in memory that the device sees too.
template <typename Entry>
std::span<Entry> entries_at(const DmaBuffer& memory, std::size_t offset, std::size_t count) {
  return {reinterpret_cast<Entry*>(memory.data() + offset), count};
}

}  // namespace

tl::unexpected<Error> nvme_failure(int code, std::string_view operation, std::string object, std::string reason,
                                   std::string remedy) {
  return failure({.code = code,
                  .operation = std::string(operation),
                  .object = std::move(object),
                  .reason = std::move(reason),
                  .remedy = std::move(remedy),
                  .causes = {}});
}

Result<std::unique_ptr<Admin>> Admin::start(PciDevice& device, IovaAllocator& allocator,
                                            std::chrono::milliseconds timeout) {
  auto revision_and_class = device.read_config<std::uint32_t>(0x08);
  if (!revision_and_class) return failure_of(revision_and_class);
  if (const std::uint32_t found = *revision_and_class >> 8; found != nvme_class) {
    if (auto alive = device.require_answer(); !alive) return failure_of(alive);
    return nvme_failure(ENODEV, enabling, device.name(),
                        fmt::format("its class is {:#08x}, and an NVMe controller's is {:#08x}", found, nvme_class));
  }
  Owner owner(device);
  if (!owner.has_it()) {
    return nvme_failure(EBUSY, enabling, device.name(), "another nvme::Controller has this device",
                        "let that one go first");
  }
  auto bar = device.map_bar(0);
  if (!bar) return failure_of(bar);
  if (bar->size() < first_doorbell + 2 * sizeof(std::uint32_t)) {
    return nvme_failure(ENODEV, enabling, device.name(),
                        fmt::format("BAR 0 has {:#x} bytes, too few for doorbells", bar->size()));
  }
  // It reaches no memory before it was seen at rest: what it was told to do earlier may be under way still.
  if (auto done = device.disable_bus_master(); !done) return failure_of(done);
  // Before the first register is touched: a function whose memory is off answers with a SIGBUS.
  if (auto done = device.enable_memory(); !done) return failure_of(done);

  std::unique_ptr<Admin> admin(new Admin(device, std::move(owner), std::move(*bar), timeout));
  if (auto done = admin->check_capabilities(); !done) return failure_of(done);
  if (auto done = admin->bring_to_rest(); !done) return failure_of(done);

  auto memory = DmaBuffer::allocate(device.device().container(), allocator, 3 * page_size);
  if (!memory) return failure_of(memory);
  admin->memory_ = std::move(*memory);
  const std::size_t stride = admin->capabilities_.doorbell_stride();
  admin->queue_.emplace(
      QueuePair::Memory{.submissions = entries_at<SubmissionEntry>(*admin->memory_, 0, admin_entries),
                        .completions = entries_at<CompletionEntry>(*admin->memory_, page_size, admin_entries)},
      QueuePair::Doorbells{.submission = admin->registers_.submission_doorbell(0, stride),
                           .completion = admin->registers_.completion_doorbell(0, stride)});
  const Iova iova = admin->memory_->iova();
  if (auto done = admin->enable(iova, iova + page_size); !done) return failure_of(done);
  return admin;
}

Result<void> Admin::check_capabilities() {
  const auto unfit = [this](std::string reason) { return nvme_failure(ENODEV, enabling, name(), std::move(reason)); };
  if (registers_.read(Register32::status) == all_ones)
    return unfit("its registers read as all ones: it does not answer");

  capabilities_.raw = registers_.read(Register64::capabilities);
  // One that hangs in its start, or whose link came back without it.
  if (capabilities_.raw == 0 && registers_.read(Register32::version) == 0) {
    return nvme_failure(EIO, enabling, name(), "its registers read as all zeroes: the controller does not work",
                        std::string(reset_remedy) + ", or turn the machine off and on");
  }
  if (!capabilities_.has_nvm_commands()) return unfit("it does not have the NVM command set (CAP.CSS)");
  if (capabilities_.smallest_page() != page_size) {
    return unfit(fmt::format("its smallest page is {} KiB, not 4 (CAP.MPSMIN)", capabilities_.smallest_page() / 1024));
  }
  if (!registers_.has_doorbells(0, capabilities_.doorbell_stride())) {
    return unfit(
        fmt::format("its doorbells are {} bytes apart, beyond BAR 0 (CAP.DSTRD)", capabilities_.doorbell_stride()));
  }
  if (capabilities_.queue_entries() < 2) return unfit("its queues have a single entry (CAP.MQES)");
  return {};
}

Result<void> Admin::wait_status(std::uint32_t mask, std::uint32_t value, std::string_view operation) {
  const Deadline end(capabilities_.timeout());
  for (;;) {
    const bool last_look = end.is_over();
    const std::uint32_t seen = registers_.read(Register32::status);
    if (seen == all_ones) {
      return nvme_failure(ENODEV, operation, name(), "its registers read as all ones: it does not answer any more");
    }
    // A fatal status from before goes with the reset, so it says nothing while that is waited for.
    if (operation != disabling && (seen & status::fatal) != 0) {
      return nvme_failure(EIO, operation, name(), "the controller reports a fatal error (CSTS.CFS)",
                          std::string(reset_remedy));
    }
    if ((seen & mask) == value) return {};
    if (last_look) {
      return nvme_failure(
          ETIMEDOUT, operation, name(),
          fmt::format("CSTS is {:#x} after the {} ms that CAP.TO allows", seen, capabilities_.timeout().count()),
          std::string(reset_remedy));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

Result<void> Admin::disable() {
  const std::uint32_t current = registers_.read(Register32::configuration);
  registers_.write(Register32::configuration, current & ~configuration::enable);
  return wait_status(status::ready, 0, disabling);
}

// A controller that cannot be disabled, or stays fatal, is reset as a PCI function. Until CSTS.RDY was seen 0 it may go
// on with what it was told before: a read that was given up writes into memory that may be somebody else's by now.
Result<void> Admin::bring_to_rest() {
  const auto at_rest = [this]() -> Result<void> {
    if (auto done = disable(); !done) return done;
    const std::uint32_t seen = registers_.read(Register32::status);
    if (seen == all_ones) return disable();
    if ((seen & status::fatal) == 0) return {};
    return nvme_failure(EIO, disabling, name(), "it is disabled, and reports a fatal error all the same (CSTS.CFS)",
                        std::string(reset_remedy));
  };
  auto done = at_rest();
  if (done || done.error().code() == ENODEV) return done;
  if (auto reset = device_.device().reset(); !reset) {
    const Error& why = done.error();
    std::vector<Error> causes;
    causes.push_back(std::move(reset).error());
    return failure({.code = why.code(),
                    .operation = why.operation(),
                    .object = why.object(),
                    .reason = why.reason() + ", and it could not be reset",
                    .remedy = "take the power off it: turn the host off and on",
                    .causes = std::move(causes)});
  }
  return at_rest();
}

Result<void> Admin::enable(Iova submissions, Iova completions) {
  constexpr std::uint32_t entries = admin_entries - 1;
  registers_.write(Register32::admin_queue_attributes, entries << 16 | entries);
  registers_.write(Register64::admin_submission_queue, submissions.value);
  registers_.write(Register64::admin_completion_queue, completions.value);
  if (auto done = device_.enable_bus_master(); !done) return done;
  stopped_ = false;
  write_barrier();
  registers_.write(Register32::configuration,
                   configuration::enable | configuration::submission_entry_64 | configuration::completion_entry_16);
  return wait_status(status::ready, status::ready, enabling);
}

Result<std::uint32_t> Admin::command(SubmissionEntry entry, std::string_view operation, std::string object) {
  return run(entry, timeout_, operation, std::move(object));
}

Result<std::uint32_t> Admin::run(SubmissionEntry entry, std::chrono::milliseconds timeout, std::string_view operation,
                                 std::string object) {
  if (stopped_) {
    return nvme_failure(ESHUTDOWN, operation, std::move(object), "the controller was stopped", "open it again");
  }
  entry.dwords_0_1 = entry.dwords_0_1 | queue_->next_id() << 16;
  queue_->next_entry() = entry;
  queue_->submit();
  const auto done = poll_until(*queue_, Deadline(timeout));
  if (!done) return give_up(*queue_, timeout, operation, std::move(object));
  if (done->status != 0) return nvme_failure(EIO, operation, std::move(object), status_text(done->status));
  return queue_->last_result();
}

std::optional<Completed> Admin::poll_until(QueuePair& queue, const Deadline& end) const {
  std::uint32_t outcome = 0;
  Deadline glance(between_glances);
  for (bool last_look = false;;) {
    // Reading the clock costs as much as several looks.
    for (int i = 0; i < 64; ++i) {
      if (queue.take(outcome)) return completed(outcome);
      relax();
    }
    if (last_look) return std::nullopt;
    last_look = end.is_over() || queue.stray();
    if (!last_look && glance.is_over()) {
      last_look = has_failed();
      glance = Deadline(between_glances);
    }
  }
}

Result<IdentifyData> Admin::identify(Identify what, std::uint32_t namespace_id) {
  constexpr std::size_t offset = 2 * page_size;
  std::string object = namespace_id == 0 ? name() : fmt::format("{} namespace {}", name(), namespace_id);
  // What was answered before must not be taken for an answer that never came.
  std::fill_n(memory_->data() + offset, page_size, std::byte{0});
  auto done = command(nvme::identify(what, namespace_id, memory_->iova() + offset), "NVMe Identify", std::move(object));
  if (!done) return failure_of(done);
  // A copy, that the device cannot change while it is read.
  IdentifyData data;
  std::copy_n(memory_->data() + offset, data.size(), data.data());
  return data;
}

Result<QueuePair> Admin::create_queue_pair(const IoQueue& queue) {
  const std::size_t stride = capabilities_.doorbell_stride();
  if (!registers_.has_doorbells(queue.id, stride)) {
    return nvme_failure(ENODEV, "NVMe Create I/O Queue", fmt::format("{} queue {}", name(), queue.id),
                        fmt::format("its doorbells are {} bytes apart, beyond BAR 0 (CAP.DSTRD)", stride));
  }
  const auto entries = static_cast<std::uint16_t>(queue.memory.submissions.size());
  const QueueAt completions{.id = queue.id, .entries = entries, .memory = queue.completions};
  const QueueAt submissions{.id = queue.id, .entries = entries, .memory = queue.submissions};
  const Signal signal = queue.vector ? Signal::interrupt : Signal::none;
  auto done = command(create_completion_queue(completions, signal, queue.vector.value_or(0)),
                      "NVMe Create I/O Completion Queue", fmt::format("{} queue {}", name(), queue.id));
  if (!done) return failure_of(done);
  done = command(create_submission_queue(submissions), "NVMe Create I/O Submission Queue",
                 fmt::format("{} queue {}", name(), queue.id));
  if (!done) return failure_of(done);
  return QueuePair(queue.memory, {.submission = registers_.submission_doorbell(queue.id, stride),
                                  .completion = registers_.completion_doorbell(queue.id, stride)});
}

Result<void> Admin::enable_interrupts() {
  // Vector 0 is the admin queue's, which is polled. The I/O queue has one of its own where there is a second.
  const std::uint32_t vectors = std::min(device_.interrupt(PciInterrupt::msix).count, 2U);
  if (vectors == 0) {
    return nvme_failure(EOPNOTSUPP, "NVMe enable interrupts", name(), "it has no MSI-X", "use Completion::polling");
  }
  std::vector<Event> events;
  while (events.size() < vectors) {
    auto event = Event::create(device_.device().container()->kernel());
    if (!event) return failure_of(event);
    events.push_back(std::move(*event));
  }
  if (auto done = device_.enable(PciInterrupt::msix, events); !done) return done;
  events_ = std::move(events);
  return {};
}

void Admin::delete_queue_pair(std::uint16_t id) noexcept {
  // Section 7.4.3: the submission queue goes first.
  const auto timeout = std::min(timeout_, capabilities_.timeout());  // also where commands have for ever
  const auto remove = [&](AdminOpcode opcode, std::string_view operation) {
    if (stopped_ || !is_ready()) return;
    log_failure_of(
        [&] { return run(delete_queue(opcode, id), timeout, operation, fmt::format("{} queue {}", name(), id)); },
        LogKind::device);
  };
  remove(AdminOpcode::delete_submission_queue, "NVMe Delete I/O Submission Queue");
  remove(AdminOpcode::delete_completion_queue, "NVMe Delete I/O Completion Queue");
}

// False as well where all is ones: the device has gone.
bool Admin::is_ready() const noexcept {
  return (registers_.read(Register32::status) & (status::ready | status::fatal)) == status::ready;
}
bool Admin::has_failed() const noexcept { return (registers_.read(Register32::status) & status::fatal) != 0; }

tl::unexpected<Error> Admin::give_up(const QueuePair& queue, std::chrono::milliseconds waited,
                                     std::string_view operation, std::string object) {
  int code = ETIMEDOUT;
  std::string reason = fmt::format("no answer after {} ms", waited.count());
  if (const std::uint32_t seen = registers_.read(Register32::status); seen == all_ones) {
    code = ENODEV;
    reason = "no answer, and its registers read as all ones";
  } else if ((seen & status::fatal) != 0) {
    code = EIO;
    reason = "no answer, and it reports a fatal error (CSTS.CFS)";
  } else if (const auto stray = queue.stray()) {
    code = EIO;
    reason = fmt::format("the controller answered command {}, which is not under way", *stray);
  }
  halt();
  return nvme_failure(code, operation, std::move(object), reason + "; the controller was stopped", "open it again");
}

void Admin::stop() noexcept {
  if (stopped_ || !is_of_this_process()) return;
  if (is_ready()) {
    const std::uint32_t current = registers_.read(Register32::configuration);
    registers_.write(Register32::configuration,
                     (current & ~configuration::shutdown_mask) | configuration::shutdown_normal);
    log_failure_of([this] { return wait_status(status::shutdown_mask, status::shutdown_complete, shutting_down); },
                   LogKind::device);
  }
  halt();
}

void Admin::halt() noexcept {
  if (std::exchange(stopped_, true)) return;
  if (registers_.read(Register32::status) != all_ones) {
    log_failure_of([this] { return disable(); }, LogKind::device);
  }
  // This holds even for a controller that did not let itself be disabled: it cannot reach the memory that is freed
  // next.
  log_failure_of([this] { return device_.disable_bus_master(); });
  if (!events_.empty()) log_failure_of([this] { return device_.disable(PciInterrupt::msix); });
  owner_.release();
}

}  // namespace postern::nvme
