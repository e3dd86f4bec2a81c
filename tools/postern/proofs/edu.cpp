// SPDX-License-Identifier: Apache-2.0
// edu_proof: QEMU's edu device copies a page to its buffer and back by DMA, and raises interrupts.
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <postern/deadline.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/event.hpp>
#include <postern/registers.hpp>
#include <random>
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
struct Registers {
  Register<std::uint32_t> identification;
  Register<std::uint32_t> liveness;
  std::array<std::uint32_t, 7> gap_08;
  Register<std::uint32_t> interrupt_status;
  std::array<std::uint32_t, 14> gap_28;
  Register<std::uint32_t> interrupt_raise;
  Register<std::uint32_t> interrupt_acknowledge;
  std::array<std::uint32_t, 6> gap_68;
  // These have 64 bits; the lower halves suffice.
  Register<std::uint32_t> dma_source;
  std::uint32_t gap_84;
  Register<std::uint32_t> dma_destination;
  std::uint32_t gap_8c;
  Register<std::uint32_t> dma_count;
  std::uint32_t gap_94;
  Register<std::uint32_t> dma_command;
};
static_assert(offsetof(Registers, interrupt_status) == 0x24);
static_assert(offsetof(Registers, interrupt_raise) == 0x60);
static_assert(offsetof(Registers, dma_source) == 0x80);
static_assert(offsetof(Registers, dma_command) == 0x98);

constexpr std::uint32_t dma_start = 1;
constexpr std::uint32_t dma_to_ram = 2;
constexpr std::uint32_t device_buffer = 0x40000;
// One word less than the device's buffer: QEMU aborts the machine when a copy reaches the last byte
// (edu_check_range, 7.2).
constexpr std::size_t copy_size = 4096 - 8;
constexpr unsigned address_bits = 28;  // the device's default

class Edu {
 public:
  Edu(Mmap bar, Registers& registers) : bar_(std::move(bar)), registers_(registers) {
    swapped_ = registers.identification.read() == swap(known);
  }

  using Name = Register<std::uint32_t> Registers::*;
  [[nodiscard]] std::uint32_t read(Name name) const { return in_device_order((registers_.*name).read()); }
  void write(Name name, std::uint32_t value) const { (registers_.*name).write(in_device_order(value)); }

  // Starts a copy and waits for its end. A copy takes the device 0.1 s.
  [[nodiscard]] Result<void> copy(std::uint32_t from, std::uint32_t to, std::uint32_t direction) const {
    write(&Registers::dma_source, from);
    write(&Registers::dma_destination, to);
    write(&Registers::dma_count, copy_size);
    write(&Registers::dma_command, dma_start | direction);
    return wait_for_copy();
  }
  // Waits until no copy is in progress.
  [[nodiscard]] Result<void> wait_for_copy() const {
    const auto has_ended = [this] { return (read(&Registers::dma_command) & dma_start) == 0; };
    if (poll_until(Deadline(5s), 1ms, has_ended)) return {};
    return failure(proof_error(ETIMEDOUT, "dma", "edu's DMA engine", "a copy did not end within 5 s"));
  }

 private:
  static constexpr std::uint32_t known = 0x010000ed;  // the value of the identification register
  static constexpr std::uint32_t swap(std::uint32_t value) { return __builtin_bswap32(value); }
  [[nodiscard]] std::uint32_t in_device_order(std::uint32_t value) const { return swapped_ ? swap(value) : value; }

  Mmap bar_;
  Registers& registers_;  // in the BAR
  // QEMU gives its registers the byte order of the machine it emulates, which for POWER is big-endian, whatever the
  // kernel runs in (DEVICE_NATIVE_ENDIAN).
  bool swapped_ = false;
};

Result<std::string> prove_registers(const Edu& edu) {
  // Random in each run: the register keeps its last answer, which could pass for an answer to a lost write.
  const std::uint32_t question = std::random_device()();
  const std::uint32_t identification = edu.read(&Registers::identification);
  if ((identification & 0xffff) != 0x00ed) {
    return failure(proof_error(EIO, "register", "edu's identification",
                               fmt::format("read {:#010x}, expected 0x....00ed", identification)));
  }
  edu.write(&Registers::liveness, question);
  // A simulated device polls its registers, so its answer takes time.
  std::uint32_t answer = 0;
  const auto has_answered = [&] { return (answer = edu.read(&Registers::liveness)) == ~question; };
  if (!poll_until(Deadline(1s), 0us, has_answered)) {
    return failure(proof_error(EIO, "register", "edu's liveness check",
                               fmt::format("wrote {:#x}, read {:#x}, expected {:#x}", question, answer, ~question)));
  }
  return fmt::format("identification {:#010x}, liveness check passed", identification);
}

