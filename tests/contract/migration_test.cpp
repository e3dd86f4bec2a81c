// SPDX-License-Identifier: Apache-2.0
// Migration by system calls alone, on the kernel under test: what vfio_main.c and a driver that goes by
// vfio_mig_get_next_state answer (Linux 7.3). Where drivers may differ, and mtty and the simulated edu do, a sentence
// says so. ERROR is a state that neither driver ever gets into.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "support/migratable_device.hpp"

namespace postern {
namespace {

using test::MigratableDevice;
using test::RawDevice;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;
constexpr std::uint32_t probe = VFIO_DEVICE_FEATURE_PROBE;
constexpr std::uint32_t migration = VFIO_DEVICE_FEATURE_MIGRATION;
constexpr std::uint32_t device_state = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
constexpr std::uint32_t data_size = VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
constexpr std::uint32_t precopy_info_v2 = VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;

constexpr std::uint32_t stop = VFIO_DEVICE_STATE_STOP;
constexpr std::uint32_t running = VFIO_DEVICE_STATE_RUNNING;
constexpr std::uint32_t stop_copy = VFIO_DEVICE_STATE_STOP_COPY;
constexpr std::uint32_t resuming = VFIO_DEVICE_STATE_RESUMING;
constexpr std::uint32_t running_p2p = VFIO_DEVICE_STATE_RUNNING_P2P;
constexpr std::uint32_t pre_copy = VFIO_DEVICE_STATE_PRE_COPY;
constexpr std::uint32_t pre_copy_p2p = VFIO_DEVICE_STATE_PRE_COPY_P2P;
constexpr std::array states{stop, running, stop_copy, resuming, running_p2p, pre_copy, pre_copy_p2p};

bool is_precopy(std::uint32_t state) { return state == pre_copy || state == pre_copy_p2p; }
// The states that share a stream.
bool is_saving(std::uint32_t state) { return is_precopy(state) || state == stop_copy; }

enum class Way { group, cdev };

class MigrationOnKernel : public ::testing::TestWithParam<Way> {
 protected:
  ~MigrationOnKernel() override {
    device_.reset();
    migratable_.reset();
    EXPECT_TRUE(before_ == test::Holdings::now()) << "something was left behind";
  }
  void SetUp() override {
    migratable_ = MigratableDevice::make();
    if (!migratable_) GTEST_SKIP() << "no device of this host migrates: that takes a driver of its own, or mtty";
    open();
  }
  void open() {
    device_.emplace(GetParam() == Way::group ? migratable_->open_by_group() : migratable_->open_by_cdev());
  }

  struct Moved {
    int result = 0;
    Fd stream;
  };
  // What it answers is looked at as far as it is the same for all.
  Moved try_move(std::uint32_t to) {
    vfio_device_feature_mig_state state{.device_state = to, .data_fd = 77};
    const int result = device_->feature(set | device_state, state);
    EXPECT_EQ(state.device_state, to) << "it stays as it was given";
    EXPECT_NE(state.data_fd, 77);
    if (result < 0) {
      EXPECT_EQ(state.data_fd, -1);
    }
    return {result, Fd(test::kernel(), state.data_fd)};
  }
  Fd move(std::uint32_t to) {
    Moved moved = try_move(to);
    EXPECT_EQ(moved.result, 0) << "to " << to;
    return std::move(moved.stream);
  }
  std::uint32_t state() {
    vfio_device_feature_mig_state state{.device_state = 77, .data_fd = 77};
    EXPECT_EQ(device_->feature(get | device_state, state), 0);
    EXPECT_EQ(state.data_fd, -1);
    return state.device_state;
  }
  void reset() { ASSERT_EQ(device_->ioctl(VFIO_DEVICE_RESET, nullptr), 0); }
  std::uint64_t size_of_data() {
    vfio_device_feature_mig_data_size size{};
    EXPECT_EQ(device_->feature(get | data_size, size), 0);
    return size.stop_copy_length;
  }

