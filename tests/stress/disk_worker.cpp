// SPDX-License-Identifier: Apache-2.0
// DiskWorker: uses an NVMe disk, and checks it against a model of its blocks.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <span>

#include "stress/worker.hpp"

namespace postern::stress {
namespace {

constexpr std::uint64_t blocks_used = 64;
constexpr std::uint64_t block_bytes = 512;
constexpr std::uint64_t slots = 8;  // in the buffer, one block each

class DiskWorker final : public Worker {
 public:
  DiskWorker(Kernel& kernel, PciAddress disk, std::uint64_t seed) : kernel_(kernel), address_(disk), random_(seed) {}

  [[nodiscard]] std::string name() const override { return "disk " + to_string(address_); }

  void step() override {
    if (!device_) return attach_disk();
    if (!disk_) return open_disk();
    switch (random_.below(32)) {
      case 0:
        disk_.reset();
        if (random_.one_in(2)) reset();
        return;
      case 1:
        return let_go();
      case 2:
        return must(disk_->flush(ns()));
      case 3:
      case 4:
        return read_several();
      default:
        return random_.one_in(2) ? write_block() : read_block();
    }
  }

  void finish() override {
    if (device_) let_go();
  }

 private:
  using Block = std::array<std::byte, block_bytes>;

  void attach_disk() {
    auto device =
        must(attach(kernel_, must(find_pci_function(kernel_, address_)).host, {.backend = any_backend(random_)}));
    device_.emplace(must(PciDevice::open(std::move(device))));
    const auto container = device_->device().container();
    iovas_.emplace(container->usable_ranges(), container->page_sizes());
    buffer_.emplace(must(DmaBuffer::allocate(container, *iovas_, slots * block_bytes)));
  }

  void open_disk() {
    const auto completion = random_.one_in(2) ? nvme::Completion::msix : nvme::Completion::polling;
    disk_.emplace(must(nvme::Controller::open(*device_, *iovas_, {.completion = completion})));
    check(ns().block_size == block_bytes && ns().blocks >= blocks_used, "the disk has another namespace");
  }

  void let_go() {
    disk_.reset();
    buffer_.reset();
    check(device_->device().container()->mapping_count() == 0, "something is mapped, though all buffers are let go");
    iovas_.reset();
    must(device_->device().detach());
    device_.reset();
  }

  // A reset clears the registers that the driver wrote; stopping the controller does not.
  void reset() {
    constexpr std::uint64_t admin_queue_attributes = 0x24;
    const auto attributes = [this] {
      std::uint32_t value = 0;
      must(device_->device().read(0, admin_queue_attributes, std::as_writable_bytes(std::span(&value, 1))));
      return value;
    };
    check(attributes() != 0, "a register of the disk does not keep what was written");
    must(device_->reset());
    check(attributes() == 0, "the disk was not reset");
  }

  void write_block() {
    const std::uint64_t block = random_.below(blocks_used);
    const std::uint64_t slot = random_.below(slots);
    Block data;
    for (std::byte& byte : data) byte = static_cast<std::byte>(random_.below(256));
    std::copy(data.begin(), data.end(), at(slot));
    must(disk_->write(ns(), block, 1, iova(slot)));
    model_[block] = data;
  }

  void read_block() {
    const std::uint64_t slot = random_.below(slots);
    const std::uint64_t block = random_.below(blocks_used);
    must(disk_->read(ns(), block, 1, iova(slot)));
    compare(block, slot);
  }

  // Reads one block per slot, all in one batch.
  void read_several() {
    std::array<nvme::Command, slots> wanted;
    for (std::uint64_t slot = 0; slot < slots; ++slot) {
      wanted[slot] = {.count = 1, .block = random_.below(blocks_used), .data = iova(slot)};
    }
    must(disk_->submit(ns(), wanted));
    for (std::uint64_t done = 0; done < slots; ++done) {
      check(must(disk_->wait()).status == 0, "a read failed");
    }
    for (std::uint64_t slot = 0; slot < slots; ++slot) compare(wanted[slot].block, slot);
  }

  // For a block that was never written, the model takes the first contents read.
  void compare(std::uint64_t block, std::uint64_t slot) {
    Block read;
    std::copy_n(at(slot), read.size(), read.begin());
    check(model_.try_emplace(block, read).first->second == read, "a block holds something else");
  }

  [[nodiscard]] const nvme::Namespace& ns() const { return disk_->namespaces().at(0); }
  [[nodiscard]] std::byte* at(std::uint64_t slot) const { return buffer_->data() + slot * block_bytes; }
  [[nodiscard]] Iova iova(std::uint64_t slot) const { return buffer_->iova() + slot * block_bytes; }

  Kernel& kernel_;
  PciAddress address_;
  Random random_;
  std::optional<PciDevice> device_;
  std::optional<IovaAllocator> iovas_;
  std::optional<DmaBuffer> buffer_;
  std::optional<nvme::Controller> disk_;
  std::map<std::uint64_t, Block> model_;
};

}  // namespace

std::unique_ptr<Worker> make_disk_worker(Kernel& kernel, PciAddress disk, std::uint64_t seed) {
  return std::make_unique<DiskWorker>(kernel, disk, seed);
}

}  // namespace postern::stress
