// SPDX-License-Identifier: Apache-2.0
// Writing to the last blocks of a namespace, and putting back what was there.
#include "proofs/nvme_write.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/dma_buffer.hpp>
#include <random>
#include <vector>

#include "proofs/kept_blocks.hpp"
#include "proofs/nvme_blocks.hpp"
#include "proofs/poison.hpp"
#include "proofs/signals_held.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

using Content = std::vector<std::byte>;

class WriteTest {
 public:
  WriteTest(Bench& bench, std::optional<nvme::Controller>& controller, const nvme::Namespace& ns, std::uint32_t count,
            DmaBuffer& buffer)
      : bench_(bench),
        controller_(controller),
        ns_(ns),
        block_(ns.blocks - count),
        count_(count),
        buffer_(buffer),
        poison_(length()) {}

  [[nodiscard]] Result<std::string> run() {
    auto old = read();
    if (!old) return failure_of(old);
    const std::string path =
        fmt::format("{}/{}-namespace-{}-block-{}", bench_.options.keep_in, bench_.device.name(), ns_.id, block_);
    bench_.session.note(fmt::format("postern: what {} hold is kept in {} while they are written to\n", text(), path));

    const SignalsHeld held;
    auto kept = KeptBlocks::keep(path, *old);
    if (!kept) return failure(not_kept(std::move(kept).error()));
    auto written = write_and_compare(random_pattern());
    if (auto restored = restore(*old); !restored) {
      return failure(not_restored(kept->path(), std::move(restored).error()));
    }
    if (auto done = kept->forget(); !done) return failure_of(done);
    if (!written) return failure_of(written);
    return fmt::format("{}: {} written, read back, every byte compared, and the old content restored", text(),
                       size_text(length()));
  }

 private:
  [[nodiscard]] std::size_t length() const { return std::size_t{count_} * ns_.block_size; }
  [[nodiscard]] std::string text() const {
    return fmt::format("blocks {} to {} of namespace {}", block_, block_ + count_ - 1, ns_.id);
  }
  // Another in each run: what an earlier one left there must not pass for what this one wrote.
  [[nodiscard]] Content random_pattern() const {
    std::random_device random;
    return pattern_of(length(), std::uint64_t{random()} << 32 | random());
  }

  [[nodiscard]] Result<Content> read() {
    poison_.fill(buffer_.bytes().first(length()));
    if (auto done = controller_->read(ns_, block_, count_, buffer_.iova()); !done) return failure_of(done);
    if (poison_.first_left(buffer_.bytes().first(length()), ns_.block_size)) {
      return failure(proof_error(EIO, "compare", text(), "the read ended well, but its data did not arrive in memory"));
    }
    return Content(buffer_.data(), buffer_.data() + length());
  }

  [[nodiscard]] Result<void> write_and_compare(const Content& bytes) {
    std::memcpy(buffer_.data(), bytes.data(), bytes.size());
    auto done = controller_->write(ns_, block_, count_, buffer_.iova());
    // Also of one that failed nobody knows how much it wrote; but it is said that this one wrote nothing.
    is_touched_ = is_touched_ || done || done.error().code() != EROFS;
    if (done) done = controller_->flush(ns_);
    if (!done) return done;
    auto back = read();
    if (!back) return failure_of(back);
    if (*back == bytes) return {};
    return failure(proof_error(EIO, "compare", text(), "other bytes were read back than had been written"));
  }

  [[nodiscard]] Result<void> put_back(const Content& old) {
    auto now = read();
    if (!now) return failure_of(now);
    if (*now != old) return write_and_compare(old);
    return is_touched_ ? controller_->flush(ns_) : Result<void>();
  }

  // What failed once may work with a controller that was started anew: the one before may have been stopped.
  [[nodiscard]] Result<void> restore(const Content& old) {
    constexpr int restarts = 3;
    auto done = put_back(old);
    for (int i = 0; !done && i < restarts; ++i) {
      done = start_anew();
      if (done) done = put_back(old);
    }
    return done;
  }

  [[nodiscard]] Result<void> start_anew() {
    controller_.reset();
    auto opened = nvme::Controller::open(bench_.device, bench_.allocator);
    if (!opened) {
      controller_.reset();
      return failure_of(opened);
    }
    controller_.emplace(std::move(*opened));
    const auto& all = controller_->namespaces();
    const bool is_same = std::any_of(all.begin(), all.end(), [this](const nvme::Namespace& other) {
      return other.id == ns_.id && other.blocks == ns_.blocks && other.block_size == ns_.block_size;
    });
    if (is_same) return {};
    return failure(proof_error(ENODEV, "NVMe Identify", fmt::format("namespace {}", ns_.id),
                               "it is not what it was before the controller was started anew"));
  }

  [[nodiscard]] std::string how_to_put_back(const std::string& path) const {
    return fmt::format(
        "give the disk to its own driver (\"postern unbind {}\"), copy {} to its block {} (dd with bs={}, seek={} and "
        "conv=notrunc,fsync), and remove the file",
        bench_.device.name(), path, block_, ns_.block_size, block_);
  }
  [[nodiscard]] Error not_kept(Error error) const {
    if (error.code() != EEXIST) return error;
    return proof_error(
        EEXIST, "open", error.object(),
        fmt::format("an earlier write test was ended before it had put back {}: this is what they held", text()),
        how_to_put_back(error.object()));
  }
  [[nodiscard]] Error not_restored(const std::string& path, Error cause) const {
    std::vector<Error> causes;
    causes.push_back(std::move(cause));
    return Error(
        {.code = EIO,
         .operation = "write",
         .object = text(),
         .reason = "THE OLD CONTENT COULD NOT BE RESTORED: a test pattern may be left in them. It is in " + path,
         .remedy = how_to_put_back(path),
         .causes = std::move(causes)});
  }

  Bench& bench_;
  std::optional<nvme::Controller>& controller_;
  const nvme::Namespace ns_;  // a copy: controllers come and go
  const std::uint64_t block_;
  const std::uint32_t count_;
  DmaBuffer& buffer_;
  const Poison poison_;
  bool is_touched_ = false;
};

}  // namespace

Result<std::string> write_and_restore(Bench& bench, std::optional<nvme::Controller>& controller,
                                      const nvme::Namespace& ns) {
  constexpr std::uint64_t most_bytes = std::uint64_t{64} << 10;
  const auto count = static_cast<std::uint32_t>(
      std::min(blocks_at_a_time(ns.block_size, controller->info().max_transfer, most_bytes), ns.blocks));
  auto buffer =
      DmaBuffer::allocate(bench.device.device().container(), bench.allocator, std::uint64_t{count} * ns.block_size);
  if (!buffer) return failure_of(buffer);
  return WriteTest(bench, controller, ns, count, *buffer).run();
}

}  // namespace postern::tool
