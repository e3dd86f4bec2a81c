// SPDX-License-Identifier: Apache-2.0
// NvmeDisk: stores written blocks, and computes the content of the others.
#include "sim/devices/nvme/disk.hpp"

#include <algorithm>

#include "sim/devices/nvme/spec.hpp"

namespace postern::sim {
namespace {

// splitmix64: a bijection, so at most one number gives 0.
constexpr std::uint64_t mix(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
  number = (number ^ number >> 27) * 0x94d049bb133111eb;
  return number ^ number >> 31;
}

constexpr std::uint64_t seed_of(std::string_view serial) {
  std::uint64_t seed = serial.size();
  for (const char c : serial) seed = mix(seed ^ static_cast<unsigned char>(c));
  return seed;
}

}  // namespace

NvmeDisk::NvmeDisk(std::uint64_t bytes, std::string_view serial)
    : blocks_(bytes / block_size), seed_(seed_of(serial)) {}

void NvmeDisk::read(std::uint64_t block, std::span<std::byte, block_size> bytes) const {
  if (const auto found = written_.find(block); found != written_.end()) {
    std::copy(found->second.begin(), found->second.end(), bytes.begin());
    return;
  }
  const std::uint64_t first = seed_ + block * (block_size / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < block_size / sizeof(std::uint64_t); ++i) {
    nvm::put_little(std::span<std::byte>(bytes), i * sizeof(std::uint64_t), mix(first + i));
  }
}

void NvmeDisk::write(std::uint64_t block, std::span<const std::byte, block_size> bytes) {
  std::copy(bytes.begin(), bytes.end(), written_[block].begin());
}

}  // namespace postern::sim
