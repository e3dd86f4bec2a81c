// SPDX-License-Identifier: Apache-2.0
// SavingStream and ResumingStream: the files from which a device's state is read, and to which it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/migration/migration.hpp"
#include "sim/process/file.hpp"
#include "sim/process/process.hpp"

namespace postern::sim {

// A stream is a sequence of chunks, each with the whole state of the device: the last one counts. While the device
// runs, there is a new chunk whenever its state has changed since the last.
class SavingStream final : public File {
 public:
  SavingStream(const Migratable& hardware, Process& process, std::shared_ptr<const MigrationStatus> status);

  // stream_open: no offsets.
  [[nodiscard]] ssize_t pread(void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override {
    return -ESPIPE;
  }
  [[nodiscard]] ssize_t pwrite(const void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override {
    return -ESPIPE;
  }
  [[nodiscard]] ssize_t read(void* buffer, std::size_t length) override;
  [[nodiscard]] ssize_t write(const void* /*buffer*/, std::size_t /*length*/) override { return -EBADF; }
  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;  // VFIO_MIG_GET_PRECOPY_INFO

  // The device has stopped; this is its final state.
  void finish();
  // The stream has ended.
  void end() { hardware_ = nullptr; }

  [[nodiscard]] static std::vector<std::byte> chunk_of(const Migratable& hardware);

 private:
  [[nodiscard]] bool has_changed() const;
  void add_chunk();

  [[nodiscard]] int get_precopy_info(vfio_precopy_info& info);

  const Migratable* hardware_;
  Process& process_;
  std::shared_ptr<const MigrationStatus> status_;
  std::vector<std::byte> last_;  // chunk
  std::vector<std::byte> bytes_;
  std::size_t initial_ = 0;
  std::size_t at_ = 0;
};

class ResumingStream final : public File {
 public:
  explicit ResumingStream(Process& process) : process_(process) {}

  [[nodiscard]] ssize_t pread(void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override {
    return -ESPIPE;
  }
  [[nodiscard]] ssize_t pwrite(const void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override {
    return -ESPIPE;
  }
  [[nodiscard]] ssize_t read(void* /*buffer*/, std::size_t /*length*/) override { return -EBADF; }
  [[nodiscard]] ssize_t write(const void* buffer, std::size_t length) override;
  // do_mmap: an fd that is not open for reading cannot be mapped.
  [[nodiscard]] std::intptr_t mmap(void* /*address*/, std::size_t /*length*/, int /*protection*/, int /*flags*/,
                                   std::uint64_t /*offset*/) override {
    return -EACCES;
  }

  // Loads the written state: 0, or -EINVAL if it is incomplete.
  [[nodiscard]] int finish(Migratable& hardware) const;
  void end() { has_ended_ = true; }

 private:
  static constexpr std::size_t most = std::size_t{64} << 20;

  Process& process_;
  std::vector<std::byte> bytes_;
  bool has_ended_ = false;
};

}  // namespace postern::sim
