// SPDX-License-Identifier: Apache-2.0
// Regions that a client maps by a file: what it is told of them, what it reaches, and what becomes of the device then.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <array>
#include <chrono>
#include <memory>
#include <postern-vfio-user/server.hpp>
#include <postern/deadline.hpp>

#include "unit/vfio_user/served.hpp"

namespace postern::vfio_user {
namespace region_file_test {

using rig::at;
using rig::Call;
using rig::nvme_slot;
using ::testing::HasSubstr;
using Kind = ServerEvent::Kind;

constexpr std::uint32_t aqa = 0x24;  // a register of the NVMe that keeps what is written

// Reports two parts of BAR 0 as mappable instead of all of it.
class SparseKernel final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    const int result = ForwardingKernel::ioctl(fd, request, argument);
    if (request != VFIO_DEVICE_GET_REGION_INFO || result < 0) return result;
    struct Answer {
      vfio_region_info info;
      vfio_info_cap_header header;
      std::uint32_t count;
      std::uint32_t reserved;
      std::array<vfio_region_sparse_mmap_area, 2> areas;
    };
    auto& answer = *static_cast<Answer*>(argument);
    if (answer.info.index != 0) return result;
    answer.info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
    if (answer.info.argsz >= sizeof(Answer)) {
      answer.info.cap_offset = sizeof answer.info;
      answer.header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1, .next = 0};
      answer.count = 2;
      answer.areas = {{{.offset = 0, .size = 0x1000}, {.offset = 0x3000, .size = 0x1000}}};
    } else {
      answer.info.cap_offset = 0;
    }
    answer.info.argsz = sizeof(Answer);
    return result;
  }
};

class ARegionFile : public rig::OnEachBackend {
 protected:
  // What a server of a simulated device gives.
  [[nodiscard]] Session::OpenRegion bars() {
    return [this](const Device& device, const Region& region) -> Result<RegionFile> {
      std::uint64_t offset = region.offset;
      const int fd = simulated_.open_bars(device.fd(), offset);
      if (fd < 0) return failure_from(fd, "open_bars");
      return RegionFile{.fd = Fd(kernel_, fd), .offset = offset};
    };
  }
  [[nodiscard]] std::unique_ptr<Session> begin(const Device& device, Session::OpenRegion open) {
    const auto tell = [this](Kind kind, const std::string& reason) {
      told_.push_back(kind);
      reason_ = reason;
    };
    auto session = std::make_unique<Session>(device, policy_, tell, std::move(open));
    EXPECT_EQ(ask(*session, rig::version()).error(), 0);
    return session;
  }
  static Reply ask(Session& session, const Call& call) { return session.handle(rig::header_of(call), call.body, {}); }
  static Call region_info(std::uint32_t index, std::uint32_t argsz) {
    Call call = rig::region_info(index);
    std::memcpy(call.body.data(), &argsz, sizeof argsz);
    return call;
  }
  Device attach(Kernel& kernel) { return rig::attach_to(kernel, GetParam(), nvme_slot).value(); }

  Policy policy_;
  std::vector<Kind> told_;
  std::string reason_;
};

TEST_P(ARegionFile, IsTheDevicesMemory) {
  const Device device = attach(kernel_);
  const auto begun = begin(device, bars());
  Session& session = *begun;
  Reply reply = ask(session, rig::region_info(0));
  const auto info = at<RegionInfoBody>(reply.body());
  EXPECT_EQ(reply.body().size(), sizeof info);
  EXPECT_EQ(info.flags,
            std::uint32_t{VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP});
  ASSERT_TRUE(reply.fd());
  EXPECT_TRUE(session.gave_file());
  void* const address =
      ::mmap(nullptr, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, reply.fd().get(), static_cast<off_t>(info.offset));
  ASSERT_NE(address, MAP_FAILED);
  const Mmap bar(system_kernel(), address, info.size);
  std::uint64_t capabilities = 0;
  ASSERT_TRUE(device.read(0, 0, std::as_writable_bytes(std::span(&capabilities, 1))));
  EXPECT_EQ(at<std::uint64_t>(bar.bytes()), capabilities);
  const std::uint32_t written = 0x001f001f;
  ASSERT_EQ(ask(session, rig::set_command(PCI_COMMAND_MEMORY)).error(), 0);
  *reinterpret_cast<volatile std::uint32_t*>(bar.data() + aqa) = written;
  const auto is_there = [&] {
    std::uint32_t value = 0;
    return device.read(0, aqa, std::as_writable_bytes(std::span(&value, 1))) && value == written;
  };
  EXPECT_TRUE(poll_until(Deadline(std::chrono::seconds(30)), std::chrono::milliseconds(1), is_there));
  EXPECT_EQ(session.accesses(), 0U) << "config space does not count";
  EXPECT_EQ(ask(session, rig::read_region(0, aqa, 4)).error(), 0) << "messages do, too";
  EXPECT_EQ(session.accesses(), 1U);
}

