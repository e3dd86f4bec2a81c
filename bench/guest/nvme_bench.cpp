// SPDX-License-Identifier: Apache-2.0
// What the NVMe driver costs over a raw queue, in instructions for each 4 KiB read at depth 32. Runs as root in a
// guest.
//
// Counted under "-icount shift=0" (guests/boot --icount), where the time-stamp counter of the one processor counts the
// instructions that it has run. 32 reads are submitted: counted. Until the data of all has come the program sleeps: not
// counted, since what a program runs while it waits says how fast the disk is. Then 32 completions are reaped and every
// 8-byte word of the data is looked at once: counted. What reading the counter itself takes is subtracted, and the
// median of all rounds is given, which leaves out those that the timer interrupted.
//
// nvme-read is all of that, and has the limit: a read whose data nobody looks at has no use. nvme-read-queue is the
// same without the look at the data. It has no limit: the bare loop takes so few instructions that a single check of an
// argument is more than 5 % of them.
//
// The raw queue does what any queue must, in one bare loop each way: it fills 64 bytes and rings; it looks at the phase
// and the status, and rings. It trusts the device, keeps no command ids, and checks nothing that its caller says. A
// write to a doorbell counts as one instruction, as any store does.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <vector>

#include "figure.hpp"
#include "nvme/admin.hpp"

namespace {

using namespace postern;
using namespace postern::nvme;

constexpr PciAddress disk{.bus = 0, .device = 1};
constexpr std::uint32_t depth = 32;
constexpr std::uint32_t entries = 64;

[[noreturn]] void give_up(const std::string& what) {
  (void)std::fprintf(stderr, "nvme-bench: %s\n", what.c_str());
  std::exit(2);
}

template <typename T>
T or_exit(Result<T> result) {
  if (!result) give_up(result.error().message());
  return std::move(*result);
}

// Memory for one round's data: a page for each read.
class Data {
 public:
  Data(PciDevice& device, IovaAllocator& iovas)
      : buffer_(or_exit(DmaBuffer::allocate(device.device().container(), iovas, depth * page_size))) {}

  [[nodiscard]] Iova iova() const { return buffer_.iova(); }
  void forget() {
    for (std::uint32_t i = 0; i < depth; ++i) *last_word(i) = unread;
  }
  // Looks at every word once.
  [[nodiscard, gnu::noinline]] std::uint64_t sum() const {
    const auto* words = reinterpret_cast<const volatile std::uint64_t*>(buffer_.data());
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < depth * page_size / sizeof *words; ++i) total += words[i];
    return total;
  }
  [[nodiscard]] bool has_come() const {
    for (std::uint32_t i = 0; i < depth; ++i) {
      if (*last_word(i) == unread) return false;
    }
    return true;
  }

 private:
  static constexpr std::uint64_t unread = 0x706f737465726e21;  // which the disk of random bytes does not hold
  [[nodiscard]] volatile std::uint64_t* last_word(std::uint32_t page) const {
    return reinterpret_cast<volatile std::uint64_t*>(buffer_.data() + (page + 1) * page_size - sizeof(std::uint64_t));
  }
  DmaBuffer buffer_;
};

// Both ways have: submit() for 32 reads from `block`; reap(), which gives how many completions it found, 32 at most. A
// status other than success ends the program.
class DriverQueue {
 public:
  DriverQueue(PciDevice& device, IovaAllocator& iovas)
      : controller_(or_exit(Controller::open(device, iovas, {.queue_depth = entries}))),
        ns_(controller_.namespaces().at(0)) {}

  [[gnu::noinline]] void submit(std::uint64_t block, Iova data) {
    for (std::uint32_t i = 0; i < depth; ++i) {
      const auto id = controller_.submit_read(ns_, block + std::uint64_t{8} * i, 8, data + i * page_size);
      if (!id) std::abort();
    }
  }
  [[gnu::noinline]] std::uint32_t reap() {
    std::uint32_t reaped = 0;
    for (; reaped < depth; ++reaped) {
      const auto done = controller_.poll();
      if (!done) break;
      if (done->status != 0) std::abort();
    }
    return reaped;
  }

 private:
  Controller controller_;
  Namespace ns_;
};

class RawQueue {
 public:
  RawQueue(PciDevice& device, IovaAllocator& iovas)
      : memory_(or_exit(DmaBuffer::allocate(device.device().container(), iovas, 2 * page_size))),
        bar_(or_exit(device.map_bar(0))),
        admin_(or_exit(Admin::start(device, iovas, std::chrono::seconds(10)))),
        submissions_(reinterpret_cast<SubmissionEntry*>(memory_.data())),
        completions_(reinterpret_cast<CompletionEntry*>(memory_.data() + page_size)) {
    const Registers registers(bar_.bytes());
    const std::size_t stride = admin_->capabilities().doorbell_stride();
    submission_doorbell_ = registers.submission_doorbell(1, stride);
    completion_doorbell_ = registers.completion_doorbell(1, stride);
    (void)or_exit(admin_->create_queue_pair({.id = 1,
                                             .memory = {{submissions_, entries}, {completions_, entries}},
                                             .submissions = memory_.iova(),
                                             .completions = memory_.iova() + page_size,
                                             .vector = {}}));
  }