  static ssize_t read(const Fd& stream, void* buffer, std::size_t length) {
    return test::kernel().read(stream.get(), buffer, length);
  }
  static ssize_t write(const Fd& stream, const void* buffer, std::size_t length) {
    return test::kernel().write(stream.get(), buffer, length);
  }
  static ssize_t read_byte(const Fd& stream) {
    std::byte byte{};
    return read(stream, &byte, 1);
  }
  static ssize_t write_byte(const Fd& stream) {
    constexpr std::byte byte{};
    return write(stream, &byte, 1);
  }
  // To its end, which is this answer.
  static Bytes read_all(const Fd& stream, std::size_t piece_length = 1000, ssize_t end = 0) {
    Bytes all;
    Bytes piece(piece_length);
    ssize_t got = 0;
    while ((got = read(stream, piece.data(), piece.size())) > 0)
      all.insert(all.end(), piece.begin(), piece.begin() + got);
    EXPECT_EQ(got, end);
    return all;
  }
  static void write_all(const Fd& stream, const Bytes& bytes, std::size_t piece_length = 777) {
    for (std::size_t at = 0; at < bytes.size(); at += piece_length) {
      const std::size_t part = std::min(piece_length, bytes.size() - at);
      ASSERT_EQ(write(stream, bytes.data() + at, part), static_cast<ssize_t>(part));
    }
  }
  // The state of the device, which runs again afterwards.
  Bytes save() {
    const Fd stream = move(stop_copy);
    Bytes saved = read_all(stream);
    move(running);
    return saved;
  }
  // What a running device has to tell ends with ENOMSG (linux/vfio.h); mtty's driver says 0, as of one that stands.
  [[nodiscard]] ssize_t end_of_precopy() const { return migratable_->is_mtty() ? 0 : -ENOMSG; }

  static int precopy_info(const Fd& stream, vfio_precopy_info& info) {
    return test::kernel().ioctl(stream.get(), VFIO_MIG_GET_PRECOPY_INFO, &info);
  }
  static int precopy_info(const Fd& stream) {
    vfio_precopy_info info{.argsz = sizeof info};
    return precopy_info(stream, info);
  }

  void set_mark(std::uint8_t mark) { migratable_->set_mark(*device_, mark); }
  std::uint32_t mark() { return migratable_->mark(*device_); }

