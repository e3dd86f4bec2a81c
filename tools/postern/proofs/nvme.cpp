// SPDX-License-Identifier: Apache-2.0
// The proof for NVMe controllers: Identify, reading at depth, a completion by interrupt, and on demand writing.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/dma_buffer.hpp>
#include <utility>

#include "proofs/nvme_dirty.hpp"
#include "proofs/nvme_read.hpp"
#include "proofs/nvme_write.hpp"
#include "proofs/poison.hpp"
#include "proofs/proof.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr unsigned read_depth = 32;

void identify(Bench& bench, const nvme::Controller& controller) {
  const nvme::ControllerInfo& info = controller.info();
  Json namespaces = Json::array();
  std::string sizes;
  for (const nvme::Namespace& ns : controller.namespaces()) {
    sizes +=
        fmt::format("; namespace {}: {} in blocks of {}", ns.id, size_text(ns.blocks * ns.block_size), ns.block_size);
    namespaces.push_back({{"id", ns.id}, {"blocks", ns.blocks}, {"block_size", ns.block_size}});
  }
  bench.steps.ok("identify",
                 fmt::format("model {}, serial {}, firmware {}, NVMe {}.{}{}", info.model, info.serial, info.firmware,
                             info.version >> 16, info.version >> 8 & 0xff, sizes),
                 {{"model", info.model},
                  {"serial", info.serial},
                  {"firmware", info.firmware},
                  {"namespaces", std::move(namespaces)}});
}

void read_at_depth(Bench& bench, nvme::Controller& controller, const nvme::Namespace& ns) {
  const std::uint64_t all = ns.blocks * ns.block_size;
  const std::uint64_t bytes = std::min(all, bench.options.bytes.value_or(all));
  if (bytes < ns.block_size)
    return bench.steps.skipped(
        "dma", fmt::format("a block has {}: nothing to read in {}", size_text(ns.block_size), size_text(bytes)));
  auto report = read_namespace(bench, controller, ns, bytes, read_depth);
  if (!report) return bench.steps.failed("dma", report.error());
  const double per_second = report->seconds > 0 ? static_cast<double>(report->commands) / report->seconds : 0;
  bench.steps.ok(
      "dma",
      fmt::format("{} read into {} with {} commands at a time: {}, {} commands/s, digest included",
                  size_text(report->bytes), to_string(report->buffers), report->depth,
                  rate_text(report->bytes, report->seconds), count_text(static_cast<std::uint64_t>(per_second))),
      {{"namespace", ns.id},
       {"bytes", report->bytes},
       {"seconds", report->seconds},
       {"first", to_string(report->buffers.first)},
       {"last", to_string(report->buffers.last)},
       {"sha256", report->sha256}});
  bench.steps.line(fmt::format("sha256 {}  first {} bytes of namespace {}", report->sha256, report->bytes, ns.id));
}

std::string dirty_text(const DirtyReport& report) {
  const std::string note = report.tracked.note.empty() ? "" : ": " + report.tracked.note;
  if (report.tracked.source == DirtySource::nobody) return "not tracked, so that every page counts as written" + note;
  return fmt::format("{} pages written, all of them among the {} of {} that {} told{}", report.written, report.marked,
                     report.pages, dirty_source_text(report.tracked.source), note);
}

void dirty_pages(Bench& bench, nvme::Controller& controller, const nvme::Namespace& ns) {
  DirtyTracker* const tracker = bench.device.device().container()->dirty_tracker();
  if (tracker == nullptr) {
    return bench.steps.skipped(
        "dirty pages",
        "this interface of the kernel tells of none: who moves a running device must copy all of "
        "its memory while it stands still");
  }
  auto report = compare_dirty_pages(bench, *tracker, controller, ns);
  if (!report) return bench.steps.failed("dirty pages", report.error());
  // Then every page is marked, and that the written ones are among them shows nothing.
  if (report->tracked.source == DirtySource::nobody) return bench.steps.skipped("dirty pages", dirty_text(*report));
  bench.steps.ok("dirty pages", dirty_text(*report),
                 {{"source", to_string(report->tracked.source)},
                  {"pages", report->pages},
                  {"written", report->written},
                  {"marked", report->marked}});
}

