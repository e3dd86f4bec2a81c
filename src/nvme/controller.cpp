// SPDX-License-Identifier: Apache-2.0
// Controller: opens a controller, and reads and writes through one pair of I/O queues.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.hpp"
#include "nvme/admin.hpp"
#include "nvme/prp.hpp"
#include "nvme/request.hpp"

namespace postern::nvme {
namespace {

constexpr std::uint16_t io_queue = 1;

constexpr std::uint64_t round_up_to_page(std::uint64_t bytes) { return (bytes + page_size - 1) & ~(page_size - 1); }

// Checks whether all commands are common: reads or writes within one page, from its start. These need no PRP list, and
// no further checks. Collects the bits that are set in any of them, which takes fewer instructions than checking each.
class CommonCheck {
 public:
  void add(const Namespace& ns, const Command& command) noexcept {
    data_ |= command.data.value;
    last_bytes_ |= std::uint64_t{command.count} * ns.block_size - 1;
    opcodes_ |= static_cast<std::uint32_t>(command.opcode) - 1;
  }
  [[nodiscard]] bool holds() const noexcept {
    static_assert(static_cast<unsigned>(Opcode::write) == 1 && static_cast<unsigned>(Opcode::read) == 2);
    return data_ % page_size == 0 && last_bytes_ < page_size && opcodes_ <= 1;
  }

 private:
  std::uint64_t data_ = 0;
  std::uint64_t last_bytes_ = 0;
  std::uint32_t opcodes_ = 0;
};

// The fields that are not written here are always zero in the I/O queue.
void fill(SubmissionEntry& entry, std::uint32_t id, std::uint32_t ns, const Command& command, Prps prps) {
  entry.dwords_0_1 = dwords_0_1(command.opcode, id, ns);
  entry.prp1 = prps.prp1;
  entry.prp2 = prps.prp2;
  entry.dwords_10_11 = command.block;
  entry.dword_12 = command.count - 1;
}

}  // namespace

class Controller::State {
 public:
  State(PciDevice& device, std::unique_ptr<Admin> admin, Options options)
      : device_(device), admin_(std::move(admin)), options_(options) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!admin_->is_of_this_process()) return;
    if (queue_) admin_->delete_queue_pair(io_queue);
    admin_->stop();  // before the memory that the controller uses is freed
  }

  // The steps of open().
  [[nodiscard]] Result<void> identify();
  [[nodiscard]] Result<void> enable_interrupts() { return admin_->enable_interrupts(); }
  [[nodiscard]] Result<void> make_queue(IovaAllocator* allocator);

  [[nodiscard]] Result<void> submit(const Namespace& ns, std::span<Command> commands) {
    CommonCheck common;
    for (const Command& command : commands) common.add(ns, command);
    if (commands.empty() || commands.size() > queue_->room() || !common.holds()) [[unlikely]]
      return submit_any(ns, commands);
    submit_common(ns, commands);
    return {};
  }
  template <Opcode opcode>
  [[nodiscard]] Result<std::uint16_t> submit_one(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                                 Iova data) {
    Command command{.opcode = opcode, .count = count, .block = block, .data = data};
    CommonCheck common;
    common.add(ns, command);
    if (queue_->room() == 0 || !common.holds()) [[unlikely]]
      return submit_any<opcode>(ns, block, count, data);
    submit_common(ns, std::span(&command, 1));
    return command.id;
  }
  [[nodiscard]] std::span<const Completed> reap(std::span<Completed> space) { return space.first(queue_->take(space)); }
  [[nodiscard]] std::optional<Completed> poll() {
    Completed done;
    if (queue_->take(std::span(&done, 1)) == 0) return std::nullopt;
    return done;
  }
  [[nodiscard]] Result<Completed> wait();
  [[nodiscard]] Result<void> run(const Namespace& ns, Command command);
  [[nodiscard]] std::uint64_t interrupts() const noexcept { return interrupts_; }

  ControllerInfo info;
  std::vector<Namespace> namespaces;

 private:
  // Each command id has a page for its PRP list.
  [[nodiscard]] PrpList list_of(std::uint32_t id) const {
    const std::uint64_t offset = lists_ + id * page_size;
    auto* entries = reinterpret_cast<Le64*>(memory_->data() + offset);
    return {.entries = std::span<Le64, prp_list_entries>(entries, prp_list_entries), .iova = memory_->iova() + offset};
  }

  void submit_common(const Namespace& ns, std::span<Command> commands) {
    const std::uint32_t namespace_id = ns.id;  // a copy, so that writes to the queue do not reload it
    queue_->submit(commands, [namespace_id](Command& command, std::uint32_t id, SubmissionEntry& entry) {
      fill(entry, id, namespace_id, command, {.prp1 = command.data.value, .prp2 = 0});
      command.id = static_cast<std::uint16_t>(id);
    });
  }
  // A separate function, so that submit_one() needs no stack.
  template <Opcode opcode>
  [[nodiscard, gnu::noinline]] Result<std::uint16_t> submit_any(const Namespace& ns, std::uint64_t block,
                                                                std::uint32_t count, Iova data) {
    Command command{.opcode = opcode, .count = count, .block = block, .data = data};
    POSTERN_TRY(submit_any(ns, std::span(&command, 1)));
    return command.id;
  }
  [[nodiscard]] Result<void> submit_any(const Namespace& ns, std::span<Command> commands);
  [[nodiscard]] std::string object_of(const Namespace& ns, const Command& command) const {
    return nvme::object_of(admin_->name(), ns, command);
  }
  [[nodiscard]] Result<void> check_room(const Namespace& ns, std::span<const Command> commands) const;
  [[nodiscard]] bool uses_interrupts() const noexcept { return !admin_->events().empty(); }
  // The result of waiting for a completion: it was taken; or it is there without its interrupt, and was not taken; or
  // neither.
  struct Awaited {
    std::optional<Completed> completed;
    bool lacks_interrupt = false;
  };
  [[nodiscard]] Awaited next_completion();
  [[nodiscard]] Awaited next_interrupt(const Deadline& end);
  [[nodiscard]] tl::unexpected<Error> no_interrupt(std::string_view operation, std::string object) const;
  [[nodiscard]] tl::unexpected<Error> give_up(std::string_view operation, std::string object);

  std::optional<QueuePair> queue_;
  std::optional<DmaBuffer> memory_;  // submissions, completions, and from lists_ on a page for each command's PRPs
  std::uint64_t lists_ = 0;
  PciDevice& device_;
  std::unique_ptr<Admin> admin_;
  Options options_;
  std::uint64_t interrupts_ = 0;  // of the I/O queue, received while waiting for one
};