  const test::Holdings before_ = test::Holdings::now();
  std::unique_ptr<MigratableDevice> migratable_;
  std::optional<RawDevice> device_;
};

TEST_P(MigrationOnKernel, TheFlagsTellWhichStatesItHas) {
  vfio_device_feature_migration answer{};
  EXPECT_EQ(device_->feature(get | migration, answer), 0);
  EXPECT_EQ(answer.flags, VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY);
  EXPECT_EQ(state(), running);
}

TEST_P(MigrationOnKernel, ProbeTellsWhatMayBeGotAndWhatSet) {
  struct Case {
    std::uint32_t feature;
    std::uint32_t supported;
  };
  for (const auto [feature, supported] :
       {Case{migration, get}, Case{device_state, get | set}, Case{data_size, get}, Case{precopy_info_v2, set}}) {
    for (const std::uint32_t asked : {0U, get, set, get | set}) {
      SCOPED_TRACE(testing::Message() << "feature " << feature << " asked for " << std::hex << asked);
      EXPECT_EQ(device_->feature(probe | asked | feature), (asked & ~supported) == 0 ? 0 : -EINVAL);
    }
  }
  EXPECT_EQ(state(), running);
}

TEST_P(MigrationOnKernel, RequestsThatAreNotWellFormedAreRefused) {
  vfio_device_feature_mig_state wanted{.device_state = stop, .data_fd = 77};
  EXPECT_EQ(device_->feature(device_state, wanted), -EINVAL) << "neither got nor set";
  EXPECT_EQ(device_->feature(get | set | device_state, wanted), -EINVAL) << "both";
  EXPECT_EQ(device_->feature(set | device_state | 1U << 19, wanted), -EINVAL) << "a flag that nobody knows";
  EXPECT_EQ(device_->feature(set | migration, wanted), -EINVAL);
  EXPECT_EQ(device_->feature(set | data_size, wanted), -EINVAL);
  EXPECT_EQ(device_->feature(get | precopy_info_v2, wanted), -EINVAL);
  EXPECT_EQ(wanted.data_fd, 77) << "nothing is answered";
  EXPECT_EQ(state(), running);
}

TEST_P(MigrationOnKernel, ArgszMayBeTooLargeButNotTooSmall) {
  vfio_device_feature_mig_state wanted{.device_state = stop, .data_fd = 77};
  for (const std::size_t length : {0U, 4U, 7U}) {
    EXPECT_EQ(device_->feature(set | device_state, wanted, length), -EINVAL) << length;
    EXPECT_EQ(device_->feature(get | device_state, wanted, length), -EINVAL) << length;
    EXPECT_EQ(device_->feature(get | migration, wanted, length), -EINVAL) << length;
    EXPECT_EQ(device_->feature(get | data_size, wanted, length), -EINVAL) << length;
  }
  vfio_device_feature head{.argsz = sizeof head - 1, .flags = probe | migration};
  EXPECT_EQ(device_->ioctl(VFIO_DEVICE_FEATURE, &head), -EINVAL);
  EXPECT_EQ(state(), running);
  EXPECT_EQ(device_->feature(set | device_state, wanted, 1U << 20), 0);
  EXPECT_EQ(wanted.data_fd, -1);
  EXPECT_EQ(state(), stop);
}

TEST_P(MigrationOnKernel, EveryStateLeadsToEveryOtherButBackFromStopCopyToPreCopy) {
  const Bytes saved = save();
  for (const std::uint32_t from : states) {
    for (const std::uint32_t to : states) {
      SCOPED_TRACE(testing::Message() << from << " to " << to);
      reset();
      const Fd first = move(from);
      EXPECT_EQ(static_cast<bool>(first), is_saving(from) || from == resuming);
      if (from == resuming) write_all(first, saved);
      const Moved moved = try_move(to);
      const bool is_blocked = from == stop_copy && is_precopy(to);
      EXPECT_EQ(moved.result, is_blocked ? -EINVAL : 0);
      EXPECT_EQ(state(), is_blocked ? from : to);
      const bool begins = (is_saving(to) && !is_saving(from)) || (to == resuming && from != resuming);
      EXPECT_EQ(static_cast<bool>(moved.stream), begins);
      // The stream that was there has ended where it is not shared.
      if (is_saving(from)) {
        EXPECT_EQ(read_byte(first), is_saving(to) ? 1 : -ENODEV);
      }
      if (from == resuming && to != resuming) {
        EXPECT_EQ(write_byte(first), -ENODEV);
      }
    }
  }
}

TEST_P(MigrationOnKernel, StatesThatNobodyCanWishForAreRefusedInEveryState) {
  for (const std::uint32_t from : states) {
    const Fd stream = move(from);
    for (const std::uint32_t wish :
         {std::uint32_t{VFIO_DEVICE_STATE_ERROR}, std::uint32_t{VFIO_DEVICE_STATE_NR}, std::uint32_t{100}, ~0U}) {
      SCOPED_TRACE(testing::Message() << from << " to " << wish);
      EXPECT_EQ(try_move(wish).result, -EINVAL);
      EXPECT_EQ(state(), from);
    }
    if (is_saving(from)) {
      EXPECT_EQ(read_byte(stream), 1) << "the stream goes on";
    }
    reset();
  }
}

TEST_P(MigrationOnKernel, AStreamIsAsLongAsTheDataSizeSaysHoweverItIsRead) {
  const std::uint64_t size = size_of_data();
  const Fd stream = move(stop_copy);
  const Bytes all = read_all(stream, 1U << 20);
  EXPECT_EQ(all.size(), size);
  EXPECT_EQ(read_byte(stream), 0) << "the end stays the end";
  move(stop);
  EXPECT_EQ(read_all(move(stop_copy), 7), all);
  move(running);
  const Fd again = move(stop_copy);
  EXPECT_EQ(read(again, nullptr, 0), 0) << "reading nothing takes nothing";
  EXPECT_EQ(read_all(again, 4096), all);
}

TEST_P(MigrationOnKernel, TheDataSizeIsToldInEveryState) {
  const std::uint64_t size = size_of_data();
  EXPECT_GT(size, 0U);
  for (const std::uint32_t each : states) {
    const Fd stream = move(each);
    EXPECT_EQ(size_of_data(), size) << each;
    reset();
  }
}

TEST_P(MigrationOnKernel, WhatWasSavedComesBack) {
  set_mark(0x5a);
  const Bytes saved = save();
  for (const std::size_t piece : {1U, 777U, 1U << 20}) {
    set_mark(0x11);
    ASSERT_EQ(mark(), 0x11U);
    write_all(move(resuming), saved, piece);
    move(running);
    EXPECT_EQ(mark(), 0x5aU);
  }
}

TEST_P(MigrationOnKernel, WhatIsReadBeforeAndAfterItStopsIsOneStream) {
  for (const std::uint32_t begin : {pre_copy, pre_copy_p2p}) {
    set_mark(1);
    const Fd stream = move(begin);
    Bytes all = read_all(stream, 1000, end_of_precopy());
    EXPECT_FALSE(all.empty());
    EXPECT_FALSE(move(pre_copy_p2p));
    EXPECT_FALSE(move(pre_copy)) << "it is still the same stream";
    set_mark(2);
    EXPECT_FALSE(move(stop_copy));
    const Bytes rest = read_all(stream);
    EXPECT_FALSE(rest.empty());
    all.insert(all.end(), rest.begin(), rest.end());
    move(running);
    set_mark(3);
    write_all(move(resuming), all);
    move(running);
    EXPECT_EQ(mark(), 2U);
  }
}

TEST_P(MigrationOnKernel, LeavingPreCopyForRunningAndComingBackBeginsAnew) {
  const Fd first = move(pre_copy);
  const Bytes told = read_all(first, 1000, end_of_precopy());
  move(running);
  EXPECT_EQ(read_byte(first), -ENODEV);
  const Fd second = move(pre_copy);
  ASSERT_TRUE(second);
  EXPECT_EQ(read_byte(first), -ENODEV);
  EXPECT_EQ(read_all(second, 1000, end_of_precopy()), told);
}

TEST_P(MigrationOnKernel, AStreamThatIsCutShortIsRefusedAndItsRestMayFollow) {
  set_mark(0x5a);
  const Bytes saved = save();
  set_mark(0x11);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{8}, saved.size() / 2, saved.size() - 1}) {
    SCOPED_TRACE(cut);
    const auto middle = saved.begin() + static_cast<std::ptrdiff_t>(cut);
    const Fd stream = move(resuming);
    write_all(stream, {saved.begin(), middle});
    for (const std::uint32_t to : states) {
      if (to == resuming) continue;
      EXPECT_EQ(try_move(to).result, -EINVAL) << to;
      EXPECT_EQ(state(), resuming) << "it may also be in ERROR, but neither driver goes there";
    }
    write_all(stream, {middle, saved.end()});
    move(running);
    EXPECT_EQ(mark(), 0x5aU);
    set_mark(0x11);
  }
}

