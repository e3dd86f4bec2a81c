// SPDX-License-Identifier: Apache-2.0
// The proof for QEMU's edu device: its DMA engine copies a page out and back, and it raises interrupts.
#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <postern/dma_buffer.hpp>
#include <postern/event.hpp>
#include <random>
#include <thread>
#include <vector>

#include "proofs/poison.hpp"
#include "proofs/proof.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// QEMU, docs/specs/edu.txt.
enum class Register : std::size_t {
  identification = 0x00,
  liveness = 0x04,
  interrupt_status = 0x24,
  interrupt_raise = 0x60,
  interrupt_acknowledge = 0x64,
  dma_source = 0x80,
  dma_destination = 0x88,
  dma_count = 0x90,
  dma_command = 0x98,
};
constexpr std::uint32_t dma_start = 1;
constexpr std::uint32_t dma_to_ram = 2;
constexpr std::uint32_t device_buffer = 0x40000;
// One word less than the device's buffer: QEMU aborts the machine when a copy reaches the last byte
// (edu_check_range, 7.2).
constexpr std::size_t copy_size = 4096 - 8;
constexpr std::uint64_t dma_mask = (1U << 28) - 1;  // the device's default

class Edu {
 public:
  explicit Edu(Mmap bar) : bar_(std::move(bar)) { swapped_ = *place(Register::identification) == swap(known); }

  [[nodiscard]] std::uint32_t read(Register at) const { return swapped_ ? swap(*place(at)) : *place(at); }
  void write(Register at, std::uint32_t value) const {
    // What the device is to fetch must be in memory before it is told to.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    *place(at) = swapped_ ? swap(value) : value;
  }

  // Starts a copy and waits for its end. The device takes a tenth of a second for each.
  [[nodiscard]] Result<void> copy(std::uint32_t from, std::uint32_t to, std::uint32_t direction) const {
    write(Register::dma_source, from);
    write(Register::dma_destination, to);
    write(Register::dma_count, copy_size);
    write(Register::dma_command, dma_start | direction);
    auto ended = wait_for_copy();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return ended;
  }
  // For none to be under way.
  [[nodiscard]] Result<void> wait_for_copy() const {
    const auto end = Clock::now() + 5s;
    while ((read(Register::dma_command) & dma_start) != 0) {
      if (Clock::now() > end)
        return failure(proof_error(ETIMEDOUT, "dma", "edu's DMA engine", "a copy did not end in 5 s"));
      std::this_thread::sleep_for(1ms);
    }
    return {};
  }

 private:
  [[nodiscard]] volatile std::uint32_t* place(Register at) const {
    return reinterpret_cast<volatile std::uint32_t*>(bar_.data() + static_cast<std::size_t>(at));
  }

  static constexpr std::uint32_t known = 0x010000ed;  // what the identification register has
  static constexpr std::uint32_t swap(std::uint32_t value) { return __builtin_bswap32(value); }

  Mmap bar_;
  // QEMU gives its registers the byte order of the machine it emulates, which for POWER is big-endian, whatever the
  // kernel runs in (DEVICE_NATIVE_ENDIAN).
  bool swapped_ = false;
};

// What the device can address of what the IOMMU can.
std::vector<IovaRange> reachable(const Bench& bench) {
  std::vector<IovaRange> ranges;
  for (const IovaRange& range : bench.ranges) {
    if (range.first.value > dma_mask) continue;
    ranges.push_back({range.first, Iova{std::min(range.last.value, dma_mask)}});
  }
  return ranges;
}

Result<std::string> prove_registers(const Edu& edu) {
  // Another each time: the register keeps its answer, which would pass for one to a question that never arrived.
  const std::uint32_t question = std::random_device()();
  const std::uint32_t identification = edu.read(Register::identification);
  if ((identification & 0xffff) != 0x00ed) {
    return failure(proof_error(EIO, "register", "edu's identification",
                               fmt::format("read {:#010x}, expected 0x....00ed", identification)));
  }
  edu.write(Register::liveness, question);
  // A simulated device answers when it comes to look.
  const auto end = Clock::now() + 1s;
  std::uint32_t answer = edu.read(Register::liveness);
  while (answer != ~question && Clock::now() < end) answer = edu.read(Register::liveness);
  if (answer != ~question) {
    return failure(proof_error(EIO, "register", "edu's liveness check",
                               fmt::format("wrote {:#x}, read {:#x}, expected {:#x}", question, answer, ~question)));
  }
  return fmt::format("identification {:#010x}, liveness check passed", identification);
}

