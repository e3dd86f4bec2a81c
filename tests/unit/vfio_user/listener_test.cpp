// SPDX-License-Identifier: Apache-2.0
// listen_at(): a socket at a path where nothing is, where a dead socket is, and where something else is.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <postern-sim/kernel.hpp>
#include <postern-vfio-user/server.hpp>
#include <string>

#include "unit/vfio_user/folder.hpp"
#include "unit/vfio_user/peer.hpp"

namespace postern::vfio_user {
namespace listener_test {

using ::testing::HasSubstr;

// Sockets are real on every kernel: the files of a simulated one are not theirs.
class AListener : public ::testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] Result<Fd> listen(const std::string& path, mode_t mode = 0600) {
    return listen_at(GetParam() == std::string("simulated") ? static_cast<Kernel&>(simulated_) : system_kernel(), path,
                     mode);
  }
  int error_of(const std::string& path) {
    const auto listener = listen(path);
    return listener ? 0 : listener.error().code();
  }
  static mode_t mode_of(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    return status.st_mode;
  }

  sim::Kernel simulated_;
  rig::Folder folder_;
  const std::string path_ = folder_ / "socket";
};

TEST_P(AListener, AcceptsConnections) {
  const auto listener = listen(path_);
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_EQ(mode_of(path_), S_IFSOCK | 0600U);
  EXPECT_EQ(::fcntl(listener->get(), F_GETFD), FD_CLOEXEC);
  EXPECT_NE(::fcntl(listener->get(), F_GETFL) & O_NONBLOCK, 0);
  const rig::Peer first(path_);
  const rig::Peer second(path_);
  for (int i = 0; i < 2; ++i) {
    const Fd accepted(system_kernel(), ::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(accepted);
  }
  EXPECT_LT(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC), 0);
}

TEST_P(AListener, HasItsModeWhateverTheUmaskIs) {
  const mode_t before = ::umask(0777);
  const auto closed = listen(path_, 0660);
  ::umask(0);
  const auto open = listen(folder_ / "other", 0600);
  ::umask(before);
  ASSERT_TRUE(closed);
  ASSERT_TRUE(open);
  EXPECT_EQ(mode_of(path_), S_IFSOCK | 0660U);
  EXPECT_EQ(mode_of(folder_ / "other"), S_IFSOCK | 0600U);
}

TEST_P(AListener, ReplacesASocketOnWhichNobodyListens) {
  ASSERT_TRUE(listen(path_)) << "which is closed at once";
  EXPECT_EQ(mode_of(path_), S_IFSOCK | 0600U) << "but its name stays";
  const auto listener = listen(path_, 0640);
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_EQ(mode_of(path_), S_IFSOCK | 0640U);
  const rig::Peer peer(path_);
  EXPECT_GE(Fd(system_kernel(), ::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC)).get(), 0);
}

TEST_P(AListener, IsNotReplacedWhileItListens) {
  const auto listener = listen(path_);
  ASSERT_TRUE(listener);
  const auto second = listen(path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EADDRINUSE);
  EXPECT_THAT(second.error().message(), HasSubstr("a server listens there"));
  EXPECT_THAT(second.error().message(), HasSubstr(path_));
  const rig::Peer peer(path_);
}

TEST_P(AListener, IsNotReplacedIfItsQueueIsFull) {
  const auto listener = listen(path_);
  ASSERT_TRUE(listener);
  std::vector<Fd> waiting;
  for (bool is_full = false; !is_full && waiting.size() < 10'000;) {
    waiting.emplace_back(system_kernel(), ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    is_full = ::connect(waiting.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0;
  }
  EXPECT_EQ(error_of(path_), EADDRINUSE);
}

TEST_P(AListener, ReplacesNothingElse) {
  std::ofstream(path_) << "text";
  EXPECT_EQ(error_of(path_), EEXIST);
  EXPECT_EQ(mode_of(path_) & S_IFMT, std::uint32_t{S_IFREG});
  std::filesystem::create_directory(folder_ / "folder");
  EXPECT_EQ(error_of(folder_ / "folder"), EEXIST);
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(error_of(folder_ / "fifo"), EEXIST) << "nor waits for it";
  std::filesystem::create_symlink(path_, folder_ / "link");
  EXPECT_EQ(error_of(folder_ / "link"), EEXIST);
}

TEST_P(AListener, HasAPathOfASocket) {
  const std::string start = folder_ / "";
  EXPECT_EQ(error_of(""), EINVAL);
  EXPECT_EQ(error_of(start + std::string(107 - start.size(), 's')), 0);
  const auto longer = listen(start + std::string(108 - start.size(), 's'));
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().code(), ENAMETOOLONG);
  EXPECT_THAT(longer.error().message(), HasSubstr("its path must have 1 to 107 bytes"));
  EXPECT_EQ(error_of(std::string(100'000, 's')), ENAMETOOLONG);
  EXPECT_NE(error_of(std::string("\0abstract", 9)), 0) << "a name without a file";
  EXPECT_NE(error_of(path_ + std::string("\0", 1)), 0);
}

TEST_P(AListener, NeedsItsFolder) {
  const std::size_t before = rig::open_files();
  const auto refused = listen(folder_ / "missing/socket");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOENT);
  EXPECT_EQ(refused.error().operation(), "bind");
  EXPECT_EQ(rig::open_files(), before);
}

INSTANTIATE_TEST_SUITE_P(Kernels, AListener, ::testing::Values("real", "simulated"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace listener_test
}  // namespace postern::vfio_user
