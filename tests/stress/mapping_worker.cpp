// SPDX-License-Identifier: Apache-2.0
// MappingWorker: uses an edu device, and checks it against a model of its container's mappings and the pages it wrote.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <set>
#include <span>
#include <thread>

#include "stress/worker.hpp"
#include "support/edu.hpp"

namespace postern::stress {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t arena_pages = 64;
constexpr std::uint64_t base = 1 << 20;      // the first iova used; edu can address 256 MiB
constexpr std::uint64_t window_pages = 128;  // the number of pages used from there

class MappingWorker final : public Worker {
 public:
  MappingWorker(Kernel& kernel, PciAddress edu, PciAddress second, std::uint64_t seed)
      : kernel_(kernel), address_(edu), second_address_(second), random_(seed) {
    void* const memory =
        ::mmap(nullptr, arena_pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "there is no memory");
    arena_ = static_cast<std::byte*>(memory);
  }
  ~MappingWorker() override {
    second_.reset();
    edu_.reset();
    container_.reset();
    ::munmap(arena_, arena_pages * page);
  }

  [[nodiscard]] std::string name() const override { return "mapping " + to_string(address_); }

  void step() override {
    if (!edu_) return attach_edu();
    switch (random_.below(20)) {
      case 0:
        return let_edu_go();
      case 1:
        return move_second();
      case 2:
        return take_interrupt();
      case 3:
        return compare();
      case 4:
        if (random_.one_in(4)) return unmap_everything();
        [[fallthrough]];
      case 5:
      case 6:
        return unmap_any();
      case 7:
        return unmap_one();
      case 8:
      case 9:
        return copy();
      case 10:
        return start_or_stop();
      case 11:
      case 12:
        return query();
      default:
        return map_any();
    }
  }

  void finish() override {
    if (edu_) compare();
    second_.reset();
    if (edu_) must(edu_->device().detach());
    edu_.reset();
    if (container_) must(container_->close());
    container_.reset();
  }

 private:
  struct Mapped {
    std::uint64_t pages = 0;
    std::uint64_t arena_page = 0;
  };

  void attach_edu() {
    // A container that was kept must still have its mappings, also if the kernel has dropped them.
    AttachOptions options{.backend = container_ ? "auto" : any_backend(random_), .container = container_};
    edu_.emplace(
        must(PciDevice::open(must(attach(kernel_, must(find_pci_function(kernel_, address_)).host, options)))));
    container_ = edu_->device().container();
    must(edu_->enable_bus_master());
    compare();
  }

  void let_edu_go() {
    second_.reset();
    must(edu_->device().detach());
    edu_.reset();
    if (!random_.one_in(2)) return;
    must(container_->close());
    check(container_->mapping_count() == 0, "a closed container has mappings");
    must_fail(container_->map(Iova{base}, {arena_, page}), EBADF, "mapping into a closed container");
    container_.reset();
    model_.clear();
    written_.clear();
    tracks_ = false;
  }

  void move_second() {
    if (second_) {
      must(second_->detach());
      second_.reset();
    } else if (second_address_ != address_) {
      second_.emplace(must(attach(kernel_, must(find_pci_function(kernel_, second_address_)).host,
                                  {.backend = "auto", .container = container_})));
    }
    check(container_->devices().size() == (second_ ? 2U : 1U), "the container has other devices");
  }

  // The model's mappings that overlap `pages` pages from `first`.
  [[nodiscard]] std::vector<std::uint64_t> overlapping(std::uint64_t first, std::uint64_t pages) const {
    std::vector<std::uint64_t> found;
    for (const auto& [at, mapped] : model_) {
      if (at < first + pages && first < at + mapped.pages) found.push_back(at);
    }
    return found;
  }

  void map_any() {
    const std::uint64_t pages = 1 + random_.below(8);
    const std::uint64_t at = random_.below(window_pages - pages + 1);
    const std::uint64_t from = random_.below(arena_pages - pages + 1);
    const auto mapped = container_->map(iova(at), {arena_ + from * page, pages * page});
    if (!overlapping(at, pages).empty()) return must_fail(mapped, EEXIST, "mapping over a mapping");
    must(mapped);
    model_[at] = {pages, from};
  }

  void erase(std::uint64_t at) {
    written_.erase(written_.lower_bound(at), written_.lower_bound(at + model_[at].pages));
    model_.erase(at);
  }

  void unmap_one() {
    if (model_.empty()) return;
    const auto [at, mapped] = any_mapping();
    if (tracks_ && random_.one_in(2)) {
      std::uint64_t word = 0;
      must(container_->get<DirtyTracker>()->unmap(iova(at), mapped.pages * page,
                                                  {.page_size = page, .words = std::span(&word, 1)}));
      check_told(at, mapped.pages, word);
    } else {
      must(container_->unmap(iova(at), mapped.pages * page));
    }
    erase(at);
  }

  void unmap_any() {
    const std::uint64_t pages = 1 + random_.below(16);
    const std::uint64_t at = random_.below(window_pages - pages + 1);
    const auto found = overlapping(at, pages);
    const bool splits = std::any_of(found.begin(), found.end(), [&](std::uint64_t each) {
      return each < at || each + model_[each].pages > at + pages;
    });
    const auto unmapped = container_->unmap(iova(at), pages * page);
    if (found.empty()) return must_fail(unmapped, ENOENT, "unmapping nothing");
    if (splits) return must_fail(unmapped, EINVAL, "unmapping a part");
    must(unmapped);
    for (const std::uint64_t each : found) erase(each);
  }

