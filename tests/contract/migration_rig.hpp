// SPDX-License-Identifier: Apache-2.0
// Helpers for migration tests that make plain system calls on the kernel under test.
#pragma once

#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/migratable_device.hpp"

namespace postern::migration_test {

using test::MigratableDevice;
using test::RawDevice;
using Bytes = std::vector<std::byte>;

inline constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
inline constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;
inline constexpr std::uint32_t probe = VFIO_DEVICE_FEATURE_PROBE;
inline constexpr std::uint32_t migration = VFIO_DEVICE_FEATURE_MIGRATION;
inline constexpr std::uint32_t device_state = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
inline constexpr std::uint32_t data_size = VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
inline constexpr std::uint32_t precopy_info_v2 = VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;

inline constexpr std::uint32_t stop = VFIO_DEVICE_STATE_STOP;
inline constexpr std::uint32_t running = VFIO_DEVICE_STATE_RUNNING;
inline constexpr std::uint32_t stop_copy = VFIO_DEVICE_STATE_STOP_COPY;
inline constexpr std::uint32_t resuming = VFIO_DEVICE_STATE_RESUMING;
inline constexpr std::uint32_t running_p2p = VFIO_DEVICE_STATE_RUNNING_P2P;
inline constexpr std::uint32_t pre_copy = VFIO_DEVICE_STATE_PRE_COPY;
inline constexpr std::uint32_t pre_copy_p2p = VFIO_DEVICE_STATE_PRE_COPY_P2P;
inline constexpr std::array states{stop, running, stop_copy, resuming, running_p2p, pre_copy, pre_copy_p2p};

inline bool is_precopy(std::uint32_t state) { return state == pre_copy || state == pre_copy_p2p; }
// The states that share a stream.
inline bool is_saving(std::uint32_t state) { return is_precopy(state) || state == stop_copy; }

enum class Way { group, cdev };

class MigratingOnKernel : public ::testing::TestWithParam<Way> {
 protected:
  ~MigratingOnKernel() override {
    device_.reset();
    migratable_.reset();
    EXPECT_TRUE(before_ == test::ResourceUse::now()) << "something was left behind";
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
  // Requests a state, and checks the parts of the answer that are the same for every driver.
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
  // Reads until read(2) returns `end`.
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
  // Returns the device's saved state and lets it run again.
  Bytes save() {
    const Fd stream = move(stop_copy);
    Bytes saved = read_all(stream);
    move(running);
    return saved;
  }
  // During pre-copy, the data read ends with ENOMSG (linux/vfio.h); mtty's driver returns 0, as for a stopped device.
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

  const test::ResourceUse before_ = test::ResourceUse::now();
  std::unique_ptr<MigratableDevice> migratable_;
  std::optional<RawDevice> device_;
};

// Three adjacent pages: writable, read-only, inaccessible.
class Pages {
 public:
  Pages() {
    void* const all = ::mmap(nullptr, 3 * size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::runtime_error("mmap");
    start_ = static_cast<std::byte*>(all);
    ::mprotect(start_ + size_, size_, PROT_READ);
    ::mprotect(start_ + 2 * size_, size_, PROT_NONE);
  }
  ~Pages() { ::munmap(start_, 3 * size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  [[nodiscard]] std::byte* read_only() const { return start_ + size_; }
  [[nodiscard]] std::byte* missing() const { return start_ + 2 * size_; }
  // Puts a value, or its first `length` bytes, into read-only memory, or where accessible memory ends within it.
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

inline std::string name_of_way(const ::testing::TestParamInfo<Way>& test) {
  return test.param == Way::group ? "group" : "cdev";
}

}  // namespace postern::migration_test