  [[gnu::noinline]] void submit(std::uint64_t block, Iova data) {
    for (std::uint32_t i = 0; i < depth; ++i) {
      SubmissionEntry& entry = submissions_[tail_];
      entry = SubmissionEntry{};
      entry.dwords_0_1 = dwords_0_1(Opcode::read, i, 1);
      entry.prp1 = data.value + i * page_size;
      entry.dwords_10_11 = block + std::uint64_t{8} * i;
      entry.dword_12 = 7;
      tail_ = tail_ + 1 == entries ? 0 : tail_ + 1;
      write_barrier();
      *submission_doorbell_ = tail_;
    }
  }
  [[gnu::noinline]] std::uint32_t reap() {
    std::uint32_t reaped = 0;
    for (; reaped < depth; ++reaped) {
      const std::uint32_t outcome = completions_[head_].outcome.load();
      if (((outcome >> 16) & 1) != phase_) break;
      read_barrier();
      if (outcome >> 17 != 0) std::abort();
      if (++head_ == entries) {
        head_ = 0;
        phase_ ^= 1;
      }
      *completion_doorbell_ = head_;
    }
    return reaped;
  }

 private:
  DmaBuffer memory_;
  Mmap bar_;
  std::unique_ptr<Admin> admin_;  // after the memory, so that it stops the controller before that goes
  SubmissionEntry* submissions_;
  CompletionEntry* completions_;
  Doorbell submission_doorbell_;
  Doorbell completion_doorbell_;
  std::uint32_t tail_ = 0;
  std::uint32_t head_ = 0;
  std::uint32_t phase_ = 1;
};

std::uint64_t counter() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  const std::uint64_t now = __builtin_ia32_rdtsc();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return now;
}

struct Cost {
  double queue;  // instructions a read, submitting and reaping
  double data;   // and looking at what was read
};

template <typename Queue>
Cost instructions(PciDevice& device, IovaAllocator& iovas) {
  Data data(device, iovas);
  Queue queue(device, iovas);
  std::vector<double> nothing;
  std::vector<double> submitting;
  std::vector<double> reaping;
  std::vector<double> looking;
  const auto between = [](std::uint64_t from, std::uint64_t to) { return static_cast<double>(to - from); };
  for (std::uint32_t round = 0; round < 201; ++round) {
    data.forget();
    const std::uint64_t t0 = counter();
    const std::uint64_t t1 = counter();
    queue.submit(round * 256, data.iova());
    const std::uint64_t t2 = counter();
    // The completion is written a moment after the data.
    do {
      ::usleep(1000);
    } while (!data.has_come());
    ::usleep(1000);
    const std::uint64_t t3 = counter();
    std::uint32_t reaped = queue.reap();
    const std::uint64_t t4 = counter();
    if (data.sum() == 0) give_up("the data was all zeroes");
    const std::uint64_t t5 = counter();
    nothing.push_back(between(t0, t1));
    submitting.push_back(between(t1, t2));
    if (reaped == depth) reaping.push_back(between(t3, t4));
    looking.push_back(between(t4, t5));
    while (reaped < depth) reaped += queue.reap();
  }
  if (reaping.empty()) give_up("the completions were late in every round");
  const double idle = bench::median(nothing);
  return {.queue = (bench::median(submitting) + bench::median(reaping) - 2 * idle) / depth,
          .data = (bench::median(looking) - idle) / depth};
}

void report(const std::string& name, double raw, double driver, std::optional<double> limit) {
  bench::print_figure(name + "-raw", raw, "instructions");
  bench::print_figure(name + "-driver", driver, "instructions");
  bench::print_figure(name + "-overhead", (driver / raw - 1) * 100, "percent", limit);
}

void run() {
  const auto function = or_exit(find_pci_function(system_kernel(), disk));
  auto pci = or_exit(PciDevice::open(or_exit(attach(system_kernel(), function.host))));
  const auto container = pci.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const Cost raw = instructions<RawQueue>(pci, iovas);
  const Cost driver = instructions<DriverQueue>(pci, iovas);
  report("nvme-read", raw.queue + raw.data, driver.queue + driver.data, 5);
  report("nvme-read-queue", raw.queue, driver.queue, {});
}

}  // namespace

int main() {
  const auto binding =
      or_exit(bind_to_driver(system_kernel(), or_exit(find_pci_function(system_kernel(), disk)).host, "vfio-pci"));
  run();
  const auto restored = restore_binding(system_kernel(), binding);
  if (!restored) give_up(restored.error().message());
  return bench::all_ok ? 0 : 1;
}
