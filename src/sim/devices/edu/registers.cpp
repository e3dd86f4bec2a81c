// SPDX-License-Identifier: Apache-2.0
// Edu: register writes, and synchronisation of the BAR's memory with the device's state.
#include <algorithm>
#include <cstring>

#include "sim/devices/edu/device.hpp"
#include "sim/devices/edu/spec.hpp"

namespace postern::sim {
namespace {

namespace at = edu::at;

// Registers with a state, as indices of words. Those of the DMA engine come last, but its command first: a driver
// writes the command after the others.
constexpr std::array<std::size_t, 12> kept = {
    at::liveness,        at::factorial,           at::status,     at::interrupt_status,
    at::dma_command,     at::dma_command + 4,     at::dma_source, at::dma_source + 4,
    at::dma_destination, at::dma_destination + 4, at::dma_count,  at::dma_count + 4};

std::uint32_t half(std::uint64_t value, std::size_t offset) {
  return static_cast<std::uint32_t>(offset % 8 == 0 ? value : value >> 32);
}

}  // namespace

void Edu::connect(Slot& slot, const Bars& bars) {
  slot_ = &slot;
  bar_ = bars[0];
  registers_ = Registers(bars[0]);
  reset();
}

// Writes a register by QEMU's rules: edu_mmio_write (QEMU 10).
void Edu::set(std::size_t offset, std::uint64_t value) {
  const auto word = static_cast<std::uint32_t>(value);
  switch (offset) {
    case at::liveness:
      state_.liveness = ~word;
      break;
    case at::factorial:
      if ((state_.status & edu::status_computing) != 0) break;
      state_.factorial = word;
      state_.status |= edu::status_computing;
      break;
    case at::status:
      state_.status = (state_.status & edu::status_computing) | (word & edu::status_interrupts);
      break;
    case at::interrupt_raise:
      raise(word);
      break;
    case at::interrupt_acknowledge:
      acknowledge(word);
      break;
    case at::dma_source:
      if (!is_copying()) state_.source = value;
      break;
    case at::dma_destination:
      if (!is_copying()) state_.destination = value;
      break;
    case at::dma_count:
      if (!is_copying()) state_.count = value;
      break;
    case at::dma_command:
      if (!is_copying() && (value & edu::command_run) != 0) state_.command = value;
      break;
    default:
      break;
  }
}

std::uint32_t Edu::value_at(std::size_t offset) const {
  switch (offset & ~std::size_t{7}) {
    case at::dma_source:
      return half(state_.source, offset);
    case at::dma_destination:
      return half(state_.destination, offset);
    case at::dma_count:
      return half(state_.count, offset);
    case at::dma_command:
      return half(state_.command, offset);
    default:
      break;
  }
  switch (offset) {
    case at::liveness:
      return state_.liveness;
    case at::factorial:
      return state_.factorial;
    case at::status:
      return state_.status;
    default:
      return state_.interrupt_status;
  }
}

bool Edu::write(std::size_t /*bar*/, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (activity_ == Activity::none) return true;  // registers of a stopped device do not change
  const bool takes_eight = offset >= at::dma_source;
  if (bytes.size() != 4 && (bytes.size() != 8 || !takes_eight)) return true;  // ignored
  (void)look();  // handles earlier writes through a mapping
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  set(offset, value);
  show();
  return true;
}

// Handles writes through a mapping since the last look. Acknowledges before it raises, so that no interrupt is lost if
// a driver does both.
bool Edu::look() {
  bool any = false;
  for (const std::size_t offset : {at::interrupt_acknowledge, at::interrupt_raise}) {
    const std::uint32_t value =
        registers_.read(offset) == edu::nothing ? edu::nothing : registers_.take(offset, edu::nothing);
    if (value == edu::nothing) continue;
    set(offset, value);
    any = true;
  }
  std::array<bool, kept.size()> written{};
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const std::uint32_t value = registers_.read(kept[i]);
    written[i] = value != shown_[i];
    shown_[i] = value;
    any = any || written[i];
  }
  if (!any) return false;
  const auto set_word = [&](std::size_t i) {
    if (written[i]) set(kept[i], shown_[i]);
  };
  const auto set_pair = [&](std::size_t i) {
    if (written[i] || written[i + 1]) set(kept[i], std::uint64_t{shown_[i + 1]} << 32 | shown_[i]);
  };
  for (const std::size_t i : {0U, 1U, 2U}) set_word(i);
  for (const std::size_t i : {6U, 8U, 10U, 4U}) set_pair(i);
  show();
  return true;
}

// A value that a driver has written meanwhile stays for the next look.
void Edu::show() {
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const std::uint32_t value = value_at(kept[i]);
    if (value != shown_[i] && registers_.replace(kept[i], shown_[i], value)) shown_[i] = value;
  }
}

void Edu::show_all() {
  std::fill(bar_.begin(), bar_.end(), std::byte{0xff});
  registers_.write(at::identification, edu::identification);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    shown_[i] = value_at(kept[i]);
    registers_.write(kept[i], shown_[i]);
  }
}

}  // namespace postern::sim
