// SPDX-License-Identifier: Apache-2.0
// LyingNvme: wraps the simulated NVMe controller, and can falsify its registers, its commands and their completions,
// and suppress its interrupts.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/devices/registers.hpp"

namespace postern::test {

// A command fetched from an I/O queue.
struct NvmeCommand {
  std::uint8_t opcode = 0;  // 0 Flush, 1 Write, 2 Read
  std::uint64_t block = 0;
};

// How a command is handled.
struct NvmeFate {
  bool is_run = true;
  bool is_answered = true;
  std::uint16_t status = 0;  // if not 0, replaces the real status
  bool is_lost = false;      // run as a Flush, which succeeds
  bool arrives = true;       // its data is written to memory
  bool strays = false;       // its data is also written to the next page
};

// The functions run in the simulated machine's thread. Set them before the device is opened.
struct NvmeLies {
  // A reset clears these two.
  std::atomic<bool> ignores_disable = false;  // clearing CC.EN has no effect
  std::atomic<bool> holds_admin = false;      // doorbells of the admin queue are held back
  // These stay until the test clears them.
  std::atomic<bool> holds_io = false;  // doorbells of the other queues are held back
  std::atomic<bool> no_interrupts = false;
  std::atomic<bool> is_gone = false;      // every register reads as all ones
  std::atomic<bool> is_fatal = false;     // CSTS.CFS while it is ready
  std::atomic<bool> stays_fatal = false;  // CSTS.CFS always
  std::function<void()> on_disable;       // called when clearing CC.EN was ignored
  std::function<NvmeFate(const NvmeCommand&)> fate;
  std::function<void(const NvmeCommand&, const NvmeFate&)> after;  // called before the completion's phase is set
};

class LyingNvme final : public sim::Hardware, private sim::Slot {
 public:
  LyingNvme(std::unique_ptr<sim::Hardware> honest, NvmeLies& lies) : honest_(std::move(honest)), lies_(lies) {}

  [[nodiscard]] const sim::HardwareInfo& info() const override { return honest_->info(); }
  void connect(sim::Slot& slot, const sim::Bars& bars) override {
    slot_ = &slot;
    shown_ = sim::Registers(bars[0]);
    bar_.assign(bars[0].size() / sizeof(std::uint32_t), 0);
    hidden_ = sim::Registers(std::as_writable_bytes(std::span(bar_)));
    honest_->connect(*this, {std::as_writable_bytes(std::span(bar_))});
    show();
  }
  void reset() override {
    lies_.ignores_disable = false;
    lies_.holds_admin = false;
    honest_->reset();
    shown_.clear();
    show();
  }
  [[nodiscard]] bool poll() override {
    pass_on_configuration();
    for (std::size_t at = doorbells; at < doorbells_end; at += sizeof(std::uint32_t)) {
      const bool is_admin = at < doorbells + 8;
      if (is_admin ? lies_.holds_admin : lies_.holds_io) continue;
      if (const std::uint32_t rung = shown_.take(at, untouched); rung != untouched) hidden_.write(at, rung);
    }
    const bool worked = honest_->poll();
    show_state();
    return worked;
  }

 private:
  static constexpr std::size_t cap = 0x00;
  static constexpr std::size_t vs = 0x08;
  static constexpr std::size_t cc = 0x14;
  static constexpr std::size_t csts = 0x1c;
  static constexpr std::size_t aqa = 0x24;
  static constexpr std::size_t queues_end = 0x38;
  static constexpr std::size_t asq = 0x28;
  static constexpr std::size_t doorbells = 0x1000;
  static constexpr std::size_t doorbells_end = doorbells + 8 * std::size_t{65};
  static constexpr std::uint32_t untouched = 0xfffffffe;  // drivers never write this to a doorbell

