// SPDX-License-Identifier: Apache-2.0
// Migration: state transitions.
#include "sim/migration/migration.hpp"

#include <array>

#include "sim/migration/migration_streams.hpp"

namespace postern::sim {
namespace {

constexpr std::uint8_t none = VFIO_DEVICE_STATE_ERROR;
constexpr std::uint8_t stop = VFIO_DEVICE_STATE_STOP;
constexpr std::uint8_t run = VFIO_DEVICE_STATE_RUNNING;
constexpr std::uint8_t copy = VFIO_DEVICE_STATE_STOP_COPY;
constexpr std::uint8_t load = VFIO_DEVICE_STATE_RESUMING;
constexpr std::uint8_t p2p = VFIO_DEVICE_STATE_RUNNING_P2P;
constexpr std::uint8_t pre = VFIO_DEVICE_STATE_PRE_COPY;
constexpr std::uint8_t pre_p2p = VFIO_DEVICE_STATE_PRE_COPY_P2P;

// The first step from one state (row) to another (column), in the order of their numbers; `none` if there is no path
// (vfio_mig_get_next_state, for a device that has all states).
using Steps = std::array<std::uint8_t, VFIO_DEVICE_STATE_NR>;
constexpr std::array<Steps, VFIO_DEVICE_STATE_NR> steps = {{
    {none, none, none, none, none, none, none, none},
    {none, stop, p2p, copy, load, p2p, p2p, p2p},
    {none, p2p, run, p2p, p2p, p2p, pre, p2p},
    {none, stop, stop, copy, stop, stop, none, none},
    {none, stop, stop, stop, load, stop, stop, stop},
    {none, stop, run, stop, stop, p2p, run, pre_p2p},
    {none, run, run, pre_p2p, run, run, pre, pre_p2p},
    {none, p2p, p2p, copy, p2p, p2p, pre, pre_p2p},
}};

// States that share a stream.
bool is_saving(std::uint32_t state) { return state == pre || state == pre_p2p || state == copy; }

Migratable::Activity activity_in(std::uint32_t state) {
  if (state == run || state == pre) return Migratable::Activity::full;
  return state == p2p || state == pre_p2p ? Migratable::Activity::no_dma : Migratable::Activity::none;
}

}  // namespace

int Migration::set_state(std::uint32_t wanted, std::shared_ptr<File>& opened) {
  while (state() != wanted) {
    const std::uint32_t next = wanted < steps.size() ? steps[state()][wanted] : none;
    if (next == none) return -EINVAL;
    if (const int result = step(next, opened); result < 0) return result;
    status_->state = next;
  }
  return 0;
}

int Migration::step(std::uint32_t next, std::shared_ptr<File>& opened) {
  if (state() == load) {
    if (const int result = resuming_->finish(hardware_); result < 0) return result;
    end_streams();
  }
  hardware_.set_activity(activity_in(next));
  if (!is_saving(state()) && is_saving(next)) {
    saving_ = std::make_shared<SavingStream>(hardware_, process_, status_);
    opened = saving_;
  } else if (status_->is_precopy() && next == copy) {
    saving_->finish();
  } else if (is_saving(state()) && !is_saving(next)) {
    end_streams();
  } else if (next == load) {
    resuming_ = std::make_shared<ResumingStream>(process_);
    opened = resuming_;
  }
  return 0;
}

// An open stream reports its end from now on.
void Migration::end_streams() {
  if (saving_) saving_->end();
  if (resuming_) resuming_->end();
  saving_.reset();
  resuming_.reset();
}

std::uint64_t Migration::data_size() const { return SavingStream::chunk_of(hardware_).size(); }

void Migration::reset() {
  end_streams();
  status_->state = VFIO_DEVICE_STATE_RUNNING;
  hardware_.set_activity(Migratable::Activity::full);
}

}  // namespace postern::sim
