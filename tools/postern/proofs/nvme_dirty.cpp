// SPDX-License-Identifier: Apache-2.0
// compare_dirty_pages(): dirty tracking while an NVMe controller reads.
#include "proofs/nvme_dirty.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <postern/dma_buffer.hpp>

#include "proofs/poison.hpp"

namespace postern::tool {
namespace {

constexpr std::uint64_t pages = 256;
constexpr std::uint64_t stride = 7;  // one page in so many is read into

class DirtyRead {
 public:
  DirtyRead(DirtyTracker& tracker, nvme::Controller& controller, const nvme::Namespace& ns, DmaBuffer& buffer,
            std::uint64_t page)
      : tracker_(tracker), controller_(controller), ns_(ns), buffer_(buffer), page_(page), poison_(page) {}

  [[nodiscard]] Result<DirtyReport> run() {
    for (std::uint64_t i = 0; i < pages; ++i) poison_.fill(page_at(i));
    for (std::uint64_t i = 0; i < pages; i += stride) {
      POSTERN_TRY(controller_.read(ns_, i / stride % ns_.blocks, 1, buffer_.iova() + i * page_));
      // Some are queried at once, the others by the final query.
      if (i < pages / 2) {
        POSTERN_TRY(query());
      }
    }
    POSTERN_TRY(query());
    return compare();
  }

 private:
  [[nodiscard]] std::span<std::byte> page_at(std::uint64_t number) const {
    return buffer_.bytes().subspan(number * page_, page_);
  }

  [[nodiscard]] Result<void> query() {
    POSTERN_TRY(tracker_.query({buffer_.iova(), buffer_.iova() + (pages * page_ - 1)}, {page_, marked_}));
    return {};
  }

  [[nodiscard]] Result<DirtyReport> compare() const {
    DirtyReport report{.pages = pages, .tracked = tracker_.devices().front()};
    for (std::uint64_t i = 0; i < pages; ++i) {
      const bool written = !poison_.is_untouched(page_at(i));
      const bool marked = (marked_[i / 64] >> i % 64 & 1) != 0;
      report.written += written ? 1 : 0;
      report.marked += marked ? 1 : 0;
      const bool was_read_into = i % stride == 0;
      if (written != was_read_into) {
        return failure(proof_error(EIO, "compare", fmt::format("the page at {}", to_string(buffer_.iova() + i * page_)),
                                   written ? "the device wrote it without a command to do so"
                                           : "the read succeeded, but no data arrived: DMA does not work"));
      }
      if (written && !marked) {
        return failure(proof_error(EIO, "compare", fmt::format("the page at {}", to_string(buffer_.iova() + i * page_)),
                                   "the device wrote it, but no query reported it: a migration would lose it"));
      }
    }
    return report;
  }

  DirtyTracker& tracker_;
  nvme::Controller& controller_;
  const nvme::Namespace& ns_;
  DmaBuffer& buffer_;
  std::uint64_t page_;
  Poison poison_;
  std::vector<std::uint64_t> marked_ = std::vector<std::uint64_t>(pages / 64);
};

}  // namespace

Result<DirtyReport> compare_dirty_pages(ProofContext& context, DirtyTracker& tracker, nvme::Controller& controller,
                                        const nvme::Namespace& ns) {
  const auto container = context.device.device().container();
  const std::uint64_t smallest = container->page_sizes() & (~container->page_sizes() + 1);
  const std::uint64_t page = std::bit_ceil(std::max<std::uint64_t>(smallest, ns.block_size));
  auto buffer = POSTERN_TRY(DmaBuffer::allocate(container, context.allocator, pages * page));
  POSTERN_TRY(tracker.start());
  auto report = DirtyRead(tracker, controller, ns, buffer, page).run();
  auto stopped = tracker.stop();
  if (report && !stopped) return failure_of(stopped);
  return report;
}

}  // namespace postern::tool
