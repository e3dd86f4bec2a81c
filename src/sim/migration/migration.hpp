// SPDX-License-Identifier: Apache-2.0
// Migration: the migration states of a device, and the streams of its data (linux/vfio.h, enum vfio_device_mig_state;
// Linux 7.3).
#pragma once

#include <linux/vfio.h>

#include <cstdint>
#include <memory>

#include "sim/devices/hardware.hpp"
#include "sim/process/file.hpp"

namespace postern::sim {

class Process;
class SavingStream;
class ResumingStream;

// Data that the streams share with their device, also after they have ended.
struct MigrationStatus {
  std::uint32_t state = VFIO_DEVICE_STATE_RUNNING;
  bool tells_precopy_flags = false;

  [[nodiscard]] bool is_precopy() const noexcept {
    return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
  }
};

class Migration {
 public:
  static constexpr std::uint64_t flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;

  Migration(Migratable& hardware, Process& process) : hardware_(hardware), process_(process) {}
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;
  ~Migration() { end_streams(); }

  [[nodiscard]] std::uint32_t state() const noexcept { return status_->state; }
  // Changes the state, through as many intermediate states as needed: 0 or a negated errno, after which it is in the
  // last state reached. `opened` gets the stream if one starts.
  [[nodiscard]] int set_state(std::uint32_t wanted, std::shared_ptr<File>& opened);
  // The length of the whole stream of a stopped device.
  [[nodiscard]] std::uint64_t data_size() const;
  // VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: the flags of vfio_precopy_info are valid.
  void tell_precopy_flags() { status_->tells_precopy_flags = true; }
  // The device was reset, and is running.
  void reset();

 private:
  [[nodiscard]] int step(std::uint32_t next, std::shared_ptr<File>& opened);
  void end_streams();

  Migratable& hardware_;
  Process& process_;
  std::shared_ptr<MigrationStatus> status_ = std::make_shared<MigrationStatus>();
  std::shared_ptr<SavingStream> saving_;
  std::shared_ptr<ResumingStream> resuming_;
};

}  // namespace postern::sim
