// SPDX-License-Identifier: Apache-2.0
// Admin: starts and stops a controller (NVM Express 1.4, sections 7.6.1 and 7.6.2), and runs its admin commands.
#include "nvme/admin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.hpp"

namespace postern::nvme {
namespace {

constexpr std::uint16_t admin_entries = 16;
constexpr std::uint32_t nvme_class = 0x010802;                   // mass storage, non-volatile memory, NVM Express
constexpr std::chrono::microseconds status_interval(100);        // of status reads while waiting for a change
constexpr std::chrono::milliseconds slow_status_interval(1000);  // of status reads while waiting for a completion
constexpr std::string_view enabling = "NVMe enable (CC.EN)";
constexpr std::string_view disabling = "NVMe disable (CC.EN)";
constexpr std::string_view shutting_down = "NVMe shutdown (CC.SHN)";

// The entries of a queue in memory that the device can access.
template <typename Entry>
std::span<Entry> entries_at(const DmaBuffer& memory, std::size_t offset, std::size_t count) {
  return {reinterpret_cast<Entry*>(memory.data() + offset), count};
}

Remedy reset_and_open_again(const std::string& device) {
  return {.code = RemedyCode::reset_and_open_again, .arguments = {device}};
}

}  // namespace

tl::unexpected<Error> nvme_failure(int code, std::string_view operation, std::string object, std::string reason,
                                   Remedies remedy) {
  return failure({.code = code,
                  .operation = std::string(operation),
                  .object = std::move(object),
                  .reason = std::move(reason),
                  .remedy = std::move(remedy),
                  .causes = {}});
}

Result<std::unique_ptr<Admin>> Admin::start(PciDevice& device, IovaAllocator* allocator,
                                            std::chrono::milliseconds timeout) {
  const auto revision_and_class = POSTERN_TRY(device.read_config<std::uint32_t>(0x08));
  if (const std::uint32_t found = revision_and_class >> 8; found != nvme_class) {
    POSTERN_TRY(device.check_responds());
    return nvme_failure(ENODEV, enabling, device.name(),
                        fmt::format("its class is {:#08x}, but an NVMe controller's is {:#08x}", found, nvme_class));
  }
  Owner owner(device);
  if (!owner.has_it()) {
    return nvme_failure(EBUSY, enabling, device.name(), "another nvme::Controller owns this device",
                        RemedyCode::destroy_other_owner);
  }
  auto bar = POSTERN_TRY(device.map_bar(0));
  if (bar.size() < first_doorbell + 2 * sizeof(std::uint32_t)) {
    return nvme_failure(ENODEV, enabling, device.name(),
                        fmt::format("BAR 0 has {:#x} bytes, too few for doorbells", bar.size()));
  }
  auto registers = POSTERN_TRY(registers_at<Registers>(bar.bytes()));
  // It must not access memory until it is idle: earlier commands may still be running.
  POSTERN_TRY(device.disable_bus_master());
  // Before the first register access, which is a SIGBUS while memory decoding is off.
  POSTERN_TRY(device.enable_memory());

  std::unique_ptr<Admin> admin(new Admin(device, std::move(owner), std::move(bar), *registers, timeout));
  POSTERN_TRY(admin->check_capabilities());
  auto doorbells = POSTERN_TRY(admin->doorbells_of(0, enabling));
  POSTERN_TRY(admin->bring_to_rest());

  admin->memory_ =
      POSTERN_TRY(DmaBuffer::allocate(device.device().container(), 3 * page_size, {.allocator = allocator}));
  admin->queue_.emplace(
      QueuePair::Memory{.submissions = entries_at<SubmissionEntry>(*admin->memory_, 0, admin_entries),
                        .completions = entries_at<CompletionEntry>(*admin->memory_, page_size, admin_entries)},
      doorbells);
  const Iova iova = admin->memory_->iova();
  POSTERN_TRY(admin->enable(iova, iova + page_size));
  return admin;
}

Result<void> Admin::check_capabilities() {
  const auto unfit = [this](std::string reason) { return nvme_failure(ENODEV, enabling, name(), std::move(reason)); };
  if (registers_.status.read() == all_ones) return unfit("its registers read as all ones: it does not respond");

  capabilities_.raw = registers_.capabilities.read();
  // A controller that hangs during its start, or whose link came back without it.
  if (capabilities_.raw == 0 && registers_.version.read() == 0) {
    return nvme_failure(EIO, enabling, name(), "its registers read as all zeroes: the controller does not work",
                        Remedies(reset_and_open_again(name())).add(RemedyCode::turn_machine_off_and_on));
  }
  if (!capabilities_.has_nvm_commands()) return unfit("it does not support the NVM command set (CAP.CSS)");
  if (capabilities_.smallest_page() != page_size) {
    return unfit(fmt::format("its smallest page is {} KiB, not 4 (CAP.MPSMIN)", capabilities_.smallest_page() / 1024));
  }
  if (capabilities_.queue_entries() < 2) return unfit("its queues have a single entry (CAP.MQES)");
  return {};
}

Result<void> Admin::wait_status(std::uint32_t mask, std::uint32_t value, std::string_view operation) {
  std::uint32_t seen = 0;
  // The reset clears an earlier fatal status, which is ignored until then.
  const auto is_fatal = [&] { return operation != disabling && (seen & status::fatal) != 0; };
  const bool ended = poll_until(Deadline(capabilities_.timeout()), status_interval, [&] {
    seen = registers_.status.read();
    return seen == all_ones || is_fatal() || (seen & mask) == value;
  });
  if (seen == all_ones) {
    return nvme_failure(ENODEV, operation, name(), "its registers read as all ones: it no longer responds");
  }
  if (is_fatal()) {
    return nvme_failure(EIO, operation, name(), "the controller reports a fatal error (CSTS.CFS)",
                        reset_and_open_again(name()));
  }
  if (ended) return {};
  return nvme_failure(
      ETIMEDOUT, operation, name(),
      fmt::format("CSTS is {:#x} after the {} ms that CAP.TO allows", seen, capabilities_.timeout().count()),
      reset_and_open_again(name()));
}

Result<Doorbells> Admin::doorbells_of(std::uint16_t queue, std::string_view operation) const {
  const std::size_t stride = capabilities_.doorbell_stride();
  if (const auto found = find_doorbells(bar_.bytes(), queue, stride)) return *found;
  return nvme_failure(ENODEV, operation, fmt::format("{} queue {}", name(), queue),
                      fmt::format("its doorbells are {} bytes apart, beyond BAR 0 (CAP.DSTRD)", stride));
}

Result<void> Admin::disable() {
  const std::uint32_t current = registers_.configuration.read();
  registers_.configuration.write(current & ~configuration::enable);
  return wait_status(status::ready, 0, disabling);
}

// A controller that cannot be disabled, or still reports a fatal error, is reset as a PCI function. Until CSTS.RDY
// reads 0, it may continue earlier commands: an abandoned read could write to memory that has been reused.
Result<void> Admin::bring_to_rest() {
  const auto at_rest = [this]() -> Result<void> {
    POSTERN_TRY(disable());
    const std::uint32_t seen = registers_.status.read();
    if (seen == all_ones) return disable();
    if ((seen & status::fatal) == 0) return {};
    return nvme_failure(EIO, disabling, name(), "it is disabled, but still reports a fatal error (CSTS.CFS)",
                        reset_and_open_again(name()));
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
                    .remedy = RemedyCode::turn_machine_off_and_on,
                    .causes = std::move(causes)});
  }
  return at_rest();
}

