// SPDX-License-Identifier: Apache-2.0
// nvme_proof: NVMe controllers: Identify, reads at depth, dirty pages, a completion by interrupt and, on request,
// writes.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/dirty_tracker.hpp>
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

void identify(ProofContext& context, const nvme::Controller& controller) {
  const nvme::ControllerInfo& info = controller.info();
  Json namespaces = Json::array();
  std::string sizes;
  for (const nvme::Namespace& ns : controller.namespaces()) {
    sizes +=
        fmt::format("; namespace {}: {} in blocks of {}", ns.id, size_text(ns.blocks * ns.block_size), ns.block_size);
    namespaces.push_back({{"id", ns.id}, {"blocks", ns.blocks}, {"block_size", ns.block_size}});
  }
  context.steps.ok("identify",
                   fmt::format("model {}, serial {}, firmware {}, NVMe {}.{}{}", info.model, info.serial, info.firmware,
                               info.version >> 16, info.version >> 8 & 0xff, sizes),
                   {{"model", info.model},
                    {"serial", info.serial},
                    {"firmware", info.firmware},
                    {"namespaces", std::move(namespaces)}});
}

void read_at_depth(ProofContext& context, nvme::Controller& controller, const nvme::Namespace& ns) {
  const std::uint64_t all = ns.blocks * ns.block_size;
  const std::uint64_t bytes = std::min(all, context.options.bytes.value_or(all));
  if (bytes < ns.block_size)
    return context.steps.skipped(
        "dma", fmt::format("a block has {}, but only {} may be read", size_text(ns.block_size), size_text(bytes)));
  auto report = read_namespace(context, controller, ns, bytes, read_depth);
  if (!report) return context.steps.failed("dma", report.error());
  const double per_second = report->seconds > 0 ? static_cast<double>(report->commands) / report->seconds : 0;
  context.steps.ok(
      "dma",
      fmt::format("{} read into {} with {} commands in flight: {}, {} commands/s, including the digest",
                  size_text(report->bytes), to_string(report->buffers), report->depth,
                  rate_text(report->bytes, report->seconds), count_text(static_cast<std::uint64_t>(per_second))),
      {{"namespace", ns.id},
       {"bytes", report->bytes},
       {"seconds", report->seconds},
       {"first", to_string(report->buffers.first)},
       {"last", to_string(report->buffers.last)},
       {"sha256", report->sha256}});
  context.steps.line(fmt::format("sha256 {}  first {} bytes of namespace {}", report->sha256, report->bytes, ns.id));
}

std::string dirty_text(const DirtyReport& report) {
  const std::string note = report.tracked.note.empty() ? "" : ": " + report.tracked.note;
  if (report.tracked.source == DirtySource::none) return "not tracked, so every page is reported dirty" + note;
  return fmt::format("{} pages written, all of them among the {} of {} reported dirty; {}{}", report.written,
                     report.marked, report.pages, dirty_source_text(report.tracked.source), note);
}

void dirty_pages(ProofContext& context, nvme::Controller& controller, const nvme::Namespace& ns) {
  DirtyTracker* const tracker = context.device.device().container()->get<DirtyTracker>();
  if (tracker == nullptr) {
    return context.steps.skipped(
        "dirty pages",
        "not supported by this kernel interface; migration must copy all memory with the device stopped");
  }
  auto report = compare_dirty_pages(context, *tracker, controller, ns);
  if (!report) return context.steps.failed("dirty pages", report.error());
  // Every page is then reported, so the comparison shows nothing.
  if (report->tracked.source == DirtySource::none) return context.steps.skipped("dirty pages", dirty_text(*report));
  context.steps.ok("dirty pages", dirty_text(*report),
                   {{"source", to_string(report->tracked.source)},
                    {"pages", report->pages},
                    {"written", report->written},
                    {"marked", report->marked}});
}