void write_test(Bench& bench, std::optional<nvme::Controller>& controller, const nvme::Namespace& ns) {
  if (!bench.options.write_test)
    return bench.steps.skipped("write", "not asked for; --write-test writes, and restores");
  auto done = write_and_restore(bench, controller, ns);
  if (!done && done.error().code() == EROFS) {
    return bench.steps.skipped("write", fmt::format("namespace {} is write-protected, and holds what it held", ns.id));
  }
  if (!done) return bench.steps.failed("write", done.error());
  bench.steps.ok("write", *done);
}

// The first that can be read. Where there is none the step is skipped, with the reason.
const nvme::Namespace* readable_namespace(const nvme::Controller& controller, std::string_view step, Steps& steps) {
  const auto& all = controller.namespaces();
  const auto with_blocks =
      std::find_if(all.begin(), all.end(), [](const nvme::Namespace& ns) { return ns.blocks > 0; });
  const auto usable = std::find_if(all.begin(), all.end(), [&controller](const nvme::Namespace& ns) {
    return ns.blocks > 0 && ns.block_size <= controller.info().max_transfer;
  });
  if (usable != all.end()) return &*usable;
  if (with_blocks == all.end()) {
    steps.skipped(step, "it has no namespace to read; Identify came by DMA");
  } else {
    steps.skipped(step,
                  fmt::format("a block of namespace {} has {}, and the controller moves {} at a time", with_blocks->id,
                              size_text(with_blocks->block_size), size_text(controller.info().max_transfer)));
  }
  return nullptr;
}

// A controller started anew, so that its completions come by interrupt.
void interrupt(Bench& bench) {
  if (bench.device.interrupt(PciInterrupt::msix).count == 0)
    return bench.steps.skipped("interrupt", "the device has no MSI-X");
  auto controller = nvme::Controller::open(bench.device, bench.allocator, {.completion = nvme::Completion::msix});
  if (!controller) return bench.steps.failed("interrupt", controller.error());
  const nvme::Namespace* const usable = readable_namespace(*controller, "interrupt", bench.steps);
  if (usable == nullptr) return;
  const nvme::Namespace& ns = *usable;
  auto buffer = DmaBuffer::allocate(bench.device.device().container(), bench.allocator, ns.block_size);
  if (!buffer) return bench.steps.failed("interrupt", buffer.error());
  const Poison poison(ns.block_size);
  poison.fill(buffer->bytes().first(ns.block_size));
  const auto started = std::chrono::steady_clock::now();
  auto done = controller->read(ns, 0, 1, buffer->iova());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (!done) return bench.steps.failed("interrupt", done.error());
  const std::uint64_t interrupts = controller->interrupts();
  if (interrupts == 0) {
    return bench.steps.failed("interrupt", proof_error(ENOMSG, "wait", fmt::format("block 0 of namespace {}", ns.id),
                                                       "it was read, but no interrupt told of it"));
  }
  if (poison.first_left(buffer->bytes().first(ns.block_size), ns.block_size)) {
    return bench.steps.failed("interrupt", proof_error(EIO, "compare", fmt::format("block 0 of namespace {}", ns.id),
                                                       "the interrupt came, but the data did not arrive in memory"));
  }
  bench.steps.ok("interrupt", fmt::format("a read completed by MSI-X in {}", duration_text(seconds)),
                 {{"interrupts", interrupts}});
}

void run_nvme(Bench& bench) {
  {
    auto opened = nvme::Controller::open(bench.device, bench.allocator);
    if (!opened) return bench.steps.failed("identify", opened.error());
    std::optional<nvme::Controller> controller(std::move(*opened));
    identify(bench, *controller);
    const nvme::Namespace* const usable = readable_namespace(*controller, "dma", bench.steps);
    if (usable == nullptr) return;
    const nvme::Namespace ns = *usable;  // a copy, as the write test may start the controller anew
    read_at_depth(bench, *controller, ns);
    dirty_pages(bench, *controller, ns);
    write_test(bench, controller, ns);
  }
  interrupt(bench);
}

bool is_nvme(const PciFunction& function) {
  constexpr std::uint32_t nvme_controller = 0x010802;  // mass storage, non-volatile memory, NVM Express I/O controller
  return function.class_code == nvme_controller;
}

}  // namespace

const Proof nvme_proof = {.device = "NVMe", .fits = is_nvme, .run = run_nvme};

}  // namespace postern::tool