Result<void> Controller::State::identify() {
  auto data = POSTERN_TRY(admin_->identify(Identify::controller));
  auto parsed = POSTERN_TRY(parse_controller(admin_->name(), data));
  info = {.model = parsed.model,
          .serial = parsed.serial,
          .firmware = parsed.firmware,
          .version = admin_->version(),
          .max_transfer = max_transfer(parsed.max_transfer_shift, admin_->capabilities().smallest_page()),
          .queue_depth = 0};

  data = POSTERN_TRY(admin_->identify(Identify::active_namespaces));
  auto ids = POSTERN_TRY(parse_active_namespaces(admin_->name(), parsed.max_namespace, data));
  for (const std::uint32_t id : ids) {
    data = POSTERN_TRY(admin_->identify(Identify::name_space, id));
    auto ns = parse_namespace(admin_->name(), id, data);
    log_failure(ns, LogKind::remark);  // the others are usable
    if (ns) namespaces.push_back(*ns);
  }
  return {};
}

Result<void> Controller::State::make_queue(IovaAllocator* allocator) {
  POSTERN_TRY(admin_->command(set_one_queue_pair(), "NVMe Set Features (Number of Queues)", admin_->name()));
  const std::uint32_t most = std::min(admin_->capabilities().queue_entries(), 0xffffU);
  const auto entries = static_cast<std::uint16_t>(std::clamp<std::uint32_t>(options_.queue_depth, 2, most));
  const std::uint64_t completions = round_up_to_page(entries * sizeof(SubmissionEntry));
  lists_ = completions + round_up_to_page(entries * sizeof(CompletionEntry));
  memory_ = POSTERN_TRY(
      DmaBuffer::allocate(device_.device().container(), lists_ + (entries - 1U) * page_size, {.allocator = allocator}));

  std::optional<std::uint16_t> vector;
  if (uses_interrupts()) vector = static_cast<std::uint16_t>(admin_->events().size() - 1);
  queue_ = POSTERN_TRY(admin_->create_queue_pair(
      {.id = io_queue,
       .memory = {.submissions = {reinterpret_cast<SubmissionEntry*>(memory_->data()), entries},
                  .completions = {reinterpret_cast<CompletionEntry*>(memory_->data() + completions), entries}},
       .submissions = memory_->iova(),
       .completions = memory_->iova() + completions,
       .vector = vector}));
  info.queue_depth = entries;
  return {};
}