  void show() {
    for (std::size_t at = doorbells; at < doorbells_end; at += sizeof(std::uint32_t)) shown_.write(at, untouched);
    was_enabled_ = false;
    show_state();
  }
  void show_state() {
    constexpr std::uint32_t half_a_second = 1U << 24;  // CAP.TO, to keep tests short
    const std::uint32_t true_status = hidden_.read(csts);
    const bool is_ready = (true_status & 1) != 0;
    const bool is_fatal = lies_.stays_fatal || (lies_.is_fatal && is_ready);
    const auto ones = [this](std::uint32_t value) { return lies_.is_gone ? ~std::uint32_t{0} : value; };
    shown_.write(cap, ones((hidden_.read(cap) & 0x00ffffff) | half_a_second));
    shown_.write(cap + 4, ones(hidden_.read(cap + 4)));
    shown_.write(vs, ones(hidden_.read(vs)));
    shown_.write(csts, ones(true_status | (is_fatal ? 2U : 0U)));
  }
  void pass_on_configuration() {
    for (std::size_t at = aqa; at < queues_end; at += sizeof(std::uint32_t)) hidden_.write(at, shown_.read(at));
    const std::uint32_t wanted = shown_.read(cc);
    const bool is_enabled = (wanted & 1) != 0;
    const bool is_disabling = was_enabled_ && !is_enabled;
    was_enabled_ = is_enabled;
    if (lies_.ignores_disable && (hidden_.read(cc) & 1) != 0 && !is_enabled) {
      if (is_disabling && lies_.on_disable) lies_.on_disable();
      shown_.write(cc, wanted | 1);  // the driver still sees it enabled
      was_enabled_ = true;
      return;
    }
    hidden_.write(cc, wanted);
  }

  // DMA of the wrapped controller. A read of 64 bytes is a submission entry; a write of 16 bytes, then one byte for the
  // phase, is a completion; data has other sizes.
  [[nodiscard]] bool dma_read(Iova iova, std::span<std::byte> bytes) override {
    const bool arrived = slot_->dma_read(iova, bytes);
    const bool is_admin = iova.value - hidden_.read64(asq) < 4096;
    if (bytes.size() != 64) return arrived;
    is_io_ = arrived && !is_admin;
    if (!is_io_) return arrived;
    command_ = {.opcode = std::to_integer<std::uint8_t>(bytes[0]), .block = 0};
    for (std::size_t i = 8; i-- > 0;)
      command_.block = command_.block << 8 | std::to_integer<std::uint8_t>(bytes[40 + i]);
    fate_ = lies_.fate ? lies_.fate(command_) : NvmeFate{};
    constexpr std::byte no_such_opcode{0x7f};
    if (!fate_.is_run) bytes[0] = no_such_opcode;
    if (fate_.is_lost) bytes[0] = std::byte{0};
    return true;
  }
  [[nodiscard]] bool dma_write(Iova iova, std::span<const std::byte> bytes) override {
    if (!is_io_) return slot_->dma_write(iova, bytes);
    if (bytes.size() != 16 && bytes.size() != 1) {
      if (fate_.strays) (void)slot_->dma_write(iova + 4096, bytes);
      return !fate_.arrives || slot_->dma_write(iova, bytes);
    }
    const bool is_phase = bytes.size() == 1;
    if (is_phase) is_io_ = false;
    if (is_phase && lies_.after) lies_.after(command_, fate_);
    if (!fate_.is_answered) return true;
    if (fate_.status == 0) return slot_->dma_write(iova, bytes);
    std::vector<std::byte> altered(bytes.begin(), bytes.end());
    const std::uint32_t status = std::uint32_t{fate_.status} << 1;
    std::byte& low = altered[is_phase ? 0 : 14];
    low = (low & std::byte{1}) | static_cast<std::byte>(status & 0xfe);
    if (!is_phase) altered[15] = static_cast<std::byte>(status >> 8);
    return slot_->dma_write(iova, altered);
  }
  void interrupt(std::uint32_t vector) override {
    if (!lies_.no_interrupts) slot_->interrupt(vector);
  }
  [[nodiscard]] bool signals_messages() const override { return slot_->signals_messages(); }
  void set_line(bool up) override { slot_->set_line(up); }

  std::unique_ptr<sim::Hardware> honest_;
  NvmeLies& lies_;
  sim::Slot* slot_ = nullptr;
  sim::Registers shown_;   // seen by the driver
  sim::Registers hidden_;  // of the wrapped controller
  std::vector<std::uint32_t> bar_;
  bool was_enabled_ = false;
  bool is_io_ = false;  // a command of an I/O queue is being run
  NvmeCommand command_;
  NvmeFate fate_;
};

}  // namespace postern::test
