// SPDX-License-Identifier: Apache-2.0
// The passes of a check, which depend on the backend and the kernel.
#include "commands/pass.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <memory>

#include "iommu/backend_ops.hpp"
#include "iommu/capabilities.hpp"
#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace pass_test {

class NoWindows final : public DmaWindows::Impl {
 public:
  explicit NoWindows(BackendContainer& container) : container_(container) {}
  [[nodiscard]] AddressSpace& address_space() const noexcept override { return container_.space(); }
  [[nodiscard]] DmaWindowLimits limits() const override { return {}; }
  [[nodiscard]] std::vector<DmaWindow> list() const override { return {}; }
  Result<DmaWindow> create(const DmaWindowRequest&) override { return DmaWindow{}; }
  Result<void> remove(Iova) override { return {}; }
  Result<DmaWindow> make_room(std::uint64_t, std::uint64_t) override { return DmaWindow{}; }

 private:
  BackendContainer& container_;
};

// A container that does nothing. Like spapr's, it has windows in version 2.
class IdleContainer : public BackendContainer {
 public:
  IdleContainer(Kernel& kernel, std::uint32_t version)
      : BackendContainer(kernel, {.name = "idle", .unmap = {}, .when_empty = WhenEmpty::keeps_mappings}),
        version_(version) {}

  CallResult map(Iova, std::uint64_t, void*, Access) override { return {}; }
  int unmap(Iova, std::uint64_t) override { return 0; }
  [[nodiscard]] Result<std::unique_ptr<Attached>> open(
      const HostDevice& device, const std::shared_ptr<const KvmVfioDevice>& /*kvm*/) const override {
    return std::make_unique<Attached>(device, NodeFd(), nullptr);
  }
  Result<void> detach(Attached&) override { return {}; }
  Result<void> close() override { return {}; }
  Result<ContainerLimits> read_limits() override { return ContainerLimits{}; }
  [[nodiscard]] Container::Properties properties() const override { return {}; }
  void* find_capability(std::string_view name) noexcept override {
    return version_ == 2 && name == DmaWindows::capability ? &windows_ : nullptr;
  }

 private:
  std::uint32_t version_;
  NoWindows no_windows_{*this};
  DmaWindows windows_{no_windows_};
};

// The kernel does not have version 3.
Result<std::unique_ptr<BackendContainer>> open(Probed, Kernel& kernel, const ContainerOptions& options) {
  if (options.version == 3) return failure(proof_error(ENODEV, "open", "container idle", "the kernel is too old"));
  return std::make_unique<IdleContainer>(kernel, options.version);
}

constexpr BackendOps ops{.requirements = {}, .open = open};
constexpr std::array<std::uint32_t, 3> versions = {3, 2, 1};
constexpr Backend versioned{.name = "idle", .summary = {}, .versions = versions, .ops = &ops};
constexpr Backend plain{.name = "plain", .summary = {}, .versions = {}, .ops = &ops};

std::vector<std::string> passes_of(const Backend& backend, std::optional<std::uint32_t> version) {
  test::TreeKernel kernel;
  Passes passes;
  add_passes(kernel, backend, version, passes);
  std::vector<std::string> texts;
  for (const Pass& pass : passes.passes) texts.push_back(pass_text(pass));
  for (const MissingVersion& missing : passes.missing)
    texts.push_back("missing " + std::to_string(missing.version) + ": " + missing.error.reason());
  return texts;
}

TEST(Passes, AreEveryVersionThatTheKernelHasAndEachKindOfWindow) {
  const std::vector<std::string> expected = {"idle, version 2, default window", "idle, version 2, created window",
                                             "idle, version 1", "missing 3: the kernel is too old"};
  EXPECT_EQ(passes_of(versioned, std::nullopt), expected);
}

TEST(Passes, AreThoseOfOneVersionWhereItIsNamed) {
  EXPECT_EQ(passes_of(versioned, 1), std::vector<std::string>{"idle, version 1"});
  EXPECT_EQ(passes_of(versioned, 3), std::vector<std::string>{"missing 3: the kernel is too old"});
  EXPECT_TRUE(passes_of(versioned, 4).empty());
}

TEST(Passes, OfABackendWithoutVersionsAreOneUnlessAVersionIsNamed) {
  EXPECT_EQ(passes_of(plain, std::nullopt), std::vector<std::string>{"plain"});
  EXPECT_TRUE(passes_of(plain, 2).empty());
}

TEST(Passes, SayInJsonWhatTheyAre) {
  EXPECT_EQ(pass_json({.backend = &plain}), Json::parse(R"({"backend": "plain", "version": null, "window": null})"));
  EXPECT_EQ(pass_json({.backend = &versioned, .version = 2, .space = Space::created_window}),
            Json::parse(R"({"backend": "idle", "version": 2, "window": "created"})"));
  EXPECT_EQ(pass_json({.backend = &versioned, .version = 2, .space = Space::default_window})["window"], "default");
}

}  // namespace pass_test
}  // namespace postern::tool