TEST_P(MigrationOnKernel, AResetEndsAResumeThatIsNotWhole) {
  const Bytes saved = save();
  set_mark(0x11);
  const Fd stream = move(resuming);
  write_all(stream, {saved.begin(), saved.end() - 1});
  EXPECT_EQ(try_move(running).result, -EINVAL);
  reset();
  EXPECT_EQ(state(), running);
  EXPECT_EQ(write_byte(stream), -ENODEV);
  // What a reset does to the device itself is its own: edu's clears its registers, mtty's driver resets the migration
  // alone.
  EXPECT_EQ(mark(), migratable_->is_mtty() ? 0x11U : 0U);
}

TEST_P(MigrationOnKernel, AStreamThatIsTooLongIsRefused) {
  const Bytes saved = save();
  const Fd stream = move(resuming);
  write_all(stream, saved);
  if (migratable_->is_mtty()) {
    // It knows how much it takes, and refuses the rest; what it has is good.
    EXPECT_EQ(write_byte(stream), -ENOMEM);
    move(stop);
  } else {
    // Its stream is of chunks, and there might be another: it looks when the stream ends.
    EXPECT_EQ(write_byte(stream), 1);
    EXPECT_EQ(try_move(stop).result, -EINVAL);
    EXPECT_EQ(state(), resuming);
  }
}

