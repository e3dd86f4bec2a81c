// SPDX-License-Identifier: Apache-2.0
// populate(): threads that take 16 MiB after 16 MiB of memory and fault it in.
#include <postern/populate.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <postern/format.hpp>
#include <system_error>
#include <thread>
#include <vector>

#include "iommu/file_memory.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr std::uint64_t piece = std::uint64_t{16} << 20;  // a multiple of huge pages up to 16 MiB

std::string object_text(const Memory& memory) { return fmt::format("populate {}", size_text(memory.length())); }

// What the threads share.
class Population {
 public:
  Population(Kernel& kernel, std::span<std::byte> bytes, int advice, const PopulateOptions& options)
      : kernel_(kernel), bytes_(bytes), advice_(advice), options_(options) {}

  // Populates pieces until there are no more, one fails, or it is to stop.
  void work() noexcept {
    while (result_ == 0 && !options_.stop.stop_requested()) {
      const std::uint64_t first = next_.fetch_add(piece);
      if (first >= bytes_.size()) return;
      const std::span<std::byte> part = bytes_.subspan(first, std::min(piece, bytes_.size() - first));
      int result = 0;
      do {
        result = kernel_.madvise(part.data(), part.size(), advice_);
      } while (result == -EAGAIN);  // a page was taken away in between
      int none = 0;
      if (result < 0) {
        result_.compare_exchange_strong(none, result);
        return;
      }
      const std::lock_guard lock(mutex_);
      done_ += part.size();
      if (options_.progress) options_.progress(done_);
    }
  }

  [[nodiscard]] int result() const noexcept { return result_; }  // 0, or the negated errno of the first failure
  [[nodiscard]] bool is_complete() const noexcept { return done_ == bytes_.size(); }

 private:
  Kernel& kernel_;
  std::span<std::byte> bytes_;
  int advice_;
  const PopulateOptions& options_;
  std::atomic<std::uint64_t> next_ = 0;
  std::atomic<int> result_ = 0;
  std::mutex mutex_;  // guards done_, and is held while progress is told
  std::uint64_t done_ = 0;
};

unsigned threads_for(const PopulateOptions& options, std::uint64_t length) {
  const unsigned wanted =
      options.threads != 0 ? options.threads : std::clamp(std::thread::hardware_concurrency(), 1U, 16U);
  return static_cast<unsigned>(std::min<std::uint64_t>(wanted, (length + piece - 1) / piece));
}

Result<void> populate_bytes(Kernel& kernel, std::span<std::byte> bytes, int advice, const PopulateOptions& options,
                            const LazyText& object) {
  if (options.huge_pages) (void)kernel.madvise(bytes.data(), bytes.size(), MADV_HUGEPAGE);  // where it can have them
  Population population(kernel, bytes, advice, options);
  {
    std::vector<std::jthread> threads;
    try {
      for (unsigned i = 1; i < threads_for(options, bytes.size()); ++i)
        threads.emplace_back([&] { population.work(); });
    } catch (const std::system_error&) {  // no more threads: fewer do the same
    }
    population.work();
  }
  if (const int result = population.result(); result < 0) {
    CallFailed what{.result = result, .object = object()};
    if (result == -EFAULT)
      what.reason = "a page cannot be had: the file may end before it, or there are too few huge pages";
    if (result == -ENOMEM) what.reason = "part of the range is not mapped in this process, or memory ran out";
    if (result == -EINVAL) what.reason = "the memory is read-only, or does not begin at a page";
    return call_failure("madvise", std::move(what));
  }
  if (population.is_complete()) return {};
  return refusal({.result = -ECANCELED, .object = object(), .reason = "it was stopped"});
}

}  // namespace

Result<void> populate(Kernel& kernel, const Memory& memory, const PopulateOptions& options) {
  const LazyText object = [&] { return object_text(memory); };
  if (memory.length() == 0) return {};
  if (memory.kind() == Memory::Kind::dma_buf) {
    return refusal({.result = -EOPNOTSUPP, .object = object(), .reason = "a dma-buf has its pages from the start"});
  }
  if (memory.kind() == Memory::Kind::address) {
    return populate_bytes(kernel, {memory.address(), memory.length()}, MADV_POPULATE_WRITE, options, object);
  }
  ExaminedFiles files;
  auto writable = files.check(memory, Access::read_write, object);
  if (!writable && !writable.error().refused()) return writable;
  if (!writable) POSTERN_TRY(files.check(memory, Access::read, object));
  const bool may_write = writable.has_value();
  POSTERN_TRY(files.find_holes(memory, object));
  auto mapped = POSTERN_TRY(map_into_process(memory, may_write ? Access::read_write : Access::read, object));
  auto populated = populate_bytes(kernel, {mapped.address, memory.length()},
                                  may_write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ, options, object);
  if (populated) files.keep();
  return populated;
}

}  // namespace postern