Result<std::string> prove_dma(Bench& bench, const Edu& edu) {
  const auto& container = bench.device.device().container();
  const auto ranges = reachable(bench);
  IovaAllocator allocator(ranges, container->page_sizes());
  auto source = DmaBuffer::allocate(container, allocator, copy_size, Access::read);
  if (!source) return failure_of(source);
  auto target = DmaBuffer::allocate(container, allocator, copy_size);
  if (!target) return failure_of(target);

  const Poison poison(copy_size);
  constexpr std::uint64_t rounds = 2;  // the second shows that the first did not leave its bytes to be found again
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::vector<std::byte> pattern = pattern_of(copy_size, round + 1);
    std::memcpy(source->data(), pattern.data(), pattern.size());
    poison.fill(target->bytes());
    auto copied = edu.copy(static_cast<std::uint32_t>(source->iova().value), device_buffer, 0);
    if (copied) copied = edu.copy(device_buffer, static_cast<std::uint32_t>(target->iova().value), dma_to_ram);
    if (!copied) {
      // It may still be copying: it must not be able to when the memory goes.
      if (auto stopped = bench.device.disable_bus_master(); !stopped) return failure_of(stopped);
      return failure_of(copied);
    }
    if (std::memcmp(target->data(), pattern.data(), copy_size) == 0) continue;
    const bool untouched = poison.first_left(target->bytes(), copy_size).has_value();
    return failure(
        proof_error(EIO, "compare", "memory that went through edu",
                    untouched ? "nothing arrived: the DMA was blocked" : "other bytes came back than were sent",
                    "the kernel's log (dmesg) names the addresses that an IOMMU refused"));
  }
  return fmt::format("{} from {} to the device and back to {}, {} times, every byte compared", size_text(copy_size),
                     to_string(source->iova()), to_string(target->iova()), rounds);
}

Result<std::string> prove_interrupt(Bench& bench, const Edu& edu, PciInterrupt kind) {
  auto event = Event::create(bench.kernel());
  if (!event) return failure_of(event);
  if (auto done = bench.device.enable(kind, std::span(&*event, 1)); !done) return failure_of(done);
  const auto started = Clock::now();
  edu.write(Register::interrupt_raise, 1);
  auto signals = event->wait(2s);
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  const std::uint32_t status = edu.read(Register::interrupt_status);
  edu.write(Register::interrupt_acknowledge, status);
  if (auto done = bench.device.disable(kind); !done) return failure_of(done);
  if (!signals) return failure_of(signals);
  const std::string name = interrupt_name(static_cast<std::uint32_t>(kind));
  if (*signals == 0) return failure(proof_error(ETIMEDOUT, "wait", name + " of edu", "raised, but none came in 2 s"));
  return fmt::format("{} came in {}", name, duration_text(seconds));
}

void take(Steps& steps, std::string_view name, const Result<std::string>& result) {
  if (result) {
    steps.ok(name, *result);
  } else {
    steps.failed(name, result.error());
  }
}

void run_edu(Bench& bench) {
  if (auto done = bench.device.disable_bus_master(); !done) return bench.steps.failed("registers", done.error());
  if (auto done = bench.device.enable_memory(); !done) return bench.steps.failed("registers", done.error());
  auto bar = bench.device.map_bar(0);
  if (!bar) return bench.steps.failed("registers", bar.error());
  const Edu edu(std::move(*bar));
  take(bench.steps, "registers", prove_registers(edu));
  // A copy that was started before would reach memory that is this proof's now.
  if (auto at_rest = edu.wait_for_copy(); !at_rest) return bench.steps.failed("dma", at_rest.error());
  if (auto done = bench.device.enable_bus_master(); !done) return bench.steps.failed("dma", done.error());
  if (reachable(bench).empty()) {
    bench.steps.skipped("dma", fmt::format("edu's DMA engine reaches addresses to {:#x} alone", dma_mask));
  } else {
    take(bench.steps, "dma", prove_dma(bench, edu));
  }
  for (const PciInterrupt kind : {PciInterrupt::msi, PciInterrupt::intx}) {
    if (bench.device.interrupt(kind).count > 0) {
      take(bench.steps, "interrupt", prove_interrupt(bench, edu, kind));
    } else {
      bench.steps.skipped("interrupt", "the device has no " + interrupt_name(static_cast<std::uint32_t>(kind)));
    }
  }
  if (auto done = bench.device.disable_bus_master(); !done) bench.steps.failed("bus master", done.error());
}

bool is_edu(const PciFunction& function) { return function.vendor_id == 0x1234 && function.device_id == 0x11e8; }

}  // namespace

const Proof edu_proof = {.device = "edu", .fits = is_edu, .run = run_edu};

}  // namespace postern::tool