TEST_P(MigrationOnKernel, GarbageIsRefused) {
  Bytes garbage = save();
  garbage[0] ^= std::byte{1};
  const auto length = static_cast<ssize_t>(garbage.size());
  const Fd stream = move(resuming);
  if (migratable_->is_mtty()) {
    EXPECT_EQ(write(stream, garbage.data(), garbage.size()), -EFAULT) << "it looks as soon as the header is there";
  } else {
    EXPECT_EQ(write(stream, garbage.data(), garbage.size()), length);
    EXPECT_EQ(try_move(stop).result, -EINVAL);
  }
  EXPECT_EQ(state(), resuming);
  reset();
  EXPECT_EQ(state(), running);
}

TEST_P(MigrationOnKernel, AStreamThatIsClosedLeavesTheStateAsItIs) {
  const Bytes saved = save();
  for (const std::uint32_t each : states) {
    SCOPED_TRACE(each);
    Fd stream = move(each);
    if (is_saving(each)) {
      EXPECT_EQ(read_byte(stream), 1);
    }
    if (each == resuming) write_all(stream, saved);
    stream.reset();
    EXPECT_EQ(state(), each);
    if (is_precopy(each)) {
      EXPECT_FALSE(move(stop_copy)) << "nobody gets it again";
    }
    EXPECT_FALSE(move(running)) << "what was written counts";
  }
  Fd stream = move(resuming);
  write_all(stream, {saved.begin(), saved.end() - 1});
  stream.reset();
  EXPECT_EQ(try_move(running).result, -EINVAL) << "and what was not is missing";
  EXPECT_EQ(state(), resuming);
  EXPECT_FALSE(move(resuming)) << "it is there already";
}

TEST_P(MigrationOnKernel, AResetLeadsFromEveryStateToRunningAndEndsTheStream) {
  for (const std::uint32_t each : states) {
    SCOPED_TRACE(each);
    const Fd stream = move(each);
    reset();
    EXPECT_EQ(state(), running);
    if (is_saving(each)) {
      EXPECT_EQ(read_byte(stream), -ENODEV);
    }
    if (each == resuming) {
      EXPECT_EQ(write_byte(stream), -ENODEV);
    }
    if (stream) {
      EXPECT_TRUE(move(each)) << "there is a new one";
    }
    reset();
  }
}

TEST_P(MigrationOnKernel, AStreamGoesOneWayAndHasNoOffsets) {
  std::byte byte{};
  const Fd saving = move(stop_copy);
  EXPECT_EQ(write_byte(saving), -EBADF);
  EXPECT_EQ(test::kernel().pread(saving.get(), &byte, 1, 0), -ESPIPE);
  EXPECT_EQ(test::kernel().pwrite(saving.get(), &byte, 1, 0), -ESPIPE);
  const Fd loading = move(resuming);
  EXPECT_EQ(read_byte(loading), -EBADF);
  EXPECT_EQ(test::kernel().pread(loading.get(), &byte, 1, 0), -ESPIPE);
  EXPECT_EQ(test::kernel().pwrite(loading.get(), &byte, 1, 0), -ESPIPE);
  for (const Fd* stream : {&saving, &loading}) {
    EXPECT_EQ(test::kernel().ioctl(stream->get(), VFIO_DEVICE_RESET, nullptr), -ENOTTY);
    EXPECT_EQ(test::kernel().ioctl(stream->get(), VFIO_DEVICE_FEATURE, &byte), -ENOTTY);
    const auto mapped = test::kernel().mmap(nullptr, 4096, PROT_READ, MAP_SHARED, stream->get(), 0);
    EXPECT_EQ(mapped, stream == &loading ? -EACCES : -ENODEV) << "what may not be read is not mapped either";
  }
  EXPECT_EQ(precopy_info(loading), -ENOTTY);
}