void write_test(ProofContext& context, std::optional<nvme::Controller>& controller, const nvme::Namespace& ns) {
  if (!context.options.write_test)
    return context.steps.skipped("write", "not requested; --write-test writes and restores");
  auto done = write_and_restore(context, controller, ns);
  if (!done && done.error().code() == EROFS) {
    return context.steps.skipped("write",
                                 fmt::format("namespace {} is write-protected; its content is unchanged", ns.id));
  }
  if (!done) return context.steps.failed("write", done.error());
  context.steps.ok("write", *done);
}

// Returns the first namespace that can be read. If there is none, skips the step, with the reason.
const nvme::Namespace* readable_namespace(const nvme::Controller& controller, std::string_view step, Steps& steps) {
  const auto& all = controller.namespaces();
  const auto with_blocks =
      std::find_if(all.begin(), all.end(), [](const nvme::Namespace& ns) { return ns.blocks > 0; });
  const auto usable = std::find_if(all.begin(), all.end(), [&controller](const nvme::Namespace& ns) {
    return ns.blocks > 0 && ns.block_size <= controller.info().max_transfer;
  });
  if (usable != all.end()) return &*usable;
  if (with_blocks == all.end()) {
    steps.skipped(step, "the controller has no namespace to read; Identify used DMA");
  } else {
    steps.skipped(step, fmt::format("a block of namespace {} has {}, but the controller transfers at most {} at a time",
                                    with_blocks->id, size_text(with_blocks->block_size),
                                    size_text(controller.info().max_transfer)));
  }
  return nullptr;
}

// Restarts the controller with completions by interrupt.
void interrupt(ProofContext& context) {
  if (context.device.interrupt(PciInterrupt::msix).count == 0)
    return context.steps.skipped("interrupt", "the device has no MSI-X");
  auto controller = nvme::Controller::open(context.device, context.allocator, {.completion = nvme::Completion::msix});
  if (!controller) return context.steps.failed("interrupt", controller.error());
  const nvme::Namespace* const usable = readable_namespace(*controller, "interrupt", context.steps);
  if (usable == nullptr) return;
  const nvme::Namespace& ns = *usable;
  auto buffer = DmaBuffer::allocate(context.device.device().container(), context.allocator, ns.block_size);
  if (!buffer) return context.steps.failed("interrupt", buffer.error());
  const Poison poison(ns.block_size);
  poison.fill(buffer->bytes().first(ns.block_size));
  const auto started = std::chrono::steady_clock::now();
  auto done = controller->read(ns, 0, 1, buffer->iova());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (!done) return context.steps.failed("interrupt", done.error());
  const std::uint64_t interrupts = controller->interrupts();
  if (interrupts == 0) {
    return context.steps.failed("interrupt", proof_error(ENOMSG, "wait", fmt::format("block 0 of namespace {}", ns.id),
                                                         "the read completed, but no interrupt was received"));
  }
  if (poison.first_left(buffer->bytes().first(ns.block_size), ns.block_size)) {
    return context.steps.failed("interrupt",
                                proof_error(EIO, "compare", fmt::format("block 0 of namespace {}", ns.id),
                                            "the interrupt was received, but the data did not arrive in memory"));
  }
  context.steps.ok("interrupt", fmt::format("a read completed by MSI-X in {}", duration_text(seconds)),
                   {{"interrupts", interrupts}});
}

void run_nvme(ProofContext& context) {
  {
    auto opened = nvme::Controller::open(context.device, context.allocator);
    if (!opened) return context.steps.failed("identify", opened.error());
    std::optional<nvme::Controller> controller(std::move(*opened));
    identify(context, *controller);
    const nvme::Namespace* const usable = readable_namespace(*controller, "dma", context.steps);
    if (usable == nullptr) return;
    const nvme::Namespace ns = *usable;  // a copy, since the write test may restart the controller
    read_at_depth(context, *controller, ns);
    dirty_pages(context, *controller, ns);
    write_test(context, controller, ns);
  }
  interrupt(context);
}

bool is_nvme(const PciFunction& function) {
  constexpr std::uint32_t nvme_controller = 0x010802;  // mass storage, non-volatile memory, NVM Express I/O controller
  return function.class_code == nvme_controller;
}

}  // namespace

const Proof nvme_proof = {.device = "NVMe", .fits = is_nvme, .run = run_nvme};

}  // namespace postern::tool
