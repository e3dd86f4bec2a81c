// SPDX-License-Identifier: Apache-2.0
// The migration streams of a device's state (Linux 7.3). Comments name where mtty and the simulated edu differ, as
// drivers may.
#include "contract/migration_rig.hpp"

namespace postern {
namespace migration_stream_test {

using namespace migration_test;

class MigrationStreamOnKernel : public MigratingOnKernel {};

TEST_P(MigrationStreamOnKernel, AStreamIsAsLongAsTheDataSizeSaysHoweverItIsRead) {
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

TEST_P(MigrationStreamOnKernel, WhatWasSavedComesBack) {
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

TEST_P(MigrationStreamOnKernel, WhatIsReadBeforeAndAfterItStopsIsOneStream) {
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

TEST_P(MigrationStreamOnKernel, LeavingPreCopyForRunningAndComingBackBeginsAnew) {
  const Fd first = move(pre_copy);
  const Bytes told = read_all(first, 1000, end_of_precopy());
  move(running);
  EXPECT_EQ(read_byte(first), -ENODEV);
  const Fd second = move(pre_copy);
  ASSERT_TRUE(second);
  EXPECT_EQ(read_byte(first), -ENODEV);
  EXPECT_EQ(read_all(second, 1000, end_of_precopy()), told);
}

TEST_P(MigrationStreamOnKernel, AStreamThatIsCutShortIsRefusedAndItsRestMayFollow) {
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

TEST_P(MigrationStreamOnKernel, AResetEndsAResumeThatIsNotWhole) {
  const Bytes saved = save();
  set_mark(0x11);
  const Fd stream = move(resuming);
  write_all(stream, {saved.begin(), saved.end() - 1});
  EXPECT_EQ(try_move(running).result, -EINVAL);
  reset();
  EXPECT_EQ(state(), running);
  EXPECT_EQ(write_byte(stream), -ENODEV);
  // The effect of a reset on the device depends on the driver: edu clears its registers, mtty resets only the migration
  // state.
  EXPECT_EQ(mark(), migratable_->is_mtty() ? 0x11U : 0U);
}

TEST_P(MigrationStreamOnKernel, AStreamThatIsTooLongIsRefused) {
  const Bytes saved = save();
  const Fd stream = move(resuming);
  write_all(stream, saved);
  if (migratable_->is_mtty()) {
    // mtty knows the length, and refuses further bytes; the state that it received is valid.
    EXPECT_EQ(write_byte(stream), -ENOMEM);
    move(stop);
  } else {
    // edu's stream consists of chunks, so it could be the start of another: edu checks it when the stream ends.
    EXPECT_EQ(write_byte(stream), 1);
    EXPECT_EQ(try_move(stop).result, -EINVAL);
    EXPECT_EQ(state(), resuming);
  }
}

TEST_P(MigrationStreamOnKernel, GarbageIsRefused) {
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

TEST_P(MigrationStreamOnKernel, AStreamThatIsClosedLeavesTheStateAsItIs) {
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

TEST_P(MigrationStreamOnKernel, AStreamGoesOneWayAndHasNoOffsets) {
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

TEST_P(MigrationStreamOnKernel, PrecopyInfoIsOfARunningDevice) {
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

TEST_P(MigrationStreamOnKernel, PrecopyInfoHasFlagsOnceTheyAreAskedForAlsoOfAStreamThatIsThere) {
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

TEST_P(MigrationStreamOnKernel, AStreamEndsWithItsDevice) {
  const Fd stream = move(stop_copy);
  EXPECT_EQ(read_byte(stream), 1);
  device_.reset();
  EXPECT_EQ(read_byte(stream), -ENODEV);
  open();
  // mtty's driver keeps the state of a closed device; virtio's and mlx5's start again in RUNNING, as edu's does.
  EXPECT_EQ(state(), migratable_->is_mtty() ? stop_copy : running);
  EXPECT_EQ(read_byte(stream), -ENODEV);
}

TEST_P(MigrationStreamOnKernel, AStreamNeedsMemoryThatIsThereAndLosesNothingWithoutIt) {
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

TEST_P(MigrationStreamOnKernel, PrecopyInfoNeedsMemoryThatIsThere) {
  const Pages pages;
  const Fd stream = move(pre_copy);
  constexpr vfio_precopy_info info{.argsz = sizeof info, .flags = 0, .initial_bytes = 99, .dirty_bytes = 99};
  const auto ask = [&](void* at) { return test::kernel().ioctl(stream.get(), VFIO_MIG_GET_PRECOPY_INFO, at); };
  EXPECT_EQ(ask(pages.missing()), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.missing() - 8, info, 8)), -EFAULT);
  EXPECT_EQ(ask(pages.put(pages.read_only(), info)), -EFAULT);
  EXPECT_EQ(ask(nullptr), -EFAULT);
}

INSTANTIATE_TEST_SUITE_P(Ways, MigrationStreamOnKernel, ::testing::Values(Way::group, Way::cdev), name_of_way);

}  // namespace migration_stream_test
}  // namespace postern