TEST_P(MigrationOnKernel, PrecopyInfoIsOfARunningDevice) {
  vfio_precopy_info info{.argsz = sizeof info, .flags = 99, .initial_bytes = 99, .dirty_bytes = 99};
  const Fd stream = move(pre_copy);
  EXPECT_EQ(precopy_info(stream, info), 0);
  EXPECT_EQ(info.argsz, sizeof info);
  EXPECT_EQ(info.flags, 99U) << "reserved, unless version 2 was asked for";
  EXPECT_GT(info.initial_bytes, 0U);
  EXPECT_EQ(info.dirty_bytes, 0U);
  EXPECT_EQ(read_byte(stream), 1);
  const std::uint64_t before = info.initial_bytes;
  move(pre_copy_p2p);
  EXPECT_EQ(precopy_info(stream, info), 0);
  EXPECT_EQ(info.initial_bytes, before - 1);
  EXPECT_EQ(read_all(stream, 1000, end_of_precopy()).size(), before - 1);
  EXPECT_EQ(precopy_info(stream, info), 0);
  EXPECT_EQ(info.initial_bytes, 0U);

  info.argsz = sizeof info - 1;
  EXPECT_EQ(precopy_info(stream, info), -EINVAL);
  info.argsz = 1U << 20;
  EXPECT_EQ(precopy_info(stream, info), 0);
  move(stop_copy);
  EXPECT_EQ(precopy_info(stream), -EINVAL);
  move(running);
  EXPECT_EQ(precopy_info(stream), -EINVAL) << "the state is looked at first,";
  const Fd second = move(pre_copy);
  EXPECT_EQ(precopy_info(stream), -ENODEV) << "and then the stream";
  EXPECT_EQ(precopy_info(second), 0);
}

TEST_P(MigrationOnKernel, PrecopyInfoHasFlagsOnceTheyAreAskedForAlsoOfAStreamThatIsThere) {
  vfio_precopy_info info{.argsz = sizeof info, .flags = 99};
  const Fd stream = move(pre_copy);
  EXPECT_EQ(precopy_info(stream, info), 0);
  EXPECT_EQ(info.flags, 99U);
  EXPECT_EQ(device_->feature(set | precopy_info_v2), 0);
  EXPECT_EQ(precopy_info(stream, info), 0);
  EXPECT_EQ(info.flags, 0U);
  reset();
  const Fd second = move(pre_copy);
  info.flags = 99;
  EXPECT_EQ(precopy_info(second, info), 0);
  EXPECT_EQ(info.flags, 0U) << "a reset does not take it back,";

  device_.reset();
  open();
  reset();
  const Fd third = move(pre_copy);
  info.flags = 99;
  EXPECT_EQ(precopy_info(third, info), 0);
  EXPECT_EQ(info.flags, 99U) << "but closing the device does";
}

TEST_P(MigrationOnKernel, AStreamEndsWithItsDevice) {
  const Fd stream = move(stop_copy);
  EXPECT_EQ(read_byte(stream), 1);
  device_.reset();
  EXPECT_EQ(read_byte(stream), -ENODEV);
  open();
  // mtty's driver keeps the state of a device that was closed; virtio's and mlx5's begin anew, and so does edu's.
  EXPECT_EQ(state(), migratable_->is_mtty() ? stop_copy : running);
  EXPECT_EQ(read_byte(stream), -ENODEV);
}