Result<std::string> prove_dma(ProofContext& context, const Edu& edu) {
  const auto& container = context.device.device().container();
  const auto ranges = clip_to_address_bits(context.ranges, address_bits);
  IovaAllocator allocator(ranges, container->page_sizes());
  auto source = POSTERN_TRY(DmaBuffer::allocate(container, allocator, copy_size, {.access = Access::read}));
  auto target = POSTERN_TRY(DmaBuffer::allocate(container, allocator, copy_size));

  const Poison poison(copy_size);
  constexpr std::uint64_t rounds = 2;  // the second rules out that bytes of the first are found again
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::vector<std::byte> pattern = pattern_of(copy_size, round + 1);
    std::memcpy(source.data(), pattern.data(), pattern.size());
    poison.fill(target.bytes());
    auto copied = edu.copy(static_cast<std::uint32_t>(source.iova().value), device_buffer, 0);
    if (copied) copied = edu.copy(device_buffer, static_cast<std::uint32_t>(target.iova().value), dma_to_ram);
    if (!copied) {
      // It may still be copying, which must end before the memory is unmapped.
      POSTERN_TRY(context.device.disable_bus_master());
      return failure_of(copied);
    }
    if (std::memcmp(target.data(), pattern.data(), copy_size) == 0) continue;
    const bool untouched = poison.first_left(target.bytes(), copy_size).has_value();
    return failure(proof_error(
        EIO, "compare", "memory copied through edu",
        untouched ? "nothing arrived: the DMA was blocked" : "the bytes that came back differ from those sent",
        "the kernel's log (dmesg) lists the addresses that the IOMMU blocked"));
  }
  return fmt::format("{} from {} to the device and back to {}, {} times, every byte compared", size_text(copy_size),
                     to_string(source.iova()), to_string(target.iova()), rounds);
}

Result<std::string> prove_interrupt(ProofContext& context, const Edu& edu, PciInterrupt kind) {
  auto event = POSTERN_TRY(Event::create(context.kernel()));
  POSTERN_TRY(context.device.enable(kind, std::span(&event, 1)));
  const auto started = Clock::now();
  edu.write(&Registers::interrupt_raise, 1);
  auto signals = event.wait(2s);
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  const std::uint32_t status = edu.read(&Registers::interrupt_status);
  edu.write(&Registers::interrupt_acknowledge, status);
  POSTERN_TRY(context.device.disable(kind));
  const auto received = POSTERN_TRY(signals);
  const std::string name = interrupt_name(static_cast<std::uint32_t>(kind));
  if (received == 0)
    return failure(proof_error(ETIMEDOUT, "wait", name + " of edu", "raised, but not received within 2 s"));
  return fmt::format("{} received in {}", name, duration_text(seconds));
}

void take(Steps& steps, std::string_view name, const Result<std::string>& result) {
  if (result) {
    steps.ok(name, *result);
  } else {
    steps.failed(name, result.error());
  }
}

void run_edu(ProofContext& context) {
  if (auto done = context.device.disable_bus_master(); !done) return context.steps.failed("registers", done.error());
  if (auto done = context.device.enable_memory(); !done) return context.steps.failed("registers", done.error());
  auto bar = context.device.map_bar(0);
  if (!bar) return context.steps.failed("registers", bar.error());
  auto registers = registers_at<Registers>(bar->bytes());
  if (!registers) return context.steps.failed("registers", registers.error());
  const Edu edu(std::move(*bar), **registers);
  take(context.steps, "registers", prove_registers(edu));
  // A copy that was started earlier would write to memory that this proof uses now.
  if (auto idle = edu.wait_for_copy(); !idle) return context.steps.failed("dma", idle.error());
  if (auto done = context.device.enable_bus_master(); !done) return context.steps.failed("dma", done.error());
  if (clip_to_address_bits(context.ranges, address_bits).empty()) {
    context.steps.skipped("dma", fmt::format("edu's DMA engine reaches only addresses up to {:#x}",
                                             (std::uint64_t{1} << address_bits) - 1));
  } else {
    take(context.steps, "dma", prove_dma(context, edu));
  }
  for (const PciInterrupt kind : {PciInterrupt::msi, PciInterrupt::intx}) {
    if (context.device.interrupt(kind).count > 0) {
      take(context.steps, "interrupt", prove_interrupt(context, edu, kind));
    } else {
      context.steps.skipped("interrupt", "the device has no " + interrupt_name(static_cast<std::uint32_t>(kind)));
    }
  }
  if (auto done = context.device.disable_bus_master(); !done) context.steps.failed("bus master", done.error());
}

bool is_edu(const PciFunction& function) { return function.vendor_id == 0x1234 && function.device_id == 0x11e8; }

}  // namespace

const Proof edu_proof = {.device = "edu", .fits = is_edu, .run = run_edu};

}  // namespace postern::tool
