// SPDX-License-Identifier: Apache-2.0
// Migration: the states of a device that migrates, and the streams that its own state goes through (linux/vfio.h, enum
// vfio_device_mig_state; Linux 7.3).
#pragma once

#include <linux/vfio.h>

#include <cstdint>
#include <memory>

#include "sim/file.hpp"
#include "sim/hardware.hpp"

namespace postern::sim {

class SavingStream;
class ResumingStream;

class Migration {
 public:
  static constexpr std::uint64_t flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;

  explicit Migration(Migratable& hardware) : hardware_(hardware) {}
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;
  ~Migration() { end_streams(); }

  [[nodiscard]] std::uint32_t state() const noexcept { return state_; }
  // Through as many states as it takes: 0 or a negated errno, and then it is in the last that it reached. `opened` gets
  // the stream where one begins.
  [[nodiscard]] int set_state(std::uint32_t wanted, std::shared_ptr<File>& opened);
  // How much the stream has, all in all, of a device that is stopped.
  [[nodiscard]] std::uint64_t data_size() const;
  // VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: the flags of vfio_precopy_info tell something.
  void tell_precopy_flags() { tells_precopy_flags_ = true; }
  // The device was reset: it runs.
  void reset();

 private:
  [[nodiscard]] int step(std::uint32_t next, std::shared_ptr<File>& opened);
  void end_streams();

  Migratable& hardware_;
  std::uint32_t state_ = VFIO_DEVICE_STATE_RUNNING;
  bool tells_precopy_flags_ = false;
  std::shared_ptr<SavingStream> saving_;
  std::shared_ptr<ResumingStream> resuming_;
};

}  // namespace postern::sim