// A page that may be read and written, one that may be read, and one that is not there.
class Pages {
 public:
  Pages() {
    void* const all = ::mmap(nullptr, 3 * size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::runtime_error("mmap");
    start_ = static_cast<std::byte*>(all);
    ::mprotect(start_ + size_, size_, PROT_READ);
    ::munmap(start_ + 2 * size_, size_);
  }
  ~Pages() { ::munmap(start_, 2 * size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  [[nodiscard]] std::byte* read_only() const { return start_ + size_; }
  [[nodiscard]] std::byte* missing() const { return start_ + 2 * size_; }
  // In memory that can only be read, or that ends within it.
  template <typename T>
  T* put(std::byte* at, const T& value, std::size_t length = sizeof(T)) const {
    ::mprotect(start_ + size_, size_, PROT_READ | PROT_WRITE);
    std::memcpy(at, &value, length);
    ::mprotect(start_ + size_, size_, PROT_READ);
    return reinterpret_cast<T*>(at);
  }

 private:
  const std::size_t size_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::byte* start_ = nullptr;
};

TEST_P(MigrationOnKernel, AStreamNeedsMemoryThatIsThereAndLosesNothingWithoutIt) {
  const Pages pages;
  const std::uint64_t size = size_of_data();
  Fd stream = move(stop_copy);
  for (std::byte* const at : {pages.missing(), pages.missing() - 8, pages.read_only()}) {
    EXPECT_EQ(read(stream, at, 16), -EFAULT);
  }
  const Bytes saved = read_all(stream);
  EXPECT_EQ(saved.size(), size);
  EXPECT_EQ(read(stream, pages.missing(), 16), 0) << "at its end nothing is written";
  move(running);
  EXPECT_EQ(read(stream, pages.missing(), 16), -ENODEV) << "nor when it has ended";

  stream = move(resuming);
  EXPECT_EQ(write(stream, pages.missing(), 16), -EFAULT);
  EXPECT_EQ(write(stream, pages.missing() - 8, 16), -EFAULT);
  EXPECT_EQ(write(stream, pages.missing(), 0), 0);
  write_all(stream, saved);
  move(running);
}

TEST_P(MigrationOnKernel, PrecopyInfoNeedsMemoryThatIsThere) {
  const Pages pages;
  const Fd stream = move(pre_copy);
  constexpr vfio_precopy_info info{.argsz = sizeof info, .flags = 0, .initial_bytes = 99, .dirty_bytes = 99};
  const auto ask = [&](void* at) { return test::kernel().ioctl(stream.get(), VFIO_MIG_GET_PRECOPY_INFO, at); };
  EXPECT_EQ(ask(pages.missing()), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.missing() - 8, info, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.read_only(), info)), -EFAULT);
  EXPECT_EQ(ask(nullptr), -EFAULT);
}

TEST_P(MigrationOnKernel, ARequestNeedsMemoryThatIsThereAndWhatOnlyItsAnswerLacksIsDone) {
  struct Request {
    std::uint32_t argsz = sizeof(Request);
    std::uint32_t flags = 0;
    vfio_device_feature_mig_state state{.device_state = stop, .data_fd = 77};
  };
  const Pages pages;
  const auto ask = [&](void* at) { return device_->ioctl(VFIO_DEVICE_FEATURE, at); };
  std::byte* const cut = pages.missing() - 8;
  EXPECT_EQ(ask(pages.missing()), -EFAULT);
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = set | device_state}, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = get | device_state}, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = get | migration}, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = get | data_size}, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = set | data_size}, 8)), -EINVAL) << "that comes first";
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = probe | get | set | device_state}, 8)), 0) << "which needs none";
  EXPECT_EQ(ask(pages.put(cut, Request{.flags = set | precopy_info_v2}, 8)), 0);
  EXPECT_EQ(ask(pages.put(pages.read_only(), Request{.flags = get | device_state})), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.read_only(), Request{.flags = get | migration})), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.read_only(), Request{.flags = get | data_size})), -EFAULT);
  EXPECT_EQ(state(), running);

  EXPECT_EQ(ask(pages.put(pages.read_only(), Request{.flags = set | device_state})), -EFAULT);
  EXPECT_EQ(state(), stop);
  // The stream that nobody got an fd of is there, and is not given again.
  const Request copy{.flags = set | device_state, .state = {.device_state = stop_copy, .data_fd = 77}};
  EXPECT_EQ(ask(pages.put(pages.read_only(), copy)), -EFAULT);
  EXPECT_EQ(state(), stop_copy);
  EXPECT_FALSE(move(stop_copy));
  // A refusal is not told where there is no room for the answer.
  const Request never{.flags = set | device_state, .state = {.device_state = 100, .data_fd = 77}};
  EXPECT_EQ(ask(pages.put(pages.read_only(), never)), -EFAULT);
  EXPECT_EQ(state(), stop_copy);
}

