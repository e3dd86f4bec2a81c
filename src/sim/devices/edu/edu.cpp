// SPDX-License-Identifier: Apache-2.0
// Edu: the factorial, the DMA engine and the interrupts, one step at each poll.
#include "sim/devices/edu/edu.hpp"

#include <cstring>
#include <postern/iova.hpp>

#include "sim/devices/edu/device.hpp"
#include "sim/devices/edu/spec.hpp"

namespace postern::sim {

std::unique_ptr<Hardware> make_edu() {
  return std::make_unique<Edu>(HardwareInfo{.vendor = 0x1234,
                                            .device = 0x11e8,
                                            .class_code = 0x00ff00,
                                            .revision = 0x10,
                                            .bars = {{{.size = 1 << 20, .kind = Bar::Kind::memory32}}},
                                            .msi_vectors = 1,
                                            .is_express = false,
                                            .has_flr = false});
}

std::unique_ptr<Hardware> make_migratable_edu() {
  return std::make_unique<Edu>(HardwareInfo{.vendor = 0x1234,
                                            .device = 0x11e9,
                                            .class_code = 0x00ff00,
                                            .revision = 0x10,
                                            .bars = {{{.size = 1 << 20, .kind = Bar::Kind::memory32}}},
                                            .msi_vectors = 1,
                                            .variant_driver = "edu-vfio-pci"});
}

void Edu::reset() {
  state_ = {};
  activity_ = Activity::full;
  slot_->set_line(false);
  show_all();
}

// Executes requests at the next poll, so that a driver sees that it has to wait.
bool Edu::poll() {
  if (activity_ == Activity::none) return false;
  const bool worked = work();
  return look() || worked;
}

bool Edu::is_copying() const { return (state_.command & edu::command_run) != 0; }

bool Edu::work() {
  const bool computes = (state_.status & edu::status_computing) != 0;
  const bool copies = is_copying() && activity_ == Activity::full;
  if (computes) compute_factorial();
  if (copies) copy();
  return computes || copies;
}

void Edu::compute_factorial() {
  std::uint32_t product = 1;
  for (std::uint32_t factor = state_.factorial; factor > 1 && product != 0; --factor) product *= factor;
  state_.factorial = product;
  state_.status &= ~edu::status_computing;
  show();
  if ((state_.status & edu::status_interrupts) != 0) raise(edu::interrupt_factorial);
}

// A copy beyond the device's memory copies nothing; QEMU 7.2 aborts the machine (edu_check_range).
void Edu::copy() {
  const bool to_memory = (state_.command & edu::command_to_memory) != 0;
  const std::uint64_t offset = (to_memory ? state_.source : state_.destination) - edu::buffer_at;
  if (state_.count <= buffer_size && offset <= buffer_size - state_.count) {
    const auto bytes = std::span(state_.buffer).subspan(offset, state_.count);
    const Iova iova{(to_memory ? state_.destination : state_.source) & edu::dma_mask};
    // Blocked DMA completes like any other.
    (void)(to_memory ? slot_->dma_write(iova, bytes) : slot_->dma_read(iova, bytes));
  }
  state_.command &= ~edu::command_run;
  show();
  if ((state_.command & edu::command_interrupts) != 0) raise(edu::interrupt_dma);
}

// Handles earlier writes of the driver first. A pending level interrupt is raised again.
void Edu::set_activity(Activity activity) {
  if (activity_ != Activity::none) (void)look();
  if (is_copying() && activity_ == Activity::full) copy();
  activity_ = activity;
  if (activity == Activity::none) return;
  if (state_.interrupt_status != 0 && !slot_->signals_messages()) slot_->set_line(true);
}

std::vector<std::byte> Edu::save() const {
  const auto bytes = std::as_bytes(std::span(&state_, 1));
  return {bytes.begin(), bytes.end()};
}

bool Edu::load(std::span<const std::byte> state) {
  if (state.size() != sizeof state_) return false;
  std::memcpy(&state_, state.data(), sizeof state_);
  show_all();
  return true;
}

// A driver that receives the interrupt sees its cause.
void Edu::raise(std::uint32_t bits) {
  state_.interrupt_status |= bits;
  show();
  if (state_.interrupt_status == 0) return;
  if (slot_->signals_messages()) {
    slot_->interrupt(0);
  } else {
    slot_->set_line(true);
  }
}

void Edu::acknowledge(std::uint32_t bits) {
  state_.interrupt_status &= ~bits;
  if (state_.interrupt_status == 0 && !slot_->signals_messages()) slot_->set_line(false);
}

}  // namespace postern::sim
