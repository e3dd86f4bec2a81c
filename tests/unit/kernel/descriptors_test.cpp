// SPDX-License-Identifier: Apache-2.0
// send_fds() and receive_fds() over real sockets, with messages of others and limits that are too low.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <postern/descriptors.hpp>
#include <string>
#include <vector>

namespace postern {
namespace descriptors_test {

using ::testing::HasSubstr;

class Sockets : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, GetParam() | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    near_ = Fd(system_kernel(), ends[0]);
    far_ = Fd(system_kernel(), ends[1]);
    file_ = Fd(system_kernel(), system_kernel().memfd_create("handed over", 0));
    ASSERT_TRUE(file_);
    ASSERT_EQ(::write(file_.get(), "text", 4), 4);
  }
  static std::string text_of(int fd) {
    std::string text(4, '\0');
    EXPECT_EQ(::pread(fd, text.data(), text.size(), 0), 4);
    return text;
  }
  static std::size_t open_files() {
    std::vector<std::string> names;
    EXPECT_EQ(system_kernel().list_directory("/proc/self/fd", names), 0);
    return names.size();
  }
  [[nodiscard]] Result<std::vector<Fd>> receive(std::size_t count) const {
    return receive_fds(system_kernel(), far_.get(), count);
  }
  void expect_refused(std::size_t count, int code, const char* reason) {
    const std::size_t before = open_files();
    const auto refused = receive(count);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
    EXPECT_THAT(refused.error().message(), HasSubstr(reason));
    EXPECT_EQ(open_files(), before) << "a descriptor was left open";
  }

  Fd near_;
  Fd far_;
  Fd file_;
};

TEST_P(Sockets, CarryDescriptorsInTheirOrder) {
  const Fd null(system_kernel(), ::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::array both = {null.get(), file_.get()};
  ASSERT_TRUE(send_fds(near_.get(), both));
  file_.reset();  // what was sent is open for the receiver
  const auto received = receive(2);
  ASSERT_TRUE(received) << received.error().message();
  ASSERT_EQ(received->size(), 2U);
  EXPECT_EQ(text_of((*received)[1].get()), "text");
  char byte = 0;
  EXPECT_EQ(::read((*received)[0].get(), &byte, 1), 0) << "/dev/null";
  for (const Fd& fd : *received) EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
}

TEST_P(Sockets, KeepOneMessageApartFromTheNext) {
  const std::array one = {file_.get()};
  ASSERT_TRUE(send_fds(near_.get(), one));
  ASSERT_TRUE(send_fds(near_.get(), one));
  EXPECT_TRUE(receive(1));
  EXPECT_TRUE(receive(1));
}

TEST_P(Sockets, CarryAsManyAsTheKernelAllowsAtOnce) {
  const std::vector<int> most(253, file_.get());
  ASSERT_TRUE(send_fds(near_.get(), most));
  const auto received = receive(253);
  ASSERT_TRUE(received) << received.error().message();
  EXPECT_EQ(text_of(received->back().get()), "text");
  const std::vector<int> more(254, file_.get());
  EXPECT_EQ(send_fds(near_.get(), more).error().code(), EINVAL);
  EXPECT_EQ(send_fds(near_.get(), {}).error().code(), EINVAL);
  expect_refused(254, EINVAL, "1 to 253");
  expect_refused(0, EINVAL, "1 to 253");
}

TEST_P(Sockets, RefuseToSendWhatIsNotOpen) {
  const std::array closed = {file_.get(), 1 << 20};
  const auto refused = send_fds(near_.get(), closed);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBADF);
  EXPECT_EQ(refused.error().operation(), "sendmsg");
  EXPECT_EQ(receive(1).error().code(), EAGAIN) << "nothing was sent";
}

TEST_P(Sockets, RefuseAnotherNumberThanIsExpected) {
  const std::array two = {file_.get(), file_.get()};
  for (const std::size_t count : {1U, 3U}) {
    ASSERT_TRUE(send_fds(near_.get(), two));
    expect_refused(count, EPROTO, "has 2");
  }
}

TEST_P(Sockets, RefuseWhatIsNoMessageOfThisKind) {
  ASSERT_EQ(::send(near_.get(), "x", 1, 0), 1);
  expect_refused(1, EPROTO, "has 0");
  if (GetParam() == SOCK_SEQPACKET) {
    ASSERT_EQ(::send(near_.get(), "xy", 2, 0), 2);
    expect_refused(1, EPROTO, "has 0");
  }
}

TEST_P(Sockets, TellThatTheOtherEndWasClosed) {
  near_.reset();
  expect_refused(1, ECONNRESET, "closed");
  far_.reset();
  const std::array one = {file_.get()};
  EXPECT_EQ(send_fds(-1, one).error().code(), EBADF);
}

TEST_P(Sockets, DoNotKillASenderWithoutAReceiver) {
  far_.reset();
  const std::array one = {file_.get()};
  EXPECT_EQ(send_fds(near_.get(), one).error().code(), EPIPE);
}

TEST_P(Sockets, KeepNothingWhereTheLimitOfOpenFilesCutsThemShort) {
  const std::vector<int> ten(10, file_.get());
  ASSERT_TRUE(send_fds(near_.get(), ten));
  const Fd next(system_kernel(), ::dup(file_.get()));  // the lowest free number, about
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(next.get()) + 4;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto refused = receive(10);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EMFILE) << refused.error().message();
  EXPECT_TRUE(refused.error().remedies().contains(RemedyCode::raise_open_files_limit));
  const Fd again(system_kernel(), ::dup(file_.get()));
  EXPECT_EQ(again.get(), next.get() + 1) << "those that came were closed";
}

INSTANTIATE_TEST_SUITE_P(Kinds, Sockets, ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET),
                         [](const auto& test) { return test.param == SOCK_STREAM ? "stream" : "seqpacket"; });

}  // namespace descriptors_test
}  // namespace postern
