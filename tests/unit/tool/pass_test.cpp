// SPDX-License-Identifier: Apache-2.0
// Which passes a check has, by what a backend and the kernel know.
#include "verbs/pass.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <postern/dma_windows.hpp>

#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace pass_test {

class NoWindows : public DmaWindows {
 public:
  [[nodiscard]] DmaWindowLimits limits() const override { return {}; }
  [[nodiscard]] std::vector<DmaWindow> list() const override { return {}; }
  Result<DmaWindow> create(const DmaWindowRequest&) override { return DmaWindow{}; }
  Result<void> remove(Iova) override { return {}; }
  Result<DmaWindow> make_room(std::uint64_t, std::uint64_t) override { return DmaWindow{}; }
};

// Does nothing. Like spapr's, it has windows in version 2.
class IdleContainer : public Container {
 public:
  IdleContainer(Kernel& kernel, std::uint32_t version)
      : Container(kernel, {.backend = "idle", .map = {}, .unmap = {}, .when_empty = WhenEmpty::keeps_mappings}),
        version_(version) {}
  [[nodiscard]] Facts facts() const override { return {}; }
  DmaWindows* dma_windows() noexcept override { return version_ == 2 ? &windows_ : nullptr; }

 private:
  int do_map(Iova, std::uint64_t, void*, Access) override { return 0; }
  int do_unmap(Iova, std::uint64_t) override { return 0; }
  int do_unmap_all() override { return 0; }
  Result<Fd> do_attach(const HostDevice&) override { return Fd(); }
  Result<void> do_detach(const std::string&, Fd) override { return {}; }
  Result<void> do_close() override { return {}; }
  Result<ContainerLimits> read_limits() override { return ContainerLimits{}; }

  std::uint32_t version_;
  NoWindows windows_;
};

Result<Fd> probe(Kernel&, const HostDevice*) { return Fd(); }

// The kernel does not know version 3.
Result<std::shared_ptr<Container>> open_at(Fd, Kernel& kernel, const ContainerOptions& options) {
  if (options.version == 3) return failure(proof_error(ENODEV, "open", "container idle", "the kernel is too old"));
  return std::make_shared<IdleContainer>(kernel, options.version);
}

constexpr std::array<std::uint32_t, 3> versions = {3, 2, 1};
constexpr Backend versioned{.name = "idle", .summary = {}, .versions = versions, .probe = probe, .open_at = open_at};
constexpr Backend plain{.name = "plain", .summary = {}, .versions = {}, .probe = probe, .open_at = open_at};

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