Result<void> Admin::enable(Iova submissions, Iova completions) {
  constexpr std::uint32_t entries = admin_entries - 1;
  registers_.admin_queue_attributes.write(entries << 16 | entries);
  registers_.admin_submission_queue.write(submissions.value);
  registers_.admin_completion_queue.write(completions.value);
  POSTERN_TRY(device_.enable_bus_master());
  stopped_ = false;
  registers_.configuration.write(configuration::enable | configuration::submission_entry_64 |
                                 configuration::completion_entry_16);
  return wait_status(status::ready, status::ready, enabling);
}

Result<std::uint32_t> Admin::command(SubmissionEntry entry, std::string_view operation, std::string object) {
  return run(entry, timeout_, operation, std::move(object));
}

Result<std::uint32_t> Admin::run(SubmissionEntry entry, std::chrono::milliseconds timeout, std::string_view operation,
                                 std::string object) {
  if (stopped_) {
    return nvme_failure(ESHUTDOWN, operation, std::move(object), "the controller was stopped", RemedyCode::open_again);
  }
  queue_->submit(std::span(&entry, 1), [](const SubmissionEntry& command, std::uint32_t id, SubmissionEntry& next) {
    next = command;
    next.dwords_0_1 = command.dwords_0_1 | id << 16;
  });
  const auto done = next_completion(*queue_, Deadline(timeout));
  if (!done) return give_up(*queue_, timeout, operation, std::move(object));
  if (done->status != 0) return nvme_failure(EIO, operation, std::move(object), status_text(done->status));
  return queue_->last_result();
}

std::optional<Completed> Admin::next_completion(QueuePair& queue, const Deadline& end) const {
  Completed done;
  Deadline next_check(slow_status_interval);
  for (bool last_look = false;;) {
    // Reading the clock costs as much as several polls.
    for (int i = 0; i < 64; ++i) {
      if (queue.take(std::span(&done, 1)) == 1) return done;
      cpu_relax();
    }
    if (last_look) return std::nullopt;
    last_look = end.is_over() || queue.stray();
    if (!last_look && next_check.is_over()) {
      last_look = has_failed();
      next_check = Deadline(slow_status_interval);
    }
  }
}

