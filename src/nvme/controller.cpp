// SPDX-License-Identifier: Apache-2.0
// Controller: opening one, and reading and writing through its one pair of I/O queues.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <postern/format.hpp>

#include "base/log.hpp"
#include "nvme/admin.hpp"
#include "nvme/prp.hpp"

namespace postern::nvme {
namespace {

constexpr std::uint16_t io_queue = 1;

constexpr std::uint64_t round_up_to_page(std::uint64_t bytes) { return (bytes + page_size - 1) & ~(page_size - 1); }

std::string_view operation_of(Opcode opcode) {
  switch (opcode) {
    case Opcode::flush:
      return "NVMe Flush";
    case Opcode::write:
      return "NVMe Write";
    case Opcode::read:
      break;
  }
  return "NVMe Read";
}

// One command of the I/O queue, as its caller gave it.
struct Request {
  Opcode opcode;
  const Namespace& ns;
  std::uint64_t block = 0;
  std::uint32_t count = 0;
  Iova data{};
};

// "Namespace is write protected", "attempted write to a read-only range".
constexpr bool is_write_protected(std::uint16_t status) {
  const int code = status & 0x7ff;
  return code == 0x020 || code == 0x182;
}

std::string remedy_of(const Request& request, std::uint16_t status) {
  switch (status & 0x7ff) {
    case 0x004:  // data transfer error
      return "see that the data is mapped, and for this direction";
    case 0x080:  // LBA out of range
      return fmt::format("the namespace has {} blocks", request.ns.blocks);
    default:
      return {};
  }
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
    admin_->stop();  // before the members that the controller was told of go
  }

  // The steps of open().
  [[nodiscard]] Result<void> identify();
  [[nodiscard]] Result<void> enable_interrupts() { return admin_->enable_interrupts(); }
  [[nodiscard]] Result<void> make_queue(IovaAllocator& allocator);

  template <Opcode opcode>
  [[nodiscard]] Result<std::uint16_t> submit(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data) {
    const std::uint32_t id = queue_->next_id();
    const std::uint64_t bytes = std::uint64_t{count} * ns.block_size;
    // The common command: data from the start of a page, to its end at most. It needs no list, and no more checks.
    const bool common = ((data.value & (page_size - 1)) | ((bytes - 1) & ~(page_size - 1))) == 0;
    if (!common || id == QueuePair::no_id) [[unlikely]]
      return submit_any<opcode>(ns, block, count, data);
    put(opcode, id, ns.id, block, count, {.prp1 = data.value, .prp2 = 0});
    return static_cast<std::uint16_t>(id);
  }
  [[nodiscard]] std::optional<Completed> poll() {
    std::uint32_t outcome = 0;
    if (!queue_->take(outcome)) return std::nullopt;
    return completed(outcome);
  }
  [[nodiscard]] Result<Completed> wait();
  [[nodiscard]] Result<void> run(const Request& request);
  [[nodiscard]] std::uint64_t interrupts() const noexcept { return interrupts_; }

  ControllerInfo info;
  std::vector<Namespace> namespaces;

 private:
  // The fields that are not written here are zeroes in every command of this queue, and so from the start.
  void put(Opcode opcode, std::uint32_t id, std::uint32_t ns, std::uint64_t block, std::uint32_t count, Prps prps) {
    SubmissionEntry& entry = queue_->next_entry();
    entry.dwords_0_1 = dwords_0_1(opcode, id, ns);
    entry.prp1 = prps.prp1;
    entry.prp2 = prps.prp2;
    entry.dwords_10_11 = block;
    entry.dword_12 = count - 1;
    queue_->submit();
  }

  // Each command id has a page for its PRP list.
  [[nodiscard]] PrpList list_of(std::uint32_t id) const {
    const std::uint64_t offset = lists_ + id * page_size;
    auto* entries = reinterpret_cast<Little<std::uint64_t>*>(memory_->data() + offset);
    return {.entries = std::span<Little<std::uint64_t>, prp_list_entries>(entries, prp_list_entries),
            .iova = memory_->iova() + offset};
  }