// Batches with a command that is not common, and batches that cannot be submitted. Checks all commands before it puts
// the first one into the queue.
Result<void> Controller::State::submit_any(const Namespace& ns, std::span<Command> commands) {
  POSTERN_TRY(check_room(ns, commands));
  for (const Command& command : commands) {
    POSTERN_TRY(check_command(admin_->name(), ns, command, info.max_transfer));
  }
  if (commands.empty()) return {};
  queue_->submit(commands, [&](Command& command, std::uint32_t id, SubmissionEntry& entry) {
    if (command.opcode == Opcode::flush) {
      fill(entry, id, ns.id, {.opcode = Opcode::flush, .count = 1}, {});  // a count of 1 is a 0 there
    } else {
      const std::uint64_t bytes = std::uint64_t{command.count} * ns.block_size;
      fill(entry, id, ns.id, command, build_prps(command.data, bytes, list_of(id)));
    }
    command.id = static_cast<std::uint16_t>(id);
  });
  return {};
}

Result<void> Controller::State::check_room(const Namespace& ns, std::span<const Command> commands) const {
  const std::uint32_t room = queue_->room();
  if (commands.size() <= room && !admin_->stopped()) return {};
  const bool is_batch = commands.size() != 1;
  const std::string_view operation = is_batch ? "NVMe submit" : operation_of(commands.front().opcode);
  std::string object = is_batch ? fmt::format("{} namespace {}, {} commands", admin_->name(), ns.id, commands.size())
                                : object_of(ns, commands.front());
  if (admin_->stopped()) {
    return nvme_failure(ESHUTDOWN, operation, std::move(object), "the controller was stopped", RemedyCode::open_again);
  }
  const std::uint32_t most = info.queue_depth - 1U;
  if (commands.size() > most) {
    return nvme_failure(EINVAL, operation, std::move(object), fmt::format("the queue holds {} commands at most", most),
                        "split them, or open the controller with a larger queue_depth");
  }
  return nvme_failure(EAGAIN, operation, std::move(object),
                      fmt::format("{} commands are in flight, and the queue holds {} at most", most - room, most),
                      "reap some first, by reap(), poll() or wait()");
}

Controller::State::Awaited Controller::State::next_completion() {
  const Deadline end(options_.timeout);
  if (!uses_interrupts()) return {.completed = admin_->next_completion(*queue_, end)};
  return next_interrupt(end);
}

// Looks for a completion only after an interrupt: one found by polling would not show that interrupts work.
Controller::State::Awaited Controller::State::next_interrupt(const Deadline& end) {
  // The longest delay of an interrupt after its completion, and the interval of status checks.
  constexpr std::chrono::milliseconds poll_interval(1000);
  const Event& event = admin_->events().back();
  for (bool is_late = false;;) {
    const auto signals = event.wait(is_late ? poll_interval : std::min(end.left(), poll_interval));
    if (!signals) {
      log(LogKind::remark, signals.error());
      return {.completed = admin_->next_completion(*queue_, end)};  // the command is in flight all the same
    }
    if (*signals > 0) {
      interrupts_ += *signals;
      if (auto done = poll()) return {.completed = done};
      is_late = false;  // it belonged to a command that poll() has already reaped
      continue;
    }
    if (is_late) return {.completed = {}, .lacks_interrupt = true};
    if (queue_->stray()) return {};
    is_late = queue_->has_completion();
    if (!is_late && (end.is_over() || admin_->has_failed())) return {};
  }
}

tl::unexpected<Error> Controller::State::no_interrupt(std::string_view operation, std::string object) const {
  return nvme_failure(
      ENOMSG, operation, std::move(object),
      fmt::format("the command is done, but no interrupt was received (MSI-X, vector {})", admin_->events().size() - 1),
      "use Completion::polling; the kernel's log (dmesg) lists blocked interrupts");
}

