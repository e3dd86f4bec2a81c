// SPDX-License-Identifier: Apache-2.0
// Replies as bytes: a header, and a body unless it is an error.
#include "vfio_user/wire/reply.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include "unit/vfio_user/messages.hpp"

namespace postern::vfio_user {
namespace reply_test {

constexpr Header asked{.id = 0x1234, .command = 9, .size = 32, .flags = 0, .error = 0};

TEST(Reply, WithoutABodyIsAHeader) {
  const auto bytes = Reply().message(asked);
  ASSERT_EQ(bytes.size(), 16U);
  const auto header = rig::at<Header>(bytes);
  EXPECT_EQ(header.id, 0x1234);
  EXPECT_EQ(header.command, 9);
  EXPECT_EQ(header.size, 16U);
  EXPECT_EQ(header.flags, type_reply);
  EXPECT_EQ(header.error, 0U);
}

TEST(Reply, HasItsFieldsWhereTheSpecificationHasThem) {
  const auto bytes = Reply::failed(ENOENT).message(asked);
  ASSERT_EQ(bytes.size(), 16U);
  EXPECT_EQ(rig::at<std::uint16_t>(bytes, 0), 0x1234);
  EXPECT_EQ(rig::at<std::uint16_t>(bytes, 2), 9);
  EXPECT_EQ(rig::at<std::uint32_t>(bytes, 4), 16U);
  EXPECT_EQ(rig::at<std::uint32_t>(bytes, 8), 1U | 1U << 5);
  EXPECT_EQ(rig::at<std::uint32_t>(bytes, 12), static_cast<std::uint32_t>(ENOENT));
}

TEST(Reply, HasTheBodyThatWasAdded) {
  const std::array data{std::byte{1}, std::byte{2}, std::byte{3}};
  Reply reply;
  reply.add(std::uint32_t{0x04030201}).add(std::span<const std::byte>(data));
  EXPECT_EQ(reply.error(), 0);
  ASSERT_EQ(reply.body().size(), 7U);
  const auto bytes = reply.message(asked);
  ASSERT_EQ(bytes.size(), 23U);
  EXPECT_EQ(rig::at<Header>(bytes).size, 23U);
  EXPECT_EQ(rig::at<Header>(bytes).flags, type_reply);
  EXPECT_EQ(rig::at<std::uint32_t>(bytes, 16), 0x04030201U);
  EXPECT_EQ(bytes[22], std::byte{3});
}

TEST(Reply, ThatIsAnErrorHasNoBody) {
  Reply reply = Reply::failed(EINVAL);
  reply.add(std::uint64_t{0});
  const auto bytes = reply.message(asked);
  ASSERT_EQ(bytes.size(), 16U);
  EXPECT_EQ(rig::at<Header>(bytes).size, 16U);
  EXPECT_EQ(rig::at<Header>(bytes).flags, type_reply | flag_error);
}

TEST(Reply, IsNoCommandWhateverTheRequestWas) {
  const Header odd{.id = 0xffff, .command = 0xffff, .size = 0xffffffff, .flags = 0xffffffff, .error = 0xffffffff};
  const auto header = rig::at<Header>(Reply().message(odd));
  EXPECT_EQ(header.id, 0xffff);
  EXPECT_EQ(header.command, 0xffff);
  EXPECT_EQ(header.size, 16U);
  EXPECT_EQ(header.flags, type_reply);
  EXPECT_EQ(header.error, 0U);
}

}  // namespace reply_test
}  // namespace postern::vfio_user
