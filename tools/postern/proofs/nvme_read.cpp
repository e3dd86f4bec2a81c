// SPDX-License-Identifier: Apache-2.0
// read_namespace(): reads an NVMe namespace with many commands in flight.
#include "proofs/nvme_read.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <postern/dma_buffer.hpp>
#include <unordered_map>
#include <vector>

#include "proofs/nvme_blocks.hpp"
#include "proofs/poison.hpp"
#include "proofs/sha256.hpp"
#include "text/progress.hpp"

namespace postern::tool {
namespace {

constexpr std::uint64_t largest_chunk = std::uint64_t{128} << 10;

// A ring of slots. Each has a piece of the buffer and reads one chunk of the namespace. Commands complete in any order;
// the digest takes the chunks in order.
class NamespaceReader {
 public:
  NamespaceReader(nvme::Controller& controller, const nvme::Namespace& ns, std::uint64_t bytes, std::uint64_t chunk,
                  DmaBuffer& buffer, unsigned depth)
      : controller_(controller),
        ns_(ns),
        bytes_(bytes),
        chunk_(chunk),
        buffer_(buffer),
        slots_(depth),
        poison_(chunk) {}

  // When this returns, no command is in flight, so the buffer may be freed.
  [[nodiscard]] Result<void> run(Sha256& digest, Progress& progress) {
    auto done = read(digest, progress);
    while (!slot_of_command_.empty()) {
      const auto completed = controller_.wait();
      if (!completed) break;  // then the driver has stopped the controller
      slot_of_command_.erase(completed->command);
    }
    return done;
  }

  [[nodiscard]] std::uint64_t commands() const noexcept { return commands_; }

 private:
  struct Slot {
    bool done = false;
  };

  [[nodiscard]] Result<void> read(Sha256& digest, Progress& progress) {
    while (taken_ < bytes_) {
      while (submitted_ < bytes_ && submitted_ - taken_ < chunk_ * slots_.size()) {
        POSTERN_TRY(submit());
      }
      POSTERN_TRY(take_oldest(digest));
      progress.show(taken_);
    }
    return {};
  }

  [[nodiscard]] std::size_t slot_of(std::uint64_t position) const { return (position / chunk_) % slots_.size(); }
  [[nodiscard]] std::uint64_t length_at(std::uint64_t position) const { return std::min(chunk_, bytes_ - position); }
  [[nodiscard]] std::span<std::byte> memory_of(std::uint64_t position) const {
    return buffer_.bytes().subspan(slot_of(position) * chunk_, length_at(position));
  }

  [[nodiscard]] Result<void> submit() {
    const std::size_t slot = slot_of(submitted_);
    poison_.fill(memory_of(submitted_));
    slots_[slot].done = false;
    const auto command = POSTERN_TRY(controller_.submit_read(
        ns_, submitted_ / ns_.block_size, static_cast<std::uint32_t>(length_at(submitted_) / ns_.block_size),
        buffer_.iova() + slot * chunk_));
    slot_of_command_[command] = slot;
    submitted_ += length_at(submitted_);
    ++commands_;
    return {};
  }

  [[nodiscard]] Result<void> take_oldest(Sha256& digest) {
    Slot& slot = slots_[slot_of(taken_)];
    while (!slot.done) {
      const auto completed = POSTERN_TRY(controller_.wait());
      const auto found = slot_of_command_.find(completed.command);
      if (found == slot_of_command_.end()) {
        return failure(
            proof_error(EIO, "read", "namespace", "the controller completed a command that was not in flight"));
      }
      if (completed.status != 0) {
        return failure(
            proof_error(EIO, "read", fmt::format("namespace {}", ns_.id), nvme::status_text(completed.status)));
      }
      slots_[found->second].done = true;
      slot_of_command_.erase(found);
    }
    const std::span<std::byte> memory = memory_of(taken_);
    if (const auto left = poison_.first_left(memory, ns_.block_size)) {
      return failure(proof_error(EIO, "compare",
                                 fmt::format("block {} of namespace {}", (taken_ + *left) / ns_.block_size, ns_.id),
                                 "the command succeeded, but its data did not arrive in memory: DMA does not work",
                                 "the kernel's log (dmesg) lists the addresses that the IOMMU blocked"));
    }
    digest.add(memory);
    taken_ += memory.size();
    return {};
  }

  nvme::Controller& controller_;
  const nvme::Namespace& ns_;
  std::uint64_t bytes_;
  std::uint64_t chunk_;
  DmaBuffer& buffer_;
  std::vector<Slot> slots_;
  Poison poison_;
  std::unordered_map<std::uint16_t, std::size_t> slot_of_command_;
  std::uint64_t submitted_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t commands_ = 0;
};

}  // namespace

Result<ReadReport> read_namespace(ProofContext& context, nvme::Controller& controller, const nvme::Namespace& ns,
                                  std::uint64_t bytes, unsigned depth) {
  const std::uint64_t chunk =
      blocks_at_a_time(ns.block_size, controller.info().max_transfer, largest_chunk) * ns.block_size;
  const std::uint64_t whole_blocks = bytes / ns.block_size * ns.block_size;
  auto buffer = POSTERN_TRY(DmaBuffer::allocate(context.device.device().container(), context.allocator, chunk * depth));

  Sha256 digest;
  Progress progress(context.session.err, fmt::format("reading {}", context.device.name()), whole_blocks);
  NamespaceReader reader(controller, ns, whole_blocks, chunk, buffer, depth);
  const auto started = std::chrono::steady_clock::now();
  auto done = reader.run(digest, progress);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  POSTERN_TRY(done);
  return ReadReport{.bytes = whole_blocks,
                    .commands = reader.commands(),
                    .depth = depth,
                    .seconds = seconds,
                    .buffers = {buffer.iova(), buffer.iova() + (buffer.size() - 1)},
                    .sha256 = digest.finish()};
}

}  // namespace postern::tool