tl::unexpected<Error> Controller::State::give_up(std::string_view operation, std::string object) {
  // Deleting the queue ends its commands. A controller that is reset with commands in flight should drop them, but QEMU
  // 7.2 crashes.
  admin_->delete_queue_pair(io_queue);
  auto given_up = admin_->give_up(*queue_, options_.timeout, operation, std::move(object));
  queue_->close();
  return given_up;
}

Result<Completed> Controller::State::wait() {
  if (auto done = poll()) return *done;
  constexpr std::string_view operation = "NVMe wait";
  if (admin_->stopped()) {
    return nvme_failure(ESHUTDOWN, operation, admin_->name(), "the controller was stopped", RemedyCode::open_again);
  }
  if (queue_->idle() && !queue_->stray()) {
    return nvme_failure(EINVAL, operation, admin_->name(), "no command is in flight", "submit one first");
  }
  const Awaited awaited = next_completion();
  if (awaited.lacks_interrupt) return no_interrupt(operation, admin_->name());
  if (!awaited.completed) return give_up(operation, admin_->name());
  return *awaited.completed;
}

Result<void> Controller::State::run(const Namespace& ns, Command command) {
  const std::string_view operation = operation_of(command.opcode);
  if (!queue_->idle() && !admin_->stopped()) {
    return nvme_failure(EBUSY, operation, object_of(ns, command), "submitted commands are in flight",
                        "reap them first, by reap(), poll() or wait()");
  }
  const Container& container = *device_.device().container();
  POSTERN_TRY(check_mapped(container, admin_->name(), ns, command));
  // Ignores the interrupt of a command that poll() has reaped.
  if (uses_interrupts()) (void)admin_->events().back().take();
  POSTERN_TRY(submit_any(ns, std::span(&command, 1)));
  const Awaited awaited = next_completion();
  const auto done = awaited.lacks_interrupt ? poll() : awaited.completed;
  if (!done) return give_up(operation, object_of(ns, command));
  if (done->status != 0) return status_failure(admin_->name(), ns, command, done->status);
  if (awaited.lacks_interrupt) return no_interrupt(operation, object_of(ns, command));
  return {};
}

Result<Controller> Controller::open(PciDevice& device, IovaAllocator& allocator, Options options) {
  options.allocator = &allocator;
  return open(device, options);
}

Result<Controller> Controller::open(PciDevice& device, Options options) {
  IovaAllocator* const allocator = options.allocator;
  auto admin = POSTERN_TRY(Admin::start(device, allocator, options.timeout));
  auto state = std::make_unique<State>(device, std::move(admin), options);
  POSTERN_TRY(state->identify());
  if (options.completion == Completion::msix) {
    POSTERN_TRY(state->enable_interrupts());
  }
  POSTERN_TRY(state->make_queue(allocator));
  return Controller(std::move(state));
}

Controller::Controller(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Controller::Controller(Controller&&) noexcept = default;
Controller& Controller::operator=(Controller&&) noexcept = default;
Controller::~Controller() = default;

const ControllerInfo& Controller::info() const noexcept { return state_->info; }
const std::vector<Namespace>& Controller::namespaces() const noexcept { return state_->namespaces; }

Result<void> Controller::read(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data) {
  return state_->run(ns, {.opcode = Opcode::read, .count = count, .block = block, .data = data});
}
Result<void> Controller::write(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data) {
  return state_->run(ns, {.opcode = Opcode::write, .count = count, .block = block, .data = data});
}
Result<void> Controller::flush(const Namespace& ns) { return state_->run(ns, {.opcode = Opcode::flush}); }

Result<void> Controller::submit(const Namespace& ns, std::span<Command> commands) {
  return state_->submit(ns, commands);
}
std::span<const Completed> Controller::reap(std::span<Completed> space) { return state_->reap(space); }
Result<std::uint16_t> Controller::submit_read(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                              Iova data) {
  return state_->submit_one<Opcode::read>(ns, block, count, data);
}
Result<std::uint16_t> Controller::submit_write(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                               Iova data) {
  return state_->submit_one<Opcode::write>(ns, block, count, data);
}
std::optional<Completed> Controller::poll() { return state_->poll(); }
Result<Completed> Controller::wait() { return state_->wait(); }
std::uint64_t Controller::interrupts() const noexcept { return state_->interrupts(); }

}  // namespace postern::nvme
