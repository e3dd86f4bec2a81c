// SPDX-License-Identifier: Apache-2.0
// write_and_restore(): writes to the last blocks of a namespace, and restores their content.
#include "proofs/nvme_write.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/dma_buffer.hpp>
#include <random>
#include <vector>

#include "proofs/deferred_signals.hpp"
#include "proofs/kept_blocks.hpp"
#include "proofs/nvme_blocks.hpp"
#include "proofs/poison.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

using Content = std::vector<std::byte>;

class WriteTest {
 public:
  WriteTest(ProofContext& context, std::optional<nvme::Controller>& controller, const nvme::Namespace& ns,
            std::uint32_t count, DmaBuffer& buffer)
      : context_(context),
        controller_(controller),
        ns_(ns),
        block_(ns.blocks - count),
        count_(count),
        buffer_(buffer),
        poison_(length()) {}

  [[nodiscard]] Result<std::string> run() {
    const auto old = POSTERN_TRY(read());
    const std::string path =
        fmt::format("{}/{}-namespace-{}-block-{}", context_.options.keep_in, context_.device.name(), ns_.id, block_);
    context_.session.note(
        fmt::format("postern: the content of {} is kept in {} during the write test\n", text(), path));

    const DeferredSignals held;
    auto kept = KeptBlocks::keep(path, old);
    if (!kept) return failure(not_kept(std::move(kept).error()));
    auto written = write_and_compare(random_pattern());
    if (auto restored = restore(old); !restored) {
      return failure(not_restored(kept->path(), std::move(restored).error()));
    }
    POSTERN_TRY(kept->remove());
    POSTERN_TRY(written);
    return fmt::format("{}: {} written, read back, every byte compared, and the old content restored", text(),
                       size_text(length()));
  }

 private:
  [[nodiscard]] std::size_t length() const { return std::size_t{count_} * ns_.block_size; }
  [[nodiscard]] std::string text() const {
    return fmt::format("blocks {} to {} of namespace {}", block_, block_ + count_ - 1, ns_.id);
  }
  // Random in each run, so that data of an earlier run is not mistaken for this one's.
  [[nodiscard]] Content random_pattern() const {
    std::random_device random;
    return pattern_of(length(), std::uint64_t{random()} << 32 | random());
  }

  [[nodiscard]] Result<Content> read() {
    poison_.fill(buffer_.bytes().first(length()));
    POSTERN_TRY(controller_->read(ns_, block_, count_, buffer_.iova()));
    if (poison_.first_left(buffer_.bytes().first(length()), ns_.block_size)) {
      return failure(proof_error(EIO, "compare", text(), "the read succeeded, but its data did not arrive in memory"));
    }
    return Content(buffer_.data(), buffer_.data() + length());
  }

  [[nodiscard]] Result<void> write_and_compare(const Content& bytes) {
    std::memcpy(buffer_.data(), bytes.data(), bytes.size());
    auto done = controller_->write(ns_, block_, count_, buffer_.iova());
    // A failed write may have written something, except if the namespace is write-protected.
    is_touched_ = is_touched_ || done || done.error().code() != EROFS;
    if (done) done = controller_->flush(ns_);
    POSTERN_TRY(done);
    const auto back = POSTERN_TRY(read());
    if (back == bytes) return {};
    return failure(proof_error(EIO, "compare", text(), "the bytes read back differ from those written"));
  }

  [[nodiscard]] Result<void> restore_once(const Content& old) {
    const auto now = POSTERN_TRY(read());
    if (now != old) return write_and_compare(old);
    return is_touched_ ? controller_->flush(ns_) : Result<void>();
  }

  // Retries with a restarted controller, since the driver may have stopped the one before.
  [[nodiscard]] Result<void> restore(const Content& old) {
    constexpr int restarts = 3;
    auto done = restore_once(old);
    for (int i = 0; !done && i < restarts; ++i) {
      done = restart();
      if (done) done = restore_once(old);
    }
    return done;
  }

  [[nodiscard]] Result<void> restart() {
    controller_.reset();
    auto opened = nvme::Controller::open(context_.device, context_.allocator);
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
                               "it has changed since the controller was restarted"));
  }

  [[nodiscard]] std::string how_to_restore(const std::string& path) const {
    return fmt::format(
        "restore the driver of the disk (\"postern unbind {}\"), copy {} to its block {} (dd with bs={}, seek={} and "
        "conv=notrunc,fsync), and remove the file",
        context_.device.name(), path, block_, ns_.block_size, block_);
  }
  [[nodiscard]] Error not_kept(Error error) const {
    if (error.code() != EEXIST) return error;
    return proof_error(
        EEXIST, "open", error.object(),
        fmt::format("an earlier write test ended before it had restored {}; this file has their content", text()),
        how_to_restore(error.object()));
  }
  [[nodiscard]] Error not_restored(const std::string& path, Error cause) const {
    std::vector<Error> causes;
    causes.push_back(std::move(cause));
    return Error(
        {.code = EIO,
         .operation = "write",
         .object = text(),
         .reason =
             "THE OLD CONTENT COULD NOT BE RESTORED: these blocks may hold a test pattern. Their content is in " + path,
         .remedy = how_to_restore(path),
         .causes = std::move(causes)});
  }

  ProofContext& context_;
  std::optional<nvme::Controller>& controller_;
  const nvme::Namespace ns_;  // a copy: the controller may be restarted
  const std::uint64_t block_;
  const std::uint32_t count_;
  DmaBuffer& buffer_;
  const Poison poison_;
  bool is_touched_ = false;
};

}  // namespace

Result<std::string> write_and_restore(ProofContext& context, std::optional<nvme::Controller>& controller,
                                      const nvme::Namespace& ns) {
  constexpr std::uint64_t most_bytes = std::uint64_t{64} << 10;
  const auto count = static_cast<std::uint32_t>(
      std::min(blocks_at_a_time(ns.block_size, controller->info().max_transfer, most_bytes), ns.blocks));
  auto buffer = POSTERN_TRY(DmaBuffer::allocate(context.device.device().container(), context.allocator,
                                                std::uint64_t{count} * ns.block_size));
  return WriteTest(context, controller, ns, count, buffer).run();
}

}  // namespace postern::tool
