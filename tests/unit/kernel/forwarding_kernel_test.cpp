// SPDX-License-Identifier: Apache-2.0
// ForwardingKernel: passes each call unchanged to the other kernel, and returns its result.
#include <postern/forwarding_kernel.hpp>

#include <gmock/gmock.h>

#include <type_traits>

namespace postern {
namespace forwarding_kernel_test {

using ::testing::_;
using ::testing::DoAll;
using ::testing::Return;
using ::testing::SetArgReferee;
using ::testing::StrEq;

class MockKernel : public Kernel {
 public:
  MOCK_METHOD(int, open, (const char*, int), (override));
  MOCK_METHOD(int, close, (int), (override));
  MOCK_METHOD(int, ioctl, (int, unsigned long, void*), (override));
  MOCK_METHOD(ssize_t, pread, (int, void*, std::size_t, std::uint64_t), (override));
  MOCK_METHOD(ssize_t, pwrite, (int, const void*, std::size_t, std::uint64_t), (override));
  MOCK_METHOD(ssize_t, read, (int, void*, std::size_t), (override));
  MOCK_METHOD(ssize_t, write, (int, const void*, std::size_t), (override));
  MOCK_METHOD(std::intptr_t, mmap, (void*, std::size_t, int, int, int, std::uint64_t), (override));
  MOCK_METHOD(int, munmap, (void*, std::size_t), (override));
  MOCK_METHOD(int, eventfd, (), (override));
  MOCK_METHOD(int, read_file, (const std::string&, std::string&), (override));
  MOCK_METHOD(int, write_file, (const std::string&, const std::string&), (override));
  MOCK_METHOD(int, list_directory, (const std::string&, std::vector<std::string>&), (override));
  MOCK_METHOD(int, read_link, (const std::string&, std::string&), (override));
  MOCK_METHOD(int, status, (const std::string&, FileStatus&), (override));
  MOCK_METHOD(int, access, (const std::string&, int), (override));
};

TEST(ForwardingKernel, PassesEachCallOn) {
  testing::StrictMock<MockKernel> other;
  ForwardingKernel kernel(other);
  int memory = 0;
  EXPECT_CALL(other, open(StrEq("/node"), 2)).WillOnce(Return(31));
  EXPECT_EQ(kernel.open("/node", 2), 31);
  EXPECT_CALL(other, close(31)).WillOnce(Return(-1));
  EXPECT_EQ(kernel.close(31), -1);
  EXPECT_CALL(other, ioctl(3, 4, &memory)).WillOnce(Return(-2));
  EXPECT_EQ(kernel.ioctl(3, 4, &memory), -2);
  EXPECT_CALL(other, pread(3, &memory, 4, 5)).WillOnce(Return(-3));
  EXPECT_EQ(kernel.pread(3, &memory, 4, 5), -3);
  EXPECT_CALL(other, pwrite(3, &memory, 4, 5)).WillOnce(Return(-4));
  EXPECT_EQ(kernel.pwrite(3, &memory, 4, 5), -4);
  EXPECT_CALL(other, read(3, &memory, 4)).WillOnce(Return(-5));
  EXPECT_EQ(kernel.read(3, &memory, 4), -5);
  EXPECT_CALL(other, write(3, &memory, 4)).WillOnce(Return(-6));
  EXPECT_EQ(kernel.write(3, &memory, 4), -6);
  EXPECT_CALL(other, mmap(&memory, 1, 2, 3, 4, 5)).WillOnce(Return(-7));
  EXPECT_EQ(kernel.mmap(&memory, 1, 2, 3, 4, 5), -7);
  EXPECT_CALL(other, munmap(&memory, 1)).WillOnce(Return(-8));
  EXPECT_EQ(kernel.munmap(&memory, 1), -8);
  EXPECT_CALL(other, eventfd()).WillOnce(Return(-9));
  EXPECT_EQ(kernel.eventfd(), -9);
}

TEST(ForwardingKernel, PassesCallsOnPathsOnWithWhatTheyGive) {
  testing::StrictMock<MockKernel> other;
  ForwardingKernel kernel(other);
  std::string text;
  EXPECT_CALL(other, read_file("/file", _)).WillOnce(DoAll(SetArgReferee<1>("contents"), Return(-1)));
  EXPECT_EQ(kernel.read_file("/file", text), -1);
  EXPECT_EQ(text, "contents");
  EXPECT_CALL(other, write_file("/file", "new")).WillOnce(Return(-2));
  EXPECT_EQ(kernel.write_file("/file", "new"), -2);
  std::vector<std::string> names;
  EXPECT_CALL(other, list_directory("/folder", _))
      .WillOnce(DoAll(SetArgReferee<1>(std::vector<std::string>{"a"}), Return(-3)));
  EXPECT_EQ(kernel.list_directory("/folder", names), -3);
  EXPECT_EQ(names, std::vector<std::string>{"a"});
  EXPECT_CALL(other, read_link("/link", _)).WillOnce(DoAll(SetArgReferee<1>("target"), Return(-4)));
  EXPECT_EQ(kernel.read_link("/link", text), -4);
  EXPECT_EQ(text, "target");
  FileStatus status;
  EXPECT_CALL(other, status("/node", _)).WillOnce(DoAll(SetArgReferee<1>(FileStatus{.mode = 0600}), Return(-5)));
  EXPECT_EQ(kernel.status("/node", status), -5);
  EXPECT_EQ(status.mode, 0600U);
  EXPECT_CALL(other, access("/node", 6)).WillOnce(Return(-6));
  EXPECT_EQ(kernel.access("/node", 6), -6);
}

TEST(ForwardingKernel, WrapsAnotherThatIsPassedAsAKernel) {
  static_assert(!std::is_constructible_v<ForwardingKernel, ForwardingKernel&>, "that would be a copy");
  testing::StrictMock<MockKernel> other;
  ForwardingKernel inner(other);
  ForwardingKernel outer(static_cast<Kernel&>(inner));
  EXPECT_CALL(other, close(31)).WillOnce(Return(-1));
  EXPECT_EQ(outer.close(31), -1);
}

}  // namespace forwarding_kernel_test
}  // namespace postern