Result<IdentifyData> Admin::identify(Identify what, std::uint32_t namespace_id) {
  constexpr std::size_t offset = 2 * page_size;
  std::string object = namespace_id == 0 ? name() : fmt::format("{} namespace {}", name(), namespace_id);
  // Clears earlier data, which must not be taken for an answer.
  std::fill_n(memory_->data() + offset, page_size, std::byte{0});
  POSTERN_TRY(
      command(nvme::identify(what, namespace_id, memory_->iova() + offset), "NVMe Identify", std::move(object)));
  // A copy, which the device cannot change while it is read.
  IdentifyData data;
  std::copy_n(memory_->data() + offset, data.size(), data.data());
  return data;
}

Result<QueuePair> Admin::create_queue_pair(const IoQueue& queue) {
  auto doorbells = POSTERN_TRY(doorbells_of(queue.id, "NVMe Create I/O Queue"));
  const auto entries = static_cast<std::uint16_t>(queue.memory.submissions.size());
  const QueueAt completions{.id = queue.id, .entries = entries, .memory = queue.completions};
  const QueueAt submissions{.id = queue.id, .entries = entries, .memory = queue.submissions};
  const Signal signal = queue.vector ? Signal::interrupt : Signal::none;
  POSTERN_TRY(command(create_completion_queue(completions, signal, queue.vector.value_or(0)),
                      "NVMe Create I/O Completion Queue", fmt::format("{} queue {}", name(), queue.id)));
  POSTERN_TRY(command(create_submission_queue(submissions), "NVMe Create I/O Submission Queue",
                      fmt::format("{} queue {}", name(), queue.id)));
  return QueuePair(queue.memory, doorbells);
}

Result<void> Admin::enable_interrupts() {
  // Vector 0 belongs to the admin queue, which is polled. The I/O queue has its own vector if there is a second one.
  const std::uint32_t vectors = std::min(device_.interrupt(PciInterrupt::msix).count, 2U);
  if (vectors == 0) {
    return nvme_failure(EOPNOTSUPP, "NVMe enable interrupts", name(), "it has no MSI-X", "use Completion::polling");
  }
  std::vector<Event> events;
  while (events.size() < vectors) {
    events.push_back(POSTERN_TRY(Event::create(device_.device().container()->kernel())));
  }
  POSTERN_TRY(device_.enable(PciInterrupt::msix, events));
  events_ = std::move(events);
  return {};
}

void Admin::delete_queue_pair(std::uint16_t id) noexcept {
  // Section 7.4.3: the submission queue is deleted first.
  const auto timeout = std::min(timeout_, capabilities_.timeout());  // also if commands may take forever
  const auto remove = [&](AdminOpcode opcode, std::string_view operation) {
    if (stopped_ || !is_ready()) return;
    log_failure_of(
        [&] { return run(delete_queue(opcode, id), timeout, operation, fmt::format("{} queue {}", name(), id)); },
        LogKind::device);
  };
  remove(AdminOpcode::delete_submission_queue, "NVMe Delete I/O Submission Queue");
  remove(AdminOpcode::delete_completion_queue, "NVMe Delete I/O Completion Queue");
}

// Also false if all bits are ones: the device was removed.
bool Admin::is_ready() const noexcept {
  return (registers_.status.read() & (status::ready | status::fatal)) == status::ready;
}
bool Admin::has_failed() const noexcept { return (registers_.status.read() & status::fatal) != 0; }

tl::unexpected<Error> Admin::give_up(const QueuePair& queue, std::chrono::milliseconds waited,
                                     std::string_view operation, std::string object) {
  int code = ETIMEDOUT;
  std::string reason = fmt::format("no answer after {} ms", waited.count());
  if (const std::uint32_t seen = registers_.status.read(); seen == all_ones) {
    code = ENODEV;
    reason = "no answer, and its registers read as all ones";
  } else if ((seen & status::fatal) != 0) {
    code = EIO;
    reason = "no answer, and it reports a fatal error (CSTS.CFS)";
  } else if (const auto stray = queue.stray()) {
    code = EIO;
    reason = fmt::format("the controller answered command {}, which is not in flight", *stray);
  }
  halt();
  return nvme_failure(code, operation, std::move(object), reason + "; the controller was stopped",
                      RemedyCode::open_again);
}

void Admin::stop() noexcept {
  if (stopped_ || !is_of_this_process()) return;
  if (is_ready()) {
    const std::uint32_t current = registers_.configuration.read();
    registers_.configuration.write((current & ~configuration::shutdown_mask) | configuration::shutdown_normal);
    log_failure_of([this] { return wait_status(status::shutdown_mask, status::shutdown_complete, shutting_down); },
                   LogKind::device);
  }
  halt();
}

void Admin::halt() noexcept {
  if (std::exchange(stopped_, true)) return;
  if (registers_.status.read() != all_ones) {
    log_failure_of([this] { return disable(); }, LogKind::device);
  }
  // Even a controller that could not be disabled can then not access the memory that is freed next.
  log_failure_of([this] { return device_.disable_bus_master(); });
  if (!events_.empty()) log_failure_of([this] { return device_.disable(PciInterrupt::msix); });
  owner_.release();
}

}  // namespace postern::nvme