// What the core looks at before a driver hears of it, of devices that log their DMA as well: both do, mtty's in name.
TEST_P(MigrationOnKernel, LogsOfDmaThatMakeNoSenseAreRefused) {
  using Range = vfio_device_feature_dma_logging_range;
  const Pages pages;
  const auto start = [&](const std::vector<Range>& ranges, std::uint64_t page_size = 4096) {
    vfio_device_feature_dma_logging_control control{.page_size = page_size,
                                                    .num_ranges = static_cast<std::uint32_t>(ranges.size()),
                                                    .ranges = reinterpret_cast<std::uintptr_t>(ranges.data())};
    return device_->feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, control);
  };
  constexpr Range good{.iova = 0x100000, .length = 0x1000};
  EXPECT_EQ(start({}), -EINVAL);
  EXPECT_EQ(start(std::vector<Range>(257, good)), -E2BIG);
  EXPECT_EQ(start({{.iova = good.iova + 1, .length = 4096}}), -EINVAL);
  EXPECT_EQ(start({{.iova = good.iova, .length = 4097}}), -EINVAL);
  EXPECT_EQ(start({good}, 0x200000), -EINVAL);
  EXPECT_EQ(start({good}, 0), -EINVAL);
  EXPECT_EQ(start({good, good}), -EINVAL);
  EXPECT_EQ(start({{.iova = ~std::uint64_t{4095}, .length = 8192}}), -EOVERFLOW);
  EXPECT_EQ(start({{.iova = ~std::uint64_t{4095}, .length = 4096}}), -EOVERFLOW) << "its end is one too far";
  vfio_device_feature_dma_logging_control nowhere{
      .page_size = 4096, .num_ranges = 1, .ranges = reinterpret_cast<std::uintptr_t>(pages.missing())};
  EXPECT_EQ(device_->feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, nowhere), -EFAULT);
  EXPECT_EQ(device_->feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, nowhere, sizeof nowhere - 1), -EINVAL);
  EXPECT_EQ(start({good}), 0);

  std::uint64_t bits = 0;
  const auto report = [&](std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) {
    vfio_device_feature_dma_logging_report asked{
        .iova = iova, .length = length, .page_size = page_size, .bitmap = reinterpret_cast<std::uintptr_t>(&bits)};
    return device_->feature(get | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, asked);
  };
  EXPECT_EQ(report(good.iova, 4096, 0), -EINVAL);
  EXPECT_EQ(report(good.iova, 4096, 2048), -EINVAL);
  EXPECT_EQ(report(good.iova, 4096, 12288), -EINVAL);
  EXPECT_EQ(report(~std::uint64_t{4095}, 8192, 4096), -EOVERFLOW);
  EXPECT_EQ(report(good.iova, 4096, 4096), 0);
  EXPECT_EQ(bits, 0U);
  EXPECT_EQ(device_->feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP), 0);
  EXPECT_EQ(device_->feature(get | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP), -EINVAL);
}

INSTANTIATE_TEST_SUITE_P(Ways, MigrationOnKernel, ::testing::Values(Way::group, Way::cdev),
                         [](const auto& test) { return std::string(test.param == Way::group ? "group" : "cdev"); });

}  // namespace
}  // namespace postern
