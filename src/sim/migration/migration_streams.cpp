// SPDX-License-Identifier: Apache-2.0
// SavingStream and ResumingStream: read and write chunks. Errnos that linux/vfio.h does not specify are those of
// virtio's driver (drivers/vfio/pci/virtio/migrate.c, Linux 7.3).
#include "sim/migration/migration_streams.hpp"

#include <linux/vfio.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "sim/process/argument.hpp"

namespace postern::sim {
namespace {

constexpr std::uint64_t chunk_mark = 0x65746174732e7665;

// The header of each chunk.
struct Header {
  std::uint64_t mark = chunk_mark;
  std::uint64_t length = 0;  // of the state that follows
};

}  // namespace

std::vector<std::byte> SavingStream::chunk_of(const Migratable& hardware) {
  const std::vector<std::byte> state = hardware.save();
  const Header header{.length = state.size()};
  std::vector<std::byte> chunk(sizeof header + state.size());
  std::memcpy(chunk.data(), &header, sizeof header);
  std::copy(state.begin(), state.end(), chunk.begin() + sizeof header);
  return chunk;
}

SavingStream::SavingStream(const Migratable& hardware, Process& process, std::shared_ptr<const MigrationStatus> status)
    : hardware_(&hardware), process_(process), status_(std::move(status)) {
  add_chunk();
  initial_ = bytes_.size();
}

void SavingStream::add_chunk() {
  last_ = chunk_of(*hardware_);
  bytes_.insert(bytes_.end(), last_.begin(), last_.end());
}

bool SavingStream::has_changed() const { return chunk_of(*hardware_) != last_; }

void SavingStream::finish() {
  if (has_changed()) add_chunk();
}

// At the end of a running device's data, read returns ENOMSG: more may follow.
ssize_t SavingStream::read(void* buffer, std::size_t length) {
  if (hardware_ == nullptr) return -ENODEV;
  if (length == 0) return 0;
  if (at_ == bytes_.size() && status_->is_precopy()) {
    if (!has_changed()) return -ENOMSG;
    add_chunk();
  }
  const std::size_t count = std::min(length, bytes_.size() - at_);
  if (count == 0) return 0;
  if (process_.check_argument(reinterpret_cast<std::uintptr_t>(buffer), count, true) < 0) return -EFAULT;
  std::memcpy(buffer, bytes_.data() + at_, count);
  at_ += count;
  return static_cast<ssize_t>(count);
}

int SavingStream::ioctl(unsigned long request, void* argument) {
  if (request != VFIO_MIG_GET_PRECOPY_INFO) return -ENOTTY;
  return with_argument<vfio_precopy_info>(process_, argument, sizeof(vfio_precopy_info),
                                          [this](auto& info) { return get_precopy_info(info); });
}

// vfio_check_precopy_ioctl, virtiovf_precopy_ioctl
int SavingStream::get_precopy_info(vfio_precopy_info& info) {
  if (info.argsz < sizeof info || !status_->is_precopy()) return -EINVAL;
  if (hardware_ == nullptr) return -ENODEV;
  if (status_->tells_precopy_flags) info.flags = 0;  // there is never new initial data
  info.initial_bytes = initial_ - std::min(at_, initial_);
  info.dirty_bytes = bytes_.size() - std::max(at_, initial_) + (has_changed() ? last_.size() : 0);
  return 0;
}

ssize_t ResumingStream::write(const void* buffer, std::size_t length) {
  if (has_ended_) return -ENODEV;
  if (length > most - bytes_.size()) return -ENOMEM;
  if (length == 0) return 0;
  if (process_.check_argument(reinterpret_cast<std::uintptr_t>(buffer), length, false) < 0) return -EFAULT;
  const std::span added(static_cast<const std::byte*>(buffer), length);
  bytes_.insert(bytes_.end(), added.begin(), added.end());
  return static_cast<ssize_t>(length);
}

// An incomplete state is refused, and the device is unchanged.
int ResumingStream::finish(Migratable& hardware) const {
  std::span<const std::byte> rest(bytes_);
  std::span<const std::byte> state;
  do {
    Header header;
    if (rest.size() < sizeof header) return -EINVAL;
    std::memcpy(&header, rest.data(), sizeof header);
    rest = rest.subspan(sizeof header);
    if (header.mark != chunk_mark || header.length > rest.size()) return -EINVAL;
    state = rest.first(header.length);
    rest = rest.subspan(header.length);
  } while (!rest.empty());
  return hardware.load(state) ? 0 : -EINVAL;
}

}  // namespace postern::sim
