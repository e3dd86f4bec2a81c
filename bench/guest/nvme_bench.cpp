// SPDX-License-Identifier: Apache-2.0
// Measures the instructions of the NVMe driver per 4 KiB read, also relative to a raw queue. Runs as root in a guest.
//
// Runs under "-icount shift=0" (guests/boot --icount), where the time-stamp counter counts the instructions of the
// only processor. Submitting the reads counts. Then the program sleeps until all data has arrived; this does not count,
// since the number of instructions spent waiting depends on the disk. Reaping the completions and reading every 8-byte
// word of the data once counts. The cost of reading the counter is subtracted. The figure is the median of all rounds,
// which excludes those interrupted by the timer.
//
// nvme-depth-1 is one read at a time, by submit_read() and poll(). nvme-depth-32 is 32 at a time, by submit() and
// reap(), including writing the commands and checking each status. Both have a limit. nvme-read compares depth 32 plus
// reading the data, which every useful program does, with the raw queue. nvme-read-queue is the same without reading
// the data. It has no limit: the raw loop takes so few instructions that checking one argument is more than 5 % of
// them.
//
// The raw queue is a bare loop in each direction: fill 64 bytes and ring the doorbell; check phase and status, and ring
// the doorbell. It trusts the device, keeps no command ids, and checks no arguments. A doorbell write counts as one
// instruction, as any store does.
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/attach.hpp>
#include <postern/barriers.hpp>
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
constexpr std::uint32_t most = 32;  // reads in flight
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

// The data buffer of one round: a page for each read.
class Data {
 public:
  Data(PciDevice& device, IovaAllocator& iovas, std::uint32_t pages)
      : buffer_(or_exit(DmaBuffer::allocate(device.device().container(), iovas, pages * page_size))), pages_(pages) {}

  [[nodiscard]] Iova iova() const { return buffer_.iova(); }
  void forget() {
    for (std::uint32_t i = 0; i < pages_; ++i) *last_word(i) = unread;
  }
  // Reads every word once.
  [[nodiscard, gnu::noinline]] std::uint64_t sum() const {
    const auto* words = reinterpret_cast<const volatile std::uint64_t*>(buffer_.data());
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < pages_ * page_size / sizeof *words; ++i) total += words[i];
    return total;
  }
  [[nodiscard]] bool has_come() const {
    for (std::uint32_t i = 0; i < pages_; ++i) {
      if (*last_word(i) == unread) return false;
    }
    return true;
  }

 private:
  static constexpr std::uint64_t unread = 0x706f737465726e21;  // not on the disk, which holds random bytes
  [[nodiscard]] volatile std::uint64_t* last_word(std::uint32_t page) const {
    return reinterpret_cast<volatile std::uint64_t*>(buffer_.data() + (page + 1) * page_size - sizeof(std::uint64_t));
  }
  DmaBuffer buffer_;
  std::uint32_t pages_;
};

// Each queue class has depth, the number of reads that submit() submits from `block`; and reap(), which reaps at most
// as many completions and returns their number. Any status but success aborts.
class DriverQueue {
 public:
  DriverQueue(PciDevice& device, IovaAllocator& iovas)
      : controller_(or_exit(Controller::open(device, iovas, {.queue_depth = entries}))),
        ns_(controller_.namespaces().at(0)) {}

 protected:
  Controller controller_;
  Namespace ns_;
};

class SingleReads : DriverQueue {
 public:
  using DriverQueue::DriverQueue;
  static constexpr std::uint32_t depth = 1;
  [[gnu::noinline]] void submit(std::uint64_t block, Iova data) {
    if (!controller_.submit_read(ns_, block, 8, data)) std::abort();
  }
  [[gnu::noinline]] std::uint32_t reap() {
    const auto done = controller_.poll();
    if (done && done->status != 0) std::abort();
    return done ? 1 : 0;
  }
};

class BatchedReads : DriverQueue {
 public:
  using DriverQueue::DriverQueue;
  static constexpr std::uint32_t depth = most;
  [[gnu::noinline]] void submit(std::uint64_t block, Iova data) {
    for (std::uint32_t i = 0; i < depth; ++i) {
      commands_[i] = {
          .opcode = Opcode::read, .count = 8, .block = block + std::uint64_t{8} * i, .data = data + i * page_size};
    }
    if (!controller_.submit(ns_, commands_)) std::abort();
  }
  [[gnu::noinline]] std::uint32_t reap() {
    const auto reaped = controller_.reap(space_);
    for (const Completed& done : reaped) {
      if (done.status != 0) std::abort();
    }
    return static_cast<std::uint32_t>(reaped.size());
  }

 private:
  std::array<Command, depth> commands_;
  std::array<Completed, depth> space_;
};

class RawQueue {
 public:
  static constexpr std::uint32_t depth = most;
  RawQueue(PciDevice& device, IovaAllocator& iovas)
      : memory_(or_exit(DmaBuffer::allocate(device.device().container(), iovas, 2 * page_size))),
        bar_(or_exit(device.map_bar(0))),
        admin_(or_exit(Admin::start(device, &iovas, std::chrono::seconds(10)))),
        submissions_(reinterpret_cast<SubmissionEntry*>(memory_.data())),
        completions_(reinterpret_cast<CompletionEntry*>(memory_.data() + page_size)) {
    const auto doorbells = find_doorbells(bar_.bytes(), 1, admin_->capabilities().doorbell_stride());
    if (!doorbells) give_up("BAR 0 has no doorbells of an I/O queue");
    doorbells_ = *doorbells;
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
      doorbells_.submission->write(tail_);
    }
  }
  [[gnu::noinline]] std::uint32_t reap() {
    std::uint32_t reaped = 0;
    for (; reaped < depth; ++reaped) {
      const std::uint32_t outcome = completions_[head_].outcome.load();
      if (((outcome >> 16) & 1) != phase_) break;
      dma_rmb();
      if (outcome >> 17 != 0) std::abort();
      if (++head_ == entries) {
        head_ = 0;
        phase_ ^= 1;
      }
      doorbells_.completion->write(head_);
    }
    return reaped;
  }

 private:
  DmaBuffer memory_;
  Mmap bar_;
  std::unique_ptr<Admin> admin_;  // declared after the memory, to stop the controller before that is freed
  SubmissionEntry* submissions_;
  CompletionEntry* completions_;
  Doorbells doorbells_{};
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
  double queue;  // instructions per read: submitting and reaping
  double data;   // and reading the data
};

template <typename Queue>
Cost instructions(PciDevice& device, IovaAllocator& iovas) {
  constexpr std::uint32_t depth = Queue::depth;
  Data data(device, iovas, depth);
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
    // The completion arrives shortly after the data.
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
  const Cost single = instructions<SingleReads>(pci, iovas);
  const Cost driver = instructions<BatchedReads>(pci, iovas);
  bench::print_figure("nvme-depth-1", single.queue, "instructions", 150);
  bench::print_figure("nvme-depth-32", driver.queue, "instructions", 100);
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