TEST_P(ARegionFile, IsNotOfRegionsThatCannotBeMapped) {
  const Device device = attach(kernel_);
  const auto begun = begin(device, bars());
  Session& session = *begun;
  for (const std::uint32_t index : {1U, 6U, 7U, 8U}) {
    Reply reply = ask(session, rig::region_info(index));
    EXPECT_FALSE(reply.fd()) << index;
    EXPECT_EQ(at<RegionInfoBody>(reply.body()).flags & VFIO_REGION_INFO_FLAG_MMAP, 0U) << index;
  }
  EXPECT_FALSE(session.gave_file());
  EXPECT_TRUE(told_.empty());
}

TEST_P(ARegionFile, ComesWithThePartsThatCanBeMapped) {
  SparseKernel kernel(kernel_);
  const Device device = attach(kernel);
  ASSERT_EQ(device.regions()[0].mappable_areas.size(), 2U);
  const auto begun = begin(device, bars());
  Session& session = *begun;
  constexpr std::uint32_t whole = sizeof(RegionInfoBody) + 16 + 32;  // with two parts
  for (const std::uint32_t argsz : {std::uint32_t{sizeof(RegionInfoBody)}, whole - 1}) {
    Reply reply = ask(session, region_info(0, argsz));
    const auto info = at<RegionInfoBody>(reply.body());
    EXPECT_EQ(reply.body().size(), sizeof info);
    EXPECT_EQ(info.argsz, whole) << "what would be needed";
    EXPECT_EQ(info.cap_offset, 0U);
    EXPECT_FALSE(reply.fd());
  }
  EXPECT_FALSE(session.gave_file());
  Reply reply = ask(session, region_info(0, whole));
  const auto info = at<RegionInfoBody>(reply.body());
  EXPECT_EQ(reply.body().size(), whole);
  EXPECT_EQ(info.argsz, whole);
  ASSERT_EQ(info.cap_offset, sizeof info);
  EXPECT_NE(info.flags & VFIO_REGION_INFO_FLAG_CAPS, 0U);
  EXPECT_EQ(at<vfio_info_cap_header>(reply.body(), sizeof info).id, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
  EXPECT_EQ(at<std::uint32_t>(reply.body(), sizeof info + 8), 2U);
  const auto second = at<vfio_region_sparse_mmap_area>(reply.body(), sizeof info + 32);
  EXPECT_EQ(second.offset, 0x3000U);
  EXPECT_EQ(second.size, 0x1000U);
  EXPECT_TRUE(reply.fd());
}

TEST_P(ARegionFile, ThatCannotBeOpenedIsToldOnceAndTheRegionIsTrapped) {
  const Device device = attach(kernel_);
  const auto begun = begin(device, device_fd_of);
  Session& session = *begun;  // a simulated device has no real one
  for (int times = 0; times < 2; ++times) {
    Reply reply = ask(session, rig::region_info(0));
    EXPECT_EQ(reply.error(), 0);
    EXPECT_FALSE(reply.fd());
    EXPECT_EQ(at<RegionInfoBody>(reply.body()).flags & VFIO_REGION_INFO_FLAG_MMAP, 0U);
  }
  EXPECT_THAT(told_, ::testing::ElementsAre(Kind::region_refused));
  EXPECT_THAT(reason_, HasSubstr("EBADF"));
  EXPECT_FALSE(session.gave_file());
}

// The descriptor that comes with the next answer.
Fd receive_fd(rig::Peer& peer) {
  Header header;
  iovec data{.iov_base = &header, .iov_len = sizeof header};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(4 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  EXPECT_EQ(::recvmsg(peer.fd(), &message, MSG_CMSG_CLOEXEC), static_cast<ssize_t>(sizeof header));
  const cmsghdr* const part = CMSG_FIRSTHDR(&message);
  if (part == nullptr) return {};
  EXPECT_EQ(part->cmsg_len, CMSG_LEN(sizeof(int))) << "one";
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
  std::vector<std::byte> body(header.size - sizeof header);
  EXPECT_EQ(::recv(peer.fd(), body.data(), body.size(), MSG_WAITALL), static_cast<ssize_t>(body.size()));
  return {system_kernel(), fd};
}

TEST_P(ARegionFile, IsSentAndTheDeviceIsOpenedAnewAfterwards) {
  rig::Served served(kernel_, GetParam(), nvme_slot, {.region_file = bars()});
  const std::size_t before = rig::open_files();
  for (const bool maps : {true, false}) {
    const int opened = served.times_opened();
    {
      auto ends = rig::connected(kernel_);
      rig::Serving serving(served.server(), std::move(ends.served));
      EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
      if (maps) {
        EXPECT_TRUE(ends.peer.send(rig::region_info(0)));
        EXPECT_TRUE(receive_fd(ends.peer));
      }
      EXPECT_EQ(ends.peer.error_of(rig::read_region(0, 0, 4)), 0);
      ends.peer.close();
      const auto& done = serving.wait();
      EXPECT_TRUE(done) << done.error().message();
    }
    EXPECT_EQ(served.times_opened() - opened, maps ? 1 : 0);
    EXPECT_EQ(served.told().events().back().accesses, 1U);
    served.expect_as_before(before);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ARegionFile, rig::each_backend, rig::backend_name);

}  // namespace region_file_test
}  // namespace postern::vfio_user
