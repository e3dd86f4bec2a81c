// SPDX-License-Identifier: Apache-2.0
// Writing to the last blocks of a namespace, and putting back what was there.
#include "proofs/nvme_write.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <postern/dma_buffer.hpp>
#include <vector>

#include "proofs/poison.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

// Holds off the signals by which a person ends a program; what came meanwhile comes when it goes.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, signal);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~SignalsHeld() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_{};
};

struct Place {
  nvme::Controller& controller;
  const nvme::Namespace& ns;
  std::uint64_t block;
  std::uint32_t count;
  DmaBuffer& buffer;

  [[nodiscard]] std::size_t length() const { return std::size_t{count} * ns.block_size; }
  [[nodiscard]] std::string text() const {
    return fmt::format("blocks {} to {} of namespace {}", block, block + count - 1, ns.id);
  }

  [[nodiscard]] Result<std::vector<std::byte>> read(const Poison& poison) const {
    poison.fill(buffer.bytes().first(length()));
    if (auto done = controller.read(ns, block, count, buffer.iova()); !done) return failure_of(done);
    if (poison.first_left(buffer.bytes().first(length()), ns.block_size)) {
      return failure(proof_error(EIO, "compare", text(), "the read ended well, but its data did not arrive in memory"));
    }
    return std::vector<std::byte>(buffer.data(), buffer.data() + length());
  }

  [[nodiscard]] Result<void> write(const std::vector<std::byte>& bytes) const {
    std::memcpy(buffer.data(), bytes.data(), bytes.size());
    if (auto done = controller.write(ns, block, count, buffer.iova()); !done) return done;
    return controller.flush(ns);
  }
};

Result<void> write_and_compare(const Place& place, const Poison& poison, const std::vector<std::byte>& bytes) {
  if (auto done = place.write(bytes); !done) return done;
  auto back = place.read(poison);
  if (!back) return failure_of(back);
  if (*back == bytes) return {};
  return failure(proof_error(EIO, "compare", place.text(), "other bytes were read back than had been written"));
}

Error not_restored(const Place& place, Error cause) {
  std::vector<Error> causes;
  causes.push_back(std::move(cause));
  return Error({.code = EIO,
                .operation = "write",
                .object = place.text(),
                .reason = "THE OLD CONTENT COULD NOT BE RESTORED: a test pattern may be left in them",
                .remedy = "restore these blocks from a backup",
                .causes = std::move(causes)});
}

}  // namespace

Result<std::string> write_and_restore(Bench& bench, nvme::Controller& controller, const nvme::Namespace& ns) {
  constexpr std::uint64_t most_bytes = std::uint64_t{64} << 10;
  const std::uint64_t longest = std::min(controller.info().max_transfer, most_bytes) / ns.block_size;
  const auto count = static_cast<std::uint32_t>(std::min(longest, ns.blocks));
  auto buffer =
      DmaBuffer::allocate(bench.device.device().container(), bench.allocator, std::uint64_t{count} * ns.block_size);
  if (!buffer) return failure_of(buffer);
  const Place place{.controller = controller, .ns = ns, .block = ns.blocks - count, .count = count, .buffer = *buffer};
  const Poison poison(place.length());

  auto old = place.read(poison);
  if (!old) return failure_of(old);
  const SignalsHeld held;
  auto written = write_and_compare(place, poison, pattern_of(place.length(), 0x706f737465726eULL));
  if (auto restored = write_and_compare(place, poison, *old); !restored) {
    return failure(not_restored(place, std::move(restored).error()));
  }
  if (!written) return failure_of(written);
  return fmt::format("{}: {} written, read back, every byte compared, and the old content restored", place.text(),
                     size_text(place.length()));
}

}  // namespace postern::tool
