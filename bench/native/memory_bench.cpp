// SPDX-License-Identifier: Apache-2.0
// Measures the IOVA allocator and the shadow map. Each line: name, value, unit, limit, and "ok" or "over".
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <numeric>
#include <postern/iova_allocator.hpp>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "figure.hpp"
#include "memory/shadow_map.hpp"

namespace postern {
namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t page = 4 * kib;
constexpr std::uint64_t page_sizes = page | 2 * mib | 1024 * mib;
// The usable ranges of an x86 host with an address width of 48 bits: all but the interrupt window.
const std::vector<IovaRange> usable{{{0}, {0xfedfffff}}, {{0xfef00000}, {(1ULL << 48) - 1}}};

// The allocator under test, without error handling.
class PosternAllocator {
 public:
  std::uint64_t allocate(std::uint64_t length) { return allocator_.allocate(length)->value; }
  void free(std::uint64_t first, std::uint64_t length) {
    if (!allocator_.free({first}, length)) std::abort();
  }
  void allocate_at(std::uint64_t first, std::uint64_t length) {
    if (!allocator_.allocate_at({first}, length)) std::abort();
  }

 private:
  IovaAllocator allocator_{usable, page_sizes};
};

// The obvious allocator from standard containers: free ranges by address and by length, best fit, merged when freed.
class StdMap {
 public:
  StdMap() {
    for (const IovaRange& range : usable) add(std::max(range.first.value, page), range.last.value + 1);
  }
  std::uint64_t allocate(std::uint64_t length) {
    for (std::uint64_t alignments = page_sizes & (std::bit_floor(length) * 2 - 1);;) {
      const std::uint64_t alignment = std::bit_floor(alignments);
      for (auto found = by_length_.lower_bound({length, 0}); found != by_length_.end(); ++found) {
        const auto [bytes, first] = *found;
        const std::uint64_t aligned = (first + alignment - 1) & ~(alignment - 1);
        if (aligned + length > first + bytes) continue;
        by_length_.erase(found);
        by_address_.erase(first);
        if (aligned != first) add(first, aligned);
        if (aligned + length != first + bytes) add(aligned + length, first + bytes);
        return aligned;
      }
      alignments &= ~alignment;
    }
  }
  void free(std::uint64_t first, std::uint64_t length) {
    std::uint64_t end = first + length;
    auto after = by_address_.lower_bound(first);
    if (after != by_address_.end() && after->first == end) {
      end = after->second;
      by_length_.erase({after->second - after->first, after->first});
      after = by_address_.erase(after);
    }
    if (after != by_address_.begin() && std::prev(after)->second == first) {
      const auto before = std::prev(after);
      first = before->first;
      by_length_.erase({before->second - before->first, before->first});
      by_address_.erase(before);
    }
    add(first, end);
  }
  void allocate_at(std::uint64_t first, std::uint64_t length) {
    const auto around = std::prev(by_address_.upper_bound(first));
    const auto [from, end] = *around;
    by_length_.erase({end - from, from});
    by_address_.erase(around);
    if (from != first) add(from, first);
    if (first + length != end) add(first + length, end);
  }

 private:
  void add(std::uint64_t first, std::uint64_t end) {
    by_address_.emplace(first, end);
    by_length_.emplace(end - first, first);
  }
  std::map<std::uint64_t, std::uint64_t> by_address_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_length_;
};

// Packet and command buffers, larger buffers, and huge pages.
std::uint64_t some_length(std::mt19937_64& random) {
  const std::uint64_t kind = random() % 32;
  if (kind == 0) return 2 * mib * (1 + random() % 2);
  if (kind < 8) return page * (2 + random() % 31);
  return page;
}

struct Step {
  std::uint64_t freed;
  std::uint64_t freed_length;
  std::uint64_t allocated;
  std::uint64_t allocated_length;
};

// The median over batches of the nanoseconds of one free and one allocate together, with 100,000 live ranges and half
// as many holes. The random choices are made before the clock starts, so that only the allocator is measured. After
// each batch everything is restored, so that the holes stay.
template <typename Allocator>
double nanoseconds_a_pair() {
  constexpr std::size_t live_ranges = 100'000;
  constexpr std::size_t pairs = 1'000;
  constexpr std::size_t batches = 500;
  std::mt19937_64 random(1);
  Allocator allocator;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> live;
  for (std::size_t i = 0; i < 2 * live_ranges; ++i) {
    const std::uint64_t length = some_length(random);
    live.emplace_back(allocator.allocate(length), length);
  }
  std::shuffle(live.begin(), live.end(), random);
  for (; live.size() > live_ranges; live.pop_back()) allocator.free(live.back().first, live.back().second);

  std::vector<Step> steps(pairs);
  std::vector<double> times;
  for (std::size_t batch = 0; batch < batches; ++batch) {
    const std::size_t from = batch * pairs % live_ranges;
    for (std::size_t i = 0; i < pairs; ++i) {
      steps[i] = {live[from + i].first, live[from + i].second, 0, some_length(random)};
    }
    const auto start = std::chrono::steady_clock::now();
    for (Step& step : steps) {
      allocator.free(step.freed, step.freed_length);
      step.allocated = allocator.allocate(step.allocated_length);
    }
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    times.push_back(taken.count() / static_cast<double>(pairs));
    for (const Step& step : steps) allocator.free(step.allocated, step.allocated_length);
    for (const Step& step : steps) allocator.allocate_at(step.freed, step.freed_length);
  }
  return bench::median(std::move(times));
}

double shadow_map_bytes() {
  constexpr std::size_t count = 60'000;
  std::vector<std::uint64_t> places(count);
  std::iota(places.begin(), places.end(), 1);
  std::shuffle(places.begin(), places.end(), std::mt19937_64(2));
  ShadowMap map;
  for (const std::uint64_t place : places) {
    static_cast<void>(map.insert({{place * 2 * page}, {place * 2 * page + page - 1}}, nullptr, Access::read_write));
  }
  return static_cast<double>(map.memory_bytes()) / static_cast<double>(map.size());
}

}  // namespace
}  // namespace postern

int main() {
  using postern::bench::print_figure;
  print_figure("iova-allocate-free", postern::nanoseconds_a_pair<postern::PosternAllocator>(), "ns", 200);
  print_figure("iova-allocate-free-std-map", postern::nanoseconds_a_pair<postern::StdMap>(), "ns");
  print_figure("shadow-map-bytes", postern::shadow_map_bytes(), "bytes", 80);
  return postern::bench::all_ok ? 0 : 1;
}
