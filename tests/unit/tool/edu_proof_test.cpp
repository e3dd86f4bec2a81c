// SPDX-License-Identifier: Apache-2.0
// The proof for QEMU's edu device, with a device that is always busy, and one that answers only once.
#include <gtest/gtest.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/forwarding_kernel.hpp>
#include <postern/pci_function.hpp>

#include "proofs/proof.hpp"
#include "sim/devices/registers.hpp"
#include "sim/laboratory.hpp"

namespace postern::tool {
namespace edu_proof_test {

constexpr std::size_t liveness = 0x04;
constexpr std::size_t interrupt_raise = 0x60;
constexpr std::size_t interrupt_acknowledge = 0x64;
constexpr std::size_t dma_command = 0x98;

// An edu device whose registers the test controls.
class LyingEdu : public sim::Hardware {
 public:
  explicit LyingEdu(std::unique_ptr<sim::Hardware> honest) : honest_(std::move(honest)) {}
  [[nodiscard]] const sim::HardwareInfo& info() const override { return honest_->info(); }
  void connect(sim::Slot& slot, const sim::Bars& bars) override {
    slot_ = &slot;
    honest_->connect(slot, bars);
    registers_ = sim::Registers(bars[0]);
  }
  void reset() override { honest_->reset(); }

 protected:
  std::unique_ptr<sim::Hardware> honest_;
  sim::Slot* slot_ = nullptr;
  sim::Registers registers_;
  std::uint32_t answer_ = 0;
};

// Its DMA engine is always busy.
class BusyEdu final : public LyingEdu {
 public:
  using LyingEdu::LyingEdu;
  [[nodiscard]] bool poll() override {
    registers_.write(dma_command, 1);
    if (const std::uint32_t question = registers_.read(liveness); question != answer_) {
      answer_ = ~question;
      registers_.write(liveness, answer_);
    }
    return false;
  }
};

// Always returns its answer to the first question; its copies complete but move nothing.
class OnceEdu final : public LyingEdu {
 public:
  using LyingEdu::LyingEdu;
  [[nodiscard]] bool poll() override {
    constexpr std::uint32_t nothing = ~std::uint32_t{0};
    if (registers_.take(interrupt_acknowledge, nothing) != nothing) slot_->set_line(false);
    if (registers_.take(interrupt_raise, nothing) != nothing) {
      if (slot_->signals_messages()) {
        slot_->interrupt(0);
      } else {
        slot_->set_line(true);
      }
    }
    registers_.keep(dma_command, 0);
    if (const std::uint32_t question = registers_.read(liveness); answer_ == 0 && question != 0) answer_ = ~question;
    registers_.keep(liveness, answer_);
    return false;
  }
};

// Records whether bus mastering was ever enabled in the command register.
class MasterWatch final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override {
    constexpr std::uint64_t command = (std::uint64_t{7} << 40) + 4;
    constexpr unsigned char master = 4;
    if (offset == command && (*static_cast<const unsigned char*>(buffer) & master) != 0) was_master = true;
    return ForwardingKernel::pwrite(fd, buffer, length, offset);
  }
  bool was_master = false;
};

constexpr PciAddress edu{.bus = 0, .device = 4};

// Runs the proof, and returns the steps that failed.
std::vector<std::string> run_proof(Kernel& kernel, PciDevice& device) {
  const auto ranges = device.device().container()->usable_ranges();
  IovaAllocator iovas(ranges, device.device().container()->page_sizes());
  const ProofOptions options;
  const Session session{.kernel = kernel, .bindings_folder = "", .format = Format::json};
  Steps steps(session);
  ProofContext context{
      .session = session, .device = device, .ranges = ranges, .allocator = iovas, .options = options, .steps = steps};
  edu_proof.run(context);
  return steps.failures();
}

TEST(EduProof, LetsADeviceAtMemoryOnlyAtRest) {
  for (const bool is_busy : {false, true}) {
    sim::Kernel simulated;
    const auto wrap = [is_busy](std::unique_ptr<sim::Hardware> honest) -> std::unique_ptr<sim::Hardware> {
      if (is_busy) return std::make_unique<BusyEdu>(std::move(honest));
      return honest;
    };
    ASSERT_TRUE(sim::Laboratory::wrap(simulated, edu, wrap));
    MasterWatch kernel(simulated);
    auto device = PciDevice::open(attach(kernel, find_pci_function(kernel, edu).value().host).value()).value();
    EXPECT_EQ(run_proof(kernel, device), is_busy ? std::vector<std::string>{"dma"} : std::vector<std::string>{});
    EXPECT_EQ(kernel.was_master, !is_busy);
  }
}

TEST(EduProof, TakesNoAnswerToAnEarlierQuestion) {
  sim::Kernel kernel;
  const auto wrap = [](std::unique_ptr<sim::Hardware> honest) { return std::make_unique<OnceEdu>(std::move(honest)); };
  ASSERT_TRUE(sim::Laboratory::wrap(kernel, edu, wrap));
  auto device = PciDevice::open(attach(kernel, find_pci_function(kernel, edu).value().host).value()).value();
  EXPECT_EQ(run_proof(kernel, device), std::vector<std::string>{"dma"});
  EXPECT_EQ(run_proof(kernel, device), (std::vector<std::string>{"registers", "dma"}));
}

}  // namespace edu_proof_test
}  // namespace postern::tool
