// SPDX-License-Identifier: Apache-2.0
// populate(): with several threads, and the state of memory after it fails or is stopped.
#include <postern/populate.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <postern-sim/faults.hpp>
#include <postern/fd.hpp>
#include <set>
#include <thread>
#include <vector>

namespace postern {
namespace {

using ::testing::HasSubstr;
using File = std::shared_ptr<const Fd>;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t piece = std::uint64_t{16} << 20;  // the part that a thread populates at a time

File make_file(std::uint64_t length) {
  auto file = std::make_shared<const Fd>(system_kernel(), system_kernel().memfd_create("test", 0));
  EXPECT_EQ(system_kernel().ftruncate(file->get(), length), 0);
  return file;
}

std::uint64_t allocated(const File& file) {
  struct stat status {};
  EXPECT_EQ(::fstat(file->get(), &status), 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

Mmap make_memory(std::uint64_t length, int protection = PROT_READ | PROT_WRITE) {
  return {system_kernel(), ::mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), length};
}

std::uint64_t resident(const Mmap& memory) {
  std::vector<unsigned char> pages(memory.bytes().size() / page);
  EXPECT_EQ(::mincore(memory.data(), memory.bytes().size(), pages.data()), 0);
  return static_cast<std::uint64_t>(
      std::count_if(pages.begin(), pages.end(), [](auto each) { return (each & 1) != 0; }));
}

TEST(Populate, GivesMemoryItsPages) {
  const Mmap memory = make_memory(2 * piece + page);
  EXPECT_EQ(resident(memory), 0U);
  std::uint64_t last = 0;
  const auto grows = [&](std::uint64_t bytes) {
    EXPECT_GT(bytes, last);
    last = bytes;
  };
  ASSERT_TRUE(populate(system_kernel(), memory.bytes(), {.threads = 3, .progress = grows}));
  EXPECT_EQ(resident(memory), 2 * piece / page + 1);
  EXPECT_EQ(last, 2 * piece + page);
}

TEST(Populate, GivesAFileItsPagesAndKeepsWhatItHolds) {
  const File file = make_file(piece + 4 * page);
  ASSERT_EQ(::pwrite(file->get(), "held", 4, page), 4);
  ASSERT_TRUE(populate(system_kernel(), Memory::of_file(file, 0, piece + 2 * page)));
  EXPECT_EQ(allocated(file), piece + 2 * page);
  char text[5] = "";
  ASSERT_EQ(::pread(file->get(), text, 4, page), 4);
  EXPECT_STREQ(text, "held");
  const std::string path = "/proc/self/fd/" + std::to_string(file->get());
  const auto reading = std::make_shared<const Fd>(system_kernel(), ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(populate(system_kernel(), Memory::of_file(reading, piece + 2 * page, page)));
  EXPECT_EQ(allocated(file), piece + 3 * page);
}

// Each madvise() waits until the expected number of threads are in one.
class MeetingKernel final : public ForwardingKernel {
 public:
  explicit MeetingKernel(std::ptrdiff_t threads) : ForwardingKernel(system_kernel()), all_(threads) {}
  int madvise(void* address, std::size_t length, int advice) override {
    if (advice == MADV_POPULATE_WRITE) all_.arrive_and_wait();
    return ForwardingKernel::madvise(address, length, advice);
  }

 private:
  std::latch all_;
};

TEST(Populate, UsesTheThreadsThatItIsTold) {
  MeetingKernel kernel(3);
  const Mmap memory = make_memory(3 * piece);
  EXPECT_TRUE(populate(kernel, memory.bytes(), {.threads = 3}));  // blocks forever with fewer threads
}

TEST(Populate, AFileHasItsHolesAgainWhenItIsStopped) {
  const File file = make_file(4 * piece);
  ASSERT_EQ(::pwrite(file->get(), "held", 4, 2 * piece), 4);
  std::stop_source stop;
  const auto stopped =
      populate(system_kernel(), Memory::of_file(file, 0, 4 * piece),
               {.threads = 1, .stop = stop.get_token(), .progress = [&](std::uint64_t) { stop.request_stop(); }});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), ECANCELED);
  EXPECT_TRUE(stopped.error().refused());
  EXPECT_EQ(allocated(file), page) << "only what it held";
}

TEST(Populate, AFileHasItsHolesAgainWhenItFails) {
  for (int failing = 0;; ++failing) {
    sim::FailingKernel kernel(system_kernel());
    auto file = std::make_shared<const Fd>(kernel, ::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file->get(), 3 * piece), 0);
    ASSERT_EQ(::pwrite(file->get(), "held", 4, 2 * piece), 4);
    kernel.fail_call(failing, ENOMEM);
    const auto populated = populate(kernel, Memory::of_file(file, 0, 3 * piece), {.threads = 1, .huge_pages = false});
    const bool failed = kernel.failed();
    kernel.fail_call(-1, 0);
    if (populated) {
      EXPECT_FALSE(failed);
      EXPECT_GT(failing, 6);
      break;
    }
    EXPECT_EQ(populated.error().code(), ENOMEM);
    EXPECT_EQ(allocated(file), page) << "after call " << failing;
  }
}

TEST(Populate, APageThatCannotBeHadIsAnError) {
  const File file = make_file(2 * page);
  EXPECT_EQ(populate(system_kernel(), Memory::of_file(file, page, 2 * page)).error().code(), EINVAL);
  const Mmap read_only = make_memory(page, PROT_READ);
  const auto refused = populate(system_kernel(), read_only.bytes());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(refused.error().operation(), "madvise");
  const Mmap beyond(system_kernel(), ::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, file->get(), 0),
                    4 * page);
  const auto missing = populate(system_kernel(), beyond.bytes());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), EFAULT);
  EXPECT_THAT(missing.error().message(), HasSubstr("the file may end before it"));
  EXPECT_TRUE(populate(system_kernel(), beyond.bytes().first(0)));
  EXPECT_EQ(populate(system_kernel(), Memory::of_dma_buf(file, 0, page)).error().code(), EOPNOTSUPP);
  EXPECT_EQ(populate(system_kernel(), Memory::of_file(nullptr, 0, page)).error().code(), EBADF);
}

}  // namespace
}  // namespace postern
