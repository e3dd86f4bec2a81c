// SPDX-License-Identifier: Apache-2.0
// The migration states of a device: the results of vfio_main.c and of a driver that uses vfio_mig_get_next_state
// (Linux 7.3). Neither driver tested here ever enters the state ERROR.
#include "contract/migration_rig.hpp"

namespace postern {
namespace migration_test {

using namespace migration_test;

class MigrationOnKernel : public MigratingOnKernel {};

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
      // The old stream ends unless the new state shares it.
      if (is_saving(from)) {
        EXPECT_EQ(read_byte(first), is_saving(to) ? 1 : -ENODEV);
      }
      if (from == resuming && to != resuming) {
        EXPECT_EQ(write_byte(first), -ENODEV);
      }
    }
  }
}

TEST_P(MigrationOnKernel, StatesThatCannotBeRequestedAreRefusedInEveryState) {
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

TEST_P(MigrationOnKernel, TheDataSizeIsToldInEveryState) {
  const std::uint64_t size = size_of_data();
  EXPECT_GT(size, 0U);
  for (const std::uint32_t each : states) {
    const Fd stream = move(each);
    EXPECT_EQ(size_of_data(), size) << each;
    reset();
  }
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

TEST_P(MigrationOnKernel, AnInvalidPointerIsRefusedButAnUnwritableAnswerTakesEffect) {
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
  // The stream whose fd could not be returned exists, and its fd is not returned later either.
  const Request copy{.flags = set | device_state, .state = {.device_state = stop_copy, .data_fd = 77}};
  EXPECT_EQ(ask(pages.put(pages.read_only(), copy)), -EFAULT);
  EXPECT_EQ(state(), stop_copy);
  EXPECT_FALSE(move(stop_copy));
  // If the answer cannot be written, EFAULT replaces the errno of the refusal.
  const Request never{.flags = set | device_state, .state = {.device_state = 100, .data_fd = 77}};
  EXPECT_EQ(ask(pages.put(pages.read_only(), never)), -EFAULT);
  EXPECT_EQ(state(), stop_copy);
}

// Checks of the VFIO core before it calls the driver. Both devices support DMA logging, mtty only nominally.
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

INSTANTIATE_TEST_SUITE_P(Ways, MigrationOnKernel, ::testing::Values(Way::group, Way::cdev), name_of_way);

}  // namespace migration_test
}  // namespace postern
