// SPDX-License-Identifier: Apache-2.0
// Lent: a device of a simulated kernel, and a session on it whose messages need no socket.
#pragma once

#include <algorithm>
#include <optional>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <utility>

#include "unit/vfio_user/messages.hpp"
#include "vfio_user/server/session.hpp"

namespace postern::vfio_user::rig {

// Slots of the default host.
inline constexpr std::uint8_t nvme_slot = 1;
inline constexpr std::uint8_t edu_slot = 4;  // it has no reset

inline Result<Device> attach_to(Kernel& kernel, std::string_view backend, std::uint8_t slot) {
  auto function = find_pci_function(kernel, {.device = slot});
  if (!function) return failure_of(function);
  return attach(kernel, function->host, {.backend = backend});
}

class Lent {
 public:
  Lent(Kernel& kernel, std::string_view backend, std::uint8_t slot, Policy policy = {})
      : kernel_(kernel), policy_(std::move(policy)), device_(attach_to(kernel, backend, slot).value()) {
    start_anew();
  }

  // The next client's session.
  void start_anew() {
    told_.clear();
    session_.emplace(device_, policy_, [this](ServerEvent::Kind kind, const std::string& reason) {
      told_.push_back(kind);
      reason_ = reason;
    });
  }

  // Sends a message with copies of its descriptors.
  Reply call(const Call& message) {
    std::vector<Fd> fds;
    for (const int fd : message.fds) fds.emplace_back(kernel_, ::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return session_->handle(header_of(message), message.body, std::move(fds));
  }
  int error_of(const Call& message) { return call(message).error(); }

  // What a read gives; zeros, and a failure, if it is refused.
  template <typename Value>
  Value read(std::uint32_t region, std::uint64_t offset) {
    const Reply reply = call(read_region(region, offset, sizeof(Value)));
    EXPECT_EQ(reply.error(), 0);
    return at<Value>(reply.body(), sizeof(RegionAccessBody));
  }
  template <typename Value>
  void write(std::uint32_t region, std::uint64_t offset, Value value) {
    EXPECT_EQ(error_of(write_region(region, offset, value)), 0);
  }

  // What a server does when the client has gone, if the device has a reset.
  void take_back() {
    const auto quiet = session_->quiesce();
    EXPECT_TRUE(quiet) << quiet.error().message();
    const auto reset = device_.can_reset() ? device_.reset() : Result<void>();
    EXPECT_TRUE(reset) << reset.error().message();
    const auto unmapped = session_->unmap_all();
    EXPECT_TRUE(unmapped) << unmapped.error().message();
    EXPECT_EQ(container().mapping_count(), 0U);
    EXPECT_EQ(session_->mapped(), 0U);
  }

  [[nodiscard]] Session& session() { return *session_; }
  [[nodiscard]] const Device& device() const { return device_; }
  [[nodiscard]] Container& container() const { return *device_.container(); }
  // How often the operator was told of this; and why, the last time.
  [[nodiscard]] std::ptrdiff_t times_told(ServerEvent::Kind kind) const {
    return std::count(told_.begin(), told_.end(), kind);
  }
  [[nodiscard]] const std::string& reason() const { return reason_; }

 private:
  Kernel& kernel_;
  Policy policy_;
  Device device_;
  std::vector<ServerEvent::Kind> told_;
  std::string reason_;
  std::optional<Session> session_;
};

// A session that has begun.
class Begun : public Lent {
 public:
  Begun(Kernel& kernel, std::string_view backend, std::uint8_t slot, Policy policy = {})
      : Lent(kernel, backend, slot, std::move(policy)) {
    EXPECT_EQ(error_of(version()), 0);
  }
};

// On a new simulated machine, by each backend that a PC has.
class OnEachBackend : public ::testing::TestWithParam<const char*> {
 protected:
  sim::Kernel simulated_;
  sim::FailingKernel kernel_{simulated_};
};
inline const auto each_backend = ::testing::Values("iommufd", "type1");
inline std::string backend_name(const ::testing::TestParamInfo<const char*>& test) { return test.param; }

}  // namespace postern::vfio_user::rig