  // Out of the way, so that submit() needs no stack.
  template <Opcode opcode>
  [[nodiscard, gnu::noinline]] Result<std::uint16_t> submit_any(const Namespace& ns, std::uint64_t block,
                                                                std::uint32_t count, Iova data) {
    return submit_any({.opcode = opcode, .ns = ns, .block = block, .count = count, .data = data});
  }
  [[nodiscard]] Result<std::uint16_t> submit_any(const Request& request);
  [[nodiscard]] std::string object_of(const Request& request) const;
  [[nodiscard]] Result<void> check(const Request& request, std::uint64_t bytes) const;
  [[nodiscard]] Result<void> check_mapped(const Request& request) const;
  [[nodiscard]] tl::unexpected<Error> refuse(const Request& request) const;
  [[nodiscard]] bool uses_interrupts() const noexcept { return !admin_->events().empty(); }
  // What waiting for a completion came to: it has come; it is there, but its interrupt is not, and it was not taken; or
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
  std::uint64_t interrupts_ = 0;  // of the I/O queue that came while one was waited for
};

Result<void> Controller::State::identify() {
  auto data = admin_->identify(Identify::controller);
  if (!data) return failure_of(data);
  auto parsed = parse_controller(admin_->name(), *data);
  if (!parsed) return failure_of(parsed);
  info = {.model = parsed->model,
          .serial = parsed->serial,
          .firmware = parsed->firmware,
          .version = admin_->version(),
          .max_transfer = max_transfer(parsed->max_transfer_shift, admin_->capabilities().smallest_page()),
          .queue_depth = 0};

  data = admin_->identify(Identify::active_namespaces);
  if (!data) return failure_of(data);
  auto ids = parse_active_namespaces(admin_->name(), parsed->max_namespace, *data);
  if (!ids) return failure_of(ids);
  for (const std::uint32_t id : *ids) {
    data = admin_->identify(Identify::name_space, id);
    if (!data) return failure_of(data);
    auto ns = parse_namespace(admin_->name(), id, *data);
    log_failure(ns, LogKind::remark);  // the others can be used
    if (ns) namespaces.push_back(*ns);
  }
  return {};
}

Result<void> Controller::State::make_queue(IovaAllocator& allocator) {
  if (auto done = admin_->command(set_one_queue_pair(), "NVMe Set Features (Number of Queues)", admin_->name());
      !done) {
    return failure_of(done);
  }
  const std::uint32_t most = std::min(admin_->capabilities().queue_entries(), 0xffffU);
  const auto entries = static_cast<std::uint16_t>(std::clamp<std::uint32_t>(options_.queue_depth, 2, most));
  const std::uint64_t completions = round_up_to_page(entries * sizeof(SubmissionEntry));
  lists_ = completions + round_up_to_page(entries * sizeof(CompletionEntry));
  auto memory = DmaBuffer::allocate(device_.device().container(), allocator, lists_ + (entries - 1U) * page_size);
  if (!memory) return failure_of(memory);
  memory_ = std::move(*memory);

  std::optional<std::uint16_t> vector;
  if (uses_interrupts()) vector = static_cast<std::uint16_t>(admin_->events().size() - 1);
  auto queue = admin_->create_queue_pair(
      {.id = io_queue,
       .memory = {.submissions = {reinterpret_cast<SubmissionEntry*>(memory_->data()), entries},
                  .completions = {reinterpret_cast<CompletionEntry*>(memory_->data() + completions), entries}},
       .submissions = memory_->iova(),
       .completions = memory_->iova() + completions,
       .vector = vector});
  if (!queue) return failure_of(queue);
  queue_ = std::move(*queue);
  info.queue_depth = entries;
  return {};
}

// Every command that is not common, and a flush, which has no data.
Result<std::uint16_t> Controller::State::submit_any(const Request& request) {
  const std::uint32_t id = queue_->next_id();
  if (id == QueuePair::no_id) return refuse(request);
  Prps prps;
  if (request.opcode != Opcode::flush) {
    const std::uint64_t bytes = std::uint64_t{request.count} * request.ns.block_size;
    if (auto fine = check(request, bytes); !fine) return failure_of(fine);
    prps = build_prps(request.data, bytes, list_of(id));
  }
  put(request.opcode, id, request.ns.id, request.block, request.count, prps);
  return static_cast<std::uint16_t>(id);
}

std::string Controller::State::object_of(const Request& request) const {
  if (request.opcode == Opcode::flush) return fmt::format("{} namespace {}", admin_->name(), request.ns.id);
  if (request.count <= 1) return fmt::format("{} namespace {} block {}", admin_->name(), request.ns.id, request.block);
  return fmt::format("{} namespace {} blocks {}-{}", admin_->name(), request.ns.id, request.block,
                     request.block + (request.count - 1));
}

Result<void> Controller::State::check(const Request& request, std::uint64_t bytes) const {
  const auto invalid = [&](std::string reason, std::string remedy) {
    return nvme_failure(EINVAL, operation_of(request.opcode), object_of(request), std::move(reason), std::move(remedy));
  };
  if (bytes == 0) return invalid("no blocks are asked for", {});
  if (bytes > info.max_transfer) {
    return invalid(
        fmt::format("{} in one command, and the controller takes {}", size_text(bytes), size_text(info.max_transfer)),
        "split it");
  }
  if (request.data.value % 4 != 0)
    return invalid("the data's iova " + to_string(request.data) + " is no multiple of 4", {});
  if (!IovaRange::from_length(request.data, bytes)) {
    return invalid("the data runs past the last iova, from " + to_string(request.data), {});
  }
  return {};
}

// What an IOMMU stops, a controller may well call a success.
Result<void> Controller::State::check_mapped(const Request& request) const {
  const auto data = IovaRange::from_length(request.data, std::uint64_t{request.count} * request.ns.block_size);
  if (!data) return {};  // submit() says what is wrong
  const auto needed = static_cast<unsigned>(request.opcode == Opcode::read ? Access::write : Access::read);
  const Container& container = *device_.device().container();
  Iova next = data->first;
  for (auto mapping = container.find(next); mapping; mapping = container.find(next)) {
    if ((static_cast<unsigned>(mapping->access) & needed) == 0) break;
    if (mapping->range.last >= data->last) return {};
    next = mapping->range.last + 1;
  }
  return nvme_failure(EFAULT, operation_of(request.opcode), object_of(request),
                      fmt::format("the data is {}, and the device cannot reach {}", to_string(*data), to_string(next)),
                      "map it, for this direction");
}

tl::unexpected<Error> Controller::State::refuse(const Request& request) const {
  const std::string_view operation = operation_of(request.opcode);
  if (admin_->stopped()) {
    return nvme_failure(ESHUTDOWN, operation, object_of(request), "the controller was stopped", "open it again");
  }
  return nvme_failure(EAGAIN, operation, object_of(request),
                      fmt::format("{} commands are under way, as many as the queue takes", info.queue_depth - 1),
                      "reap some first, by poll() or wait()");
}

Controller::State::Awaited Controller::State::next_completion() {
  const Deadline end(options_.timeout);
  if (!uses_interrupts()) return {.completed = admin_->poll_until(*queue_, end)};
  return next_interrupt(end);
}

// Does not look for a completion before an interrupt has come: one that polling finds shows nothing of interrupts.
Controller::State::Awaited Controller::State::next_interrupt(const Deadline& end) {
  // So long an interrupt may come after its completion; and so often the controller's status is looked at.
  constexpr std::chrono::milliseconds patience(1000);
  const Event& event = admin_->events().back();
  for (bool is_late = false;;) {
    const auto signals = event.wait(is_late ? patience : std::min(end.left(), patience));
    if (!signals) {
      log(LogKind::remark, signals.error());
      return {.completed = admin_->poll_until(*queue_, end)};  // the command is under way all the same
    }
    if (*signals > 0) {
      interrupts_ += *signals;
      if (auto done = poll()) return {.completed = done};
      is_late = false;  // it was of a command that poll() has reaped already
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
      fmt::format("the command is done, but no interrupt came (MSI-X, vector {})", admin_->events().size() - 1),
      "use Completion::polling; the kernel's log (dmesg) tells of interrupts that were blocked");
}

tl::unexpected<Error> Controller::State::give_up(std::string_view operation, std::string object) {
  // Deleting the queue ends its commands. A controller that is reset under them should drop them, too; QEMU 7.2
  // crashes.
  admin_->delete_queue_pair(io_queue);
  auto given_up = admin_->give_up(*queue_, options_.timeout, operation, std::move(object));
  queue_->close();
  return given_up;
}

Result<Completed> Controller::State::wait() {
  if (auto done = poll()) return *done;
  constexpr std::string_view operation = "NVMe wait";
  if (admin_->stopped()) {
    return nvme_failure(ESHUTDOWN, operation, admin_->name(), "the controller was stopped", "open it again");
  }
  if (queue_->idle() && !queue_->stray()) {
    return nvme_failure(EINVAL, operation, admin_->name(), "no command is under way", "submit one first");
  }
  const Awaited awaited = next_completion();
  if (awaited.lacks_interrupt) return no_interrupt(operation, admin_->name());
  if (!awaited.completed) return give_up(operation, admin_->name());
  return *awaited.completed;
}

Result<void> Controller::State::run(const Request& request) {
  const std::string_view operation = operation_of(request.opcode);
  if (!queue_->idle() && !admin_->stopped()) {
    return nvme_failure(EBUSY, operation, object_of(request), "submitted commands are under way",
                        "reap them first, by poll() or wait()");
  }
  if (request.opcode != Opcode::flush) {
    if (auto mapped = check_mapped(request); !mapped) return mapped;
  }
  // An interrupt of a command that poll() has reaped says nothing of this one.
  if (uses_interrupts()) (void)admin_->events().back().take();
  auto id = submit_any(request);
  if (!id) return failure_of(id);
  const Awaited awaited = next_completion();
  const auto done = awaited.lacks_interrupt ? poll() : awaited.completed;
  if (!done) return give_up(operation, object_of(request));
  if (done->status != 0) {
    return nvme_failure(is_write_protected(done->status) ? EROFS : EIO, operation, object_of(request),
                        status_text(done->status), remedy_of(request, done->status));
  }
  if (awaited.lacks_interrupt) return no_interrupt(operation, object_of(request));
  return {};
}

Result<Controller> Controller::open(PciDevice& device, IovaAllocator& allocator, Options options) {
  auto admin = Admin::start(device, allocator, options.timeout);
  if (!admin) return failure_of(admin);
  auto state = std::make_unique<State>(device, std::move(*admin), options);
  if (auto done = state->identify(); !done) return failure_of(done);
  if (options.completion == Completion::msix) {
    if (auto done = state->enable_interrupts(); !done) return failure_of(done);
  }
  if (auto done = state->make_queue(allocator); !done) return failure_of(done);
  return Controller(std::move(state));
}

Controller::Controller(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Controller::Controller(Controller&&) noexcept = default;
Controller& Controller::operator=(Controller&&) noexcept = default;
Controller::~Controller() = default;

const ControllerInfo& Controller::info() const noexcept { return state_->info; }
const std::vector<Namespace>& Controller::namespaces() const noexcept { return state_->namespaces; }

Result<void> Controller::read(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data) {
  return state_->run({.opcode = Opcode::read, .ns = ns, .block = block, .count = count, .data = data});
}
Result<void> Controller::write(const Namespace& ns, std::uint64_t block, std::uint32_t count, Iova data) {
  return state_->run({.opcode = Opcode::write, .ns = ns, .block = block, .count = count, .data = data});
}
Result<void> Controller::flush(const Namespace& ns) {
  // A count of 1 is a 0 in the command, as all fields are that a flush does not use.
  return state_->run({.opcode = Opcode::flush, .ns = ns, .block = 0, .count = 1, .data = {}});
}

Result<std::uint16_t> Controller::submit_read(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                              Iova data) {
  return state_->submit<Opcode::read>(ns, block, count, data);
}
Result<std::uint16_t> Controller::submit_write(const Namespace& ns, std::uint64_t block, std::uint32_t count,
                                               Iova data) {
  return state_->submit<Opcode::write>(ns, block, count, data);
}
std::optional<Completed> Controller::poll() { return state_->poll(); }
Result<Completed> Controller::wait() { return state_->wait(); }
std::uint64_t Controller::interrupts() const noexcept { return state_->interrupts(); }

}  // namespace postern::nvme