  void unmap_everything() {
    must(container_->unmap_all());
    model_.clear();
    written_.clear();
  }

  void compare() const {
    auto expected = model_.begin();
    container_->for_each_mapping([&](const Mapping& mapping) {
      check(expected != model_.end() && mapping.range.first == iova(expected->first) &&
                mapping.range.length() == expected->second.pages * page &&
                mapping.memory.address() == arena_ + expected->second.arena_page * page,
            fmt::format("{} is mapped", to_string(mapping.range)));
      ++expected;
    });
    check(expected == model_.end() && container_->mapping_count() == model_.size(), "a mapping is missing");
  }

  // Copies from one mapped page to another through the device's own memory.
  void copy() {
    if (model_.empty()) return;
    const auto [from_page, from] = any_page();
    const auto [to_page, to] = any_page();
    const auto count = static_cast<std::uint32_t>(8 + random_.below(64) * 8);
    for (std::uint32_t i = 0; i < count; ++i) from[i] = static_cast<std::byte>(random_.below(256));
    const std::vector<std::byte> sent(from, from + count);
    const test::EduRegisters registers(edu_->device());
    registers.copy(iova(from_page).value, test::EduRegisters::buffer, count, 0);
    registers.copy(test::EduRegisters::buffer, iova(to_page).value, count, test::EduRegisters::to_memory);
    check(std::equal(sent.begin(), sent.end(), to), "the device copied something else, or elsewhere");
    if (tracks_) written_.insert(to_page);
  }

  void start_or_stop() {
    DirtyTracker* const tracker = container_->get<DirtyTracker>();
    if (tracker == nullptr) return;
    check(tracker->is_on() == tracks_, "dirty tracking is on where it should be off, or the other way round");
    if (tracks_ && !random_.one_in(4)) return;
    must(tracks_ ? tracker->stop() : tracker->start());
    tracks_ = !tracks_;
    written_.clear();
  }

  // Queries part of a mapping, and all of it.
  void query() {
    if (!tracks_ || model_.empty()) return;
    const auto [at, mapped] = any_mapping();
    const std::uint64_t first = at + random_.below(mapped.pages);
    const std::uint64_t pages = 1 + random_.below(at + mapped.pages - first);
    if (random_.one_in(2)) ask(first, pages, random_.one_in(2) ? AfterQuery::keep : AfterQuery::clear);
    if (random_.one_in(2)) ask(at, mapped.pages, AfterQuery::clear);
  }

  void ask(std::uint64_t first, std::uint64_t pages, AfterQuery after) {
    std::uint64_t word = 0;
    must(container_->get<DirtyTracker>()->query({iova(first), iova(first + pages) - 1},
                                                {.page_size = page, .words = std::span(&word, 1)}, after));
    check_told(first, pages, word);
    if (after == AfterQuery::clear) written_.erase(written_.lower_bound(first), written_.lower_bound(first + pages));
  }

  // Checks that every written page is reported; clean pages may be, too.
  void check_told(std::uint64_t first, std::uint64_t pages, std::uint64_t word) const {
    for (std::uint64_t i = 0; i < pages; ++i) {
      check(written_.count(first + i) == 0 || (word >> i & 1) != 0,
            fmt::format("a written page is left out: {}", first + i));
    }
  }

  // Waits in another thread, as Event allows.
  void take_interrupt() {
    const Event arrived = must(Event::create(kernel_));
    const bool is_msi = random_.one_in(2);
    const PciInterrupt kind = is_msi ? PciInterrupt::msi : PciInterrupt::intx;
    must(edu_->enable(kind, std::span(&arrived, 1)));
    std::uint64_t signals = 0;
    std::thread waiter([&] { signals = arrived.wait(20s).value_or(0); });
    const test::EduRegisters registers(edu_->device());
    registers.raise(1);
    waiter.join();
    registers.acknowledge(1);
    must(edu_->disable(kind));
    check(signals == 1, fmt::format("{} signals of {} came of one", signals, is_msi ? "MSI" : "INTx"));
  }

  [[nodiscard]] static Iova iova(std::uint64_t number) { return Iova{base + number * page}; }
  [[nodiscard]] std::pair<std::uint64_t, Mapped> any_mapping() {
    return *std::next(model_.begin(), static_cast<std::ptrdiff_t>(random_.below(model_.size())));
  }
  // A mapped page, and its memory.
  [[nodiscard]] std::pair<std::uint64_t, std::byte*> any_page() {
    const auto [at, mapped] = any_mapping();
    const std::uint64_t number = random_.below(mapped.pages);
    return {at + number, arena_ + (mapped.arena_page + number) * page};
  }

  Kernel& kernel_;
  PciAddress address_;
  PciAddress second_address_;
  Random random_;
  std::byte* arena_ = nullptr;
  std::shared_ptr<Container> container_;
  std::optional<PciDevice> edu_;
  std::optional<Device> second_;
  std::map<std::uint64_t, Mapped> model_;  // by the number of the first page
  std::set<std::uint64_t> written_;        // pages written since the last query that cleared them
  bool tracks_ = false;
};

}  // namespace

std::unique_ptr<Worker> make_mapping_worker(Kernel& kernel, PciAddress edu, PciAddress second, std::uint64_t seed) {
  return std::make_unique<MappingWorker>(kernel, edu, second, seed);
}

}  // namespace postern::stress
